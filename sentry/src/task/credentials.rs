//! Credentials: user and group ids, capabilities. Immutable once made: a change makes a new one (`commit_creds`).

bitflags::bitflags! {
    /// Capabilities, by bit number (`capabilities(7)`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Caps: u64 {
        const CHOWN = 1 << 0;
        const DAC_OVERRIDE = 1 << 1;
        const DAC_READ_SEARCH = 1 << 2;
        const FOWNER = 1 << 3;
        const FSETID = 1 << 4;
        const KILL = 1 << 5;
        const SETGID = 1 << 6;
        const SETUID = 1 << 7;
        const SETPCAP = 1 << 8;
        const LINUX_IMMUTABLE = 1 << 9;
        const NET_BIND_SERVICE = 1 << 10;
        const NET_BROADCAST = 1 << 11;
        const NET_ADMIN = 1 << 12;
        const NET_RAW = 1 << 13;
        const IPC_LOCK = 1 << 14;
        const IPC_OWNER = 1 << 15;
        const SYS_MODULE = 1 << 16;
        const SYS_RAWIO = 1 << 17;
        const SYS_CHROOT = 1 << 18;
        const SYS_PTRACE = 1 << 19;
        const SYS_PACCT = 1 << 20;
        const SYS_ADMIN = 1 << 21;
        const SYS_BOOT = 1 << 22;
        const SYS_NICE = 1 << 23;
        const SYS_RESOURCE = 1 << 24;
        const SYS_TIME = 1 << 25;
        const SYS_TTY_CONFIG = 1 << 26;
        const MKNOD = 1 << 27;
        const LEASE = 1 << 28;
        const AUDIT_WRITE = 1 << 29;
        const AUDIT_CONTROL = 1 << 30;
        const SETFCAP = 1 << 31;
        const MAC_OVERRIDE = 1 << 32;
        const MAC_ADMIN = 1 << 33;
        const SYSLOG = 1 << 34;
        const WAKE_ALARM = 1 << 35;
        const BLOCK_SUSPEND = 1 << 36;
        const AUDIT_READ = 1 << 37;
        const PERFMON = 1 << 38;
        const BPF = 1 << 39;
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// The highest capability (`/proc/sys/kernel/cap_last_cap`).
pub const LAST_CAP: u32 = 40;

/// Bits of `securebits`; each has its lock bit next to it.
pub const SECBIT_NOROOT: u32 = 1 << 0;
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
/// All bits that exist, and of these the locks.
pub const SECUREBITS: u32 = 0xff;
pub const SECUREBITS_LOCKS: u32 = 0xaa;

/// Linux's `struct cred`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub ruid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub rgid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    pub permitted: Caps,
    pub effective: Caps,
    pub inheritable: Caps,
    pub bounding: Caps,
    pub ambient: Caps,
    /// `prctl(PR_SET_SECUREBITS)`.
    pub securebits: u32,
}

impl Credentials {
    /// Root with `caps` permitted, effective and bounding.
    pub fn root(caps: Caps) -> Credentials {
        Credentials {
            ruid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            rgid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new(),
            permitted: caps,
            effective: caps,
            inheritable: Caps::empty(),
            bounding: caps,
            ambient: Caps::empty(),
            securebits: 0,
        }
    }
    pub fn has(&self, cap: Caps) -> bool {
        self.effective.contains(cap)
    }
    /// What changes of user ids do to capabilities (`cap_emulate_setxuid`).
    pub fn fix_up_after_setuid(&mut self, old: &Credentials) {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        let was_root = old.ruid == 0 || old.euid == 0 || old.suid == 0;
        let is_root = self.ruid == 0 || self.euid == 0 || self.suid == 0;
        if was_root && !is_root {
            if self.securebits & SECBIT_KEEP_CAPS == 0 {
                self.permitted = Caps::empty();
                self.effective = Caps::empty();
            }
            self.ambient = Caps::empty();
        }
        if old.euid == 0 && self.euid != 0 {
            self.effective = Caps::empty();
        }
        if old.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
    }
    /// What `setfsuid` does to them: file capabilities come and go with root.
    pub fn fix_up_after_setfsuid(&mut self, old: &Credentials) {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        let fs_caps = Caps::CHOWN
            | Caps::MKNOD
            | Caps::DAC_OVERRIDE
            | Caps::DAC_READ_SEARCH
            | Caps::FOWNER
            | Caps::FSETID
            | Caps::LINUX_IMMUTABLE
            | Caps::MAC_OVERRIDE;
        if old.fsuid == 0 && self.fsuid != 0 {
            self.effective &= !fs_caps;
        }
        if old.fsuid != 0 && self.fsuid == 0 {
            self.effective |= self.permitted & fs_caps;
        }
    }
    /// Whether `gid` is the file-system group or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }
}
