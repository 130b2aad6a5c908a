//! `/proc/sys`: the settings that programs read. Those that a container could change on Linux without touching the host
//! (hostname, domainname) can be written; the rest is read-only.

use std::sync::Arc;

use quicksand_abi::Errno;

use crate::fs::pseudo::{self, Perm, StaticDir, Text};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::task::syscalls::{RELEASE, VERSION};
use crate::vfs::Superblock;

pub(super) fn new(sb: &Arc<Superblock>) -> StaticDir {
    let mut kernel = StaticDir::new();
    kernel
        .made(sb, "osrelease", |_| Ok(line(RELEASE)))
        .made(sb, "ostype", |_| Ok(line("Linux")))
        .made(sb, "version", |_| Ok(line(VERSION)))
        .file(sb, "pid_max", 0o444, "4194304\n")
        .file(sb, "threads-max", 0o444, "4194304\n")
        .file(sb, "ngroups_max", 0o444, "65536\n")
        .file(sb, "cap_last_cap", 0o444, "40\n")
        .file(sb, "overflowuid", 0o444, "65534\n")
        .file(sb, "overflowgid", 0o444, "65534\n")
        .file(sb, "randomize_va_space", 0o444, "2\n")
        .file(sb, "core_pattern", 0o444, "core\n")
        .file(sb, "core_uses_pid", 0o444, "0\n")
        .file(sb, "dmesg_restrict", 0o444, "1\n")
        .file(sb, "kptr_restrict", 0o444, "1\n")
        .file(sb, "perf_event_paranoid", 0o444, "3\n")
        .file(sb, "panic", 0o444, "0\n")
        .file(sb, "tainted", 0o444, "0\n")
        .file(sb, "shmmax", 0o444, "18446744073692774399\n")
        .file(sb, "shmall", 0o444, "18446744073692774399\n")
        .file(sb, "shmmni", 0o444, "4096\n")
        .file(sb, "sem", 0o444, "32000\t1024000000\t500\t32000\n")
        .file(sb, "msgmax", 0o444, "8192\n")
        .file(sb, "msgmnb", 0o444, "16384\n")
        .file(sb, "msgmni", 0o444, "32000\n")
        .file(sb, "sched_rr_timeslice_ms", 0o444, "100\n");
    for (name, setting) in [("hostname", Uts::Hostname), ("domainname", Uts::Domainname)] {
        kernel.add(name, pseudo::file(sb, sb.next_ino(), Perm::root(0o644), Arc::new(setting)));
    }
    let mut random = StaticDir::new();
    random
        .made(sb, "boot_id", |t| Ok(line(&uuid(t.kernel().boot_id()))))
        .made(sb, "uuid", |t| {
            let mut bytes = [0; 16];
            t.kernel().random(&mut bytes);
            Ok(line(&uuid(bytes)))
        })
        .file(sb, "entropy_avail", 0o444, "256\n")
        .file(sb, "poolsize", 0o444, "256\n");
    kernel.dir(sb, "random", random);
    let mut pty = StaticDir::new();
    pty.file(sb, "max", 0o444, "4096\n").file(sb, "nr", 0o444, "0\n");
    kernel.dir(sb, "pty", pty);

    let mut fs = StaticDir::new();
    fs.file(sb, "file-max", 0o444, "9223372036854775807\n")
        .file(sb, "file-nr", 0o444, "0\t0\t9223372036854775807\n")
        .file(sb, "nr_open", 0o444, "1048576\n")
        .file(sb, "pipe-max-size", 0o444, "1048576\n")
        .file(sb, "pipe-user-pages-soft", 0o444, "16384\n")
        .file(sb, "pipe-user-pages-hard", 0o444, "0\n")
        .file(sb, "aio-max-nr", 0o444, "65536\n")
        .file(sb, "protected_hardlinks", 0o444, "0\n")
        .file(sb, "protected_symlinks", 0o444, "0\n")
        .file(sb, "suid_dumpable", 0o444, "0\n")
        .file(sb, "lease-break-time", 0o444, "45\n");
    let mut inotify = StaticDir::new();
    inotify
        .file(sb, "max_queued_events", 0o444, "16384\n")
        .file(sb, "max_user_instances", 0o444, "128\n")
        .file(sb, "max_user_watches", 0o444, "65536\n");
    fs.dir(sb, "inotify", inotify);
    let mut mqueue = StaticDir::new();
    mqueue.file(sb, "msg_max", 0o444, "10\n").file(sb, "queues_max", 0o444, "256\n");
    fs.dir(sb, "mqueue", mqueue);

    let mut vm = StaticDir::new();
    vm.file(sb, "max_map_count", 0o444, "65530\n")
        .file(sb, "mmap_min_addr", 0o444, "65536\n")
        .file(sb, "overcommit_memory", 0o444, "0\n")
        .file(sb, "overcommit_ratio", 0o444, "50\n")
        .file(sb, "swappiness", 0o444, "60\n")
        .file(sb, "nr_hugepages", 0o444, "0\n")
        .file(sb, "min_free_kbytes", 0o444, "67584\n");

    let mut core = StaticDir::new();
    core.file(sb, "somaxconn", 0o444, "4096\n")
        .file(sb, "rmem_default", 0o444, "212992\n")
        .file(sb, "rmem_max", 0o444, "212992\n")
        .file(sb, "wmem_default", 0o444, "212992\n")
        .file(sb, "wmem_max", 0o444, "212992\n")
        .file(sb, "netdev_max_backlog", 0o444, "1000\n");
    let mut ipv4 = StaticDir::new();
    ipv4.file(sb, "ip_local_port_range", 0o444, "32768\t60999\n")
        .file(sb, "ip_unprivileged_port_start", 0o444, "1024\n")
        .file(sb, "ip_forward", 0o444, "0\n")
        .file(sb, "tcp_fin_timeout", 0o444, "60\n")
        .file(sb, "tcp_keepalive_time", 0o444, "7200\n")
        .file(sb, "tcp_keepalive_intvl", 0o444, "75\n")
        .file(sb, "tcp_keepalive_probes", 0o444, "9\n")
        .file(sb, "tcp_rmem", 0o444, "4096\t131072\t6291456\n")
        .file(sb, "tcp_wmem", 0o444, "4096\t16384\t4194304\n")
        .file(sb, "tcp_syncookies", 0o444, "1\n");
    let mut ipv6_all = StaticDir::new();
    ipv6_all.file(sb, "disable_ipv6", 0o444, "0\n");
    let mut ipv6_conf = StaticDir::new();
    ipv6_conf.dir(sb, "all", ipv6_all);
    let mut ipv6 = StaticDir::new();
    ipv6.dir(sb, "conf", ipv6_conf);
    let mut unix = StaticDir::new();
    unix.file(sb, "max_dgram_qlen", 0o444, "512\n");
    let mut net = StaticDir::new();
    net.dir(sb, "core", core).dir(sb, "ipv4", ipv4).dir(sb, "ipv6", ipv6).dir(sb, "unix", unix);

    let mut sys = StaticDir::new();
    sys.dir(sb, "kernel", kernel).dir(sb, "fs", fs).dir(sb, "vm", vm).dir(sb, "net", net);
    for name in ["abi", "debug", "dev"] {
        sys.dir(sb, name, StaticDir::new());
    }
    sys
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// As `RFC 4122` prints a random UUID (version 4).
fn uuid(mut b: [u8; 16]) -> String {
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex = |r: std::ops::Range<usize>| b[r].iter().map(|x| format!("{x:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

/// The names that `sethostname(2)` and `setdomainname(2)` set.
#[derive(Debug)]
enum Uts {
    Hostname,
    Domainname,
}

impl Text for Uts {
    fn text(&self, task: &CurrentTask) -> Result<Vec<u8>, Errno> {
        let (host, domain) = task.container().names();
        let mut name = match self {
            Uts::Hostname => host,
            Uts::Domainname => domain,
        };
        name.push(b'\n');
        Ok(name)
    }
    fn store(&self, task: &CurrentTask, data: &[u8]) -> Result<(), Errno> {
        if !task.creds().has(Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let end = data.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(data.len());
        // Longer names are cut, as `proc_do_uts_string` does.
        let name = data[..end.min(64)].to_vec();
        match self {
            Uts::Hostname => task.container().set_hostname(name),
            Uts::Domainname => task.container().set_domainname(name),
        }
        Ok(())
    }
}
