//! Signals: numbers, `siginfo_t`, `struct sigaction`, `stack_t`, and the signal frame of x86-64, as
//! `asm-generic/siginfo.h`, `asm/signal.h`, `asm/sigcontext.h` and `asm/ucontext.h` lay them out.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::UserAddr;

/// Signals are numbered 1..=64.
pub const NSIG: i32 = 64;
/// The first real-time signal, as the kernel counts.
pub const SIGRTMIN: i32 = 32;

/// `si_code` values that several signals share.
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_MESGQ: i32 = -3;
    pub const SI_ASYNCIO: i32 = -4;
    pub const SI_SIGIO: i32 = -5;
    pub const SI_TKILL: i32 = -6;
    pub const ILL_ILLOPN: i32 = 2;
    pub const FPE_INTDIV: i32 = 1;
    pub const FPE_INTOVF: i32 = 2;
    pub const FPE_FLTDIV: i32 = 3;
    pub const FPE_FLTOVF: i32 = 4;
    pub const FPE_FLTUND: i32 = 5;
    pub const FPE_FLTRES: i32 = 6;
    pub const FPE_FLTINV: i32 = 7;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const TRAP_BRKPT: i32 = 1;
    pub const TRAP_TRACE: i32 = 2;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
}

/// `siginfo_t`, 128 bytes. What stands in the union depends on signal and code.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pad: i32,
    fields: [u8; 112],
}

impl SigInfo {
    /// All of the union zero.
    pub fn new(signo: i32, code: i32) -> SigInfo {
        SigInfo { signo, errno: 0, code, pad: 0, fields: [0; 112] }
    }
    /// From the kernel, for no particular reason (`SEND_SIG_PRIV`).
    pub fn kernel(signo: i32) -> SigInfo {
        SigInfo::new(signo, code::SI_KERNEL)
    }
    /// From a process: `kill(2)` (`SI_USER`), `tgkill(2)` (`SI_TKILL`).
    pub fn user(signo: i32, code: i32, pid: i32, uid: u32) -> SigInfo {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &pid.to_ne_bytes());
        info.put(4, &uid.to_ne_bytes());
        info
    }
    /// A fault at `addr` (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP).
    pub fn fault(signo: i32, code: i32, addr: UserAddr) -> SigInfo {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &addr.0.to_ne_bytes());
        info
    }
    /// SIGCHLD. Times are in clock ticks.
    pub fn child(signo: i32, code: i32, pid: i32, uid: u32, status: i32, utime: i64, stime: i64) -> SigInfo {
        let mut info = SigInfo::user(signo, code, pid, uid);
        info.put(8, &status.to_ne_bytes());
        info.put(16, &utime.to_ne_bytes());
        info.put(24, &stime.to_ne_bytes());
        info
    }
    /// A POSIX timer ran out.
    pub fn timer(signo: i32, timer: i32, overrun: i32, value: u64) -> SigInfo {
        let mut info = SigInfo::new(signo, code::SI_TIMER);
        info.put(0, &timer.to_ne_bytes());
        info.put(4, &overrun.to_ne_bytes());
        info.put(8, &value.to_ne_bytes());
        info
    }
    /// SIGIO and its like: `band` holds poll events.
    pub fn poll(signo: i32, code: i32, band: i64, fd: i32) -> SigInfo {
        let mut info = SigInfo::new(signo, code);
        info.put(0, &band.to_ne_bytes());
        info.put(8, &fd.to_ne_bytes());
        info
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.fields[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn u32_at(&self, at: usize) -> u32 {
        let f = &self.fields;
        u32::from_ne_bytes([f[at], f[at + 1], f[at + 2], f[at + 3]])
    }
    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }
    /// `si_pid`, also `si_tid` of a timer.
    pub fn pid(&self) -> i32 {
        self.u32_at(0) as i32
    }
    /// `si_uid`, also `si_overrun`.
    pub fn uid(&self) -> u32 {
        self.u32_at(4)
    }
    pub fn set_pid(&mut self, pid: i32) {
        self.put(0, &pid.to_ne_bytes());
    }
    pub fn set_uid(&mut self, uid: u32) {
        self.put(4, &uid.to_ne_bytes());
    }
    pub fn set_overrun(&mut self, overrun: i32) {
        self.put(4, &overrun.to_ne_bytes());
    }
    /// `si_status`.
    pub fn status(&self) -> i32 {
        self.u32_at(8) as i32
    }
    /// `si_utime`, in ticks.
    pub fn utime(&self) -> i64 {
        self.u64_at(16) as i64
    }
    /// `si_stime`, in ticks.
    pub fn stime(&self) -> i64 {
        self.u64_at(24) as i64
    }
    /// `si_value` of a queued signal or timer.
    pub fn value(&self) -> u64 {
        self.u64_at(8)
    }
    /// `si_addr`.
    pub fn addr(&self) -> UserAddr {
        UserAddr(self.u64_at(0))
    }
    /// `si_band`.
    pub fn band(&self) -> i64 {
        self.u64_at(0) as i64
    }
    /// `si_fd`.
    pub fn fd(&self) -> i32 {
        self.u32_at(8) as i32
    }
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigInfo {{ signo: {}, code: {}, pid: {} }}", self.signo, self.code, self.pid())
    }
}

/// The kernel's `struct sigaction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAction {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

pub const SA_NOCLDSTOP: u64 = 1;
pub const SA_NOCLDWAIT: u64 = 2;
pub const SA_SIGINFO: u64 = 4;
pub const SA_UNSUPPORTED: u64 = 0x400;
pub const SA_EXPOSE_TAGBITS: u64 = 0x800;
pub const SA_RESTORER: u64 = 0x0400_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// Every flag that `rt_sigaction` keeps; others read back as zero.
pub const SA_ALL: u64 = SA_NOCLDSTOP
    | SA_NOCLDWAIT
    | SA_SIGINFO
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND;

/// `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackT {
    pub sp: u64,
    pub flags: i32,
    pub pad: i32,
    pub size: u64,
}

pub const SS_ONSTACK: i32 = 1;
pub const SS_DISABLE: i32 = 2;
pub const SS_AUTODISARM: i32 = i32::MIN;
pub const MINSIGSTKSZ: u64 = 2048;

/// `struct sigcontext_64`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `struct ucontext` as the kernel writes it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UContext {
    pub flags: u64,
    pub link: u64,
    pub stack: StackT,
    pub mcontext: SigContext,
    pub sigmask: u64,
}

pub const UC_FP_XSTATE: u64 = 1;
pub const UC_SIGCONTEXT_SS: u64 = 2;
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// `struct rt_sigframe`: what stands on the stack when a handler starts; `info` follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtSigFrame {
    /// The restorer: where the handler returns to.
    pub return_address: u64,
    pub uc: UContext,
    pub info: SigInfo,
}

/// `struct _fpx_sw_bytes`, at byte 464 of the saved extended state.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FpxSwBytes {
    pub magic1: u32,
    pub extended_size: u32,
    pub xfeatures: u64,
    pub xstate_size: u32,
    pub padding: [u32; 7],
}

pub const FPX_SW_BYTES_OFFSET: usize = 464;
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Right after the extended state.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

const _: () = assert!(size_of::<SigInfo>() == 128);
const _: () = assert!(size_of::<SigContext>() == 256);
const _: () = assert!(size_of::<UContext>() == 304);
const _: () = assert!(size_of::<RtSigFrame>() == 440);
const _: () = assert!(size_of::<FpxSwBytes>() == 48);
