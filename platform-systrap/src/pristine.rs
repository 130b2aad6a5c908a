//! The making of the first stub, from which all others are forked.
//!
//! It is a fork of the Sentry that leaves everything it inherited: memory, descriptors, signal handlers, capabilities.
//! It is made before the Sentry confines itself by a filter (which it would inherit) and while the Sentry has, if
//! possible, one thread only (which makes its memory small and its state known).
//!
//! The fork takes two steps. A first child shares the Sentry's memory, and so has no `rseq` area registered (the kernel
//! would go on writing to it after it is unmapped). It makes the second, which is the Sentry's child as well
//! (`CLONE_PARENT`), and ends. Both run nothing but system calls: in a process of several threads any lock may be held.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::agent::Dowry;
use crate::host_error;
use crate::layout::{
    CONSTANTS_OFFSET, FORK_FLAGS, IMAGE, IMAGE_LEN, KICK_SIGNAL, REQUEST_FD, SOCKET_FD, constants,
};
use crate::stub::{self, AREAS_FD, GLOBALS_FD};
use quicksand_platform::PlatformError;

/// What the children need; they allocate nothing.
struct Plan {
    image: *mut u8,
    /// Socket, request pages, areas, globals, above all numbers that they are to have.
    fds: [i32; 4],
    sentry: i32,
    handler: u64,
    /// The answer: the second child, or an error number.
    made: libc::c_long,
}

/// `struct kernel_sigaction`.
#[repr(C)]
struct KernelSigaction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

const HANDLED: [i32; 7] =
    [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, KICK_SIGNAL];
const LAST_SIGNAL: i32 = 64;
const SA_RESTORER: u64 = 0x0400_0000;
/// Numbers that are not used in a stub.
const FREE_FROM: i32 = 16;

/// Makes it. `Dowry` is what its line was made with, `globals` the platform's page.
pub(crate) fn make(dowry: Dowry, globals: &OwnedFd) -> Result<(), PlatformError> {
    let mut image = stub::image();
    let here = (image.as_ptr() as u64, stub::quicksand_stub_enter as *const () as u64);
    let free = |at: u64| at.saturating_add(IMAGE_LEN as u64) <= IMAGE || at >= IMAGE + IMAGE_LEN as u64;
    if !free(here.0) || !free(here.1) {
        return Err(host_error("placing the stub", io::ErrorKind::AddrInUse.into()));
    }
    let above = |fd: &OwnedFd| {
        // SAFETY: makes a new descriptor of one that is open.
        match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FREE_FROM) } {
            -1 => Err(host_error("fcntl", io::Error::last_os_error())),
            // SAFETY: the new descriptor is nobody else's.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    let fds = [above(&dowry.socket)?, above(&dowry.request)?, above(&dowry.areas)?, above(globals)?];
    let mut plan = Plan {
        image: image.as_mut_ptr(),
        fds: fds.each_ref().map(|fd| fd.as_raw_fd()),
        // SAFETY: always succeeds.
        sentry: unsafe { libc::getpid() },
        handler: stub::handler(),
        made: -libc::c_long::from(libc::EAGAIN),
    };
    // Whatever the first child's frames need in a debug build.
    let mut stack = vec![0u64; 8 << 10];
    // SAFETY: the child runs on a stack of its own, while this thread waits for it to end (CLONE_VFORK); `first` touches
    // the plan only, and makes system calls.
    let first_child = unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        libc::clone(first, top, libc::CLONE_VM | libc::CLONE_VFORK, (&raw mut plan).cast())
    };
    if first_child < 0 {
        return Err(host_error("clone", io::Error::last_os_error()));
    }
    // SAFETY: waits for our own child; no status is asked for.
    while unsafe { libc::waitpid(first_child, std::ptr::null_mut(), libc::__WALL) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(host_error("waitpid", error));
        }
    }
    match i32::try_from(plan.made) {
        Ok(pid) if pid > 0 => Ok(()),
        _ => Err(host_error("clone", io::Error::from_raw_os_error(-plan.made as i32))),
    }
}

extern "C" fn first(plan: *mut libc::c_void) -> libc::c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: the plan outlives this process, in whose maker's memory it lies, and the maker waits. In the second child it
    // is a copy. Only system calls are made.
    unsafe {
        let made = libc::syscall(libc::SYS_clone, FORK_FLAGS, 0, 0, 0, 0);
        if made == 0 {
            second(&*plan);
        }
        (*plan).made = if made < 0 { -libc::c_long::from(*libc::__errno_location()) } else { made };
    }
    0
}

/// Becomes the stub. On any failure it ends, which its maker sees at the socket.
///
/// # Safety
/// To be called in a process of its own, which will run nothing else.
unsafe fn second(plan: &Plan) -> ! {
    // SAFETY: system calls on this process alone, with arguments on this stack, and then a jump into the stub's code, which
    // expects just this state.
    unsafe {
        let must = |result: libc::c_long| {
            if result < 0 {
                libc::_exit(1);
            }
        };
        if has_compat_calls() {
            // In this process's copy.
            plan.image.add(CONSTANTS_OFFSET + constants::COMPAT_CALLS).write(1);
        }
        let all = u64::MAX;
        must(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, 8));
        must(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into());
        if libc::getppid() != plan.sentry {
            libc::_exit(1);
        }
        for signal in 1..=LAST_SIGNAL {
            let handled = HANDLED.contains(&signal);
            let flags = libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | SA_RESTORER;
            let action = KernelSigaction {
                // What comes from a terminal, or from whoever else, is not for the stub: the Sentry takes it.
                handler: if handled { plan.handler } else { libc::SIG_IGN as u64 },
                flags: if handled { flags } else { 0 },
                // Never returned to: the handler makes that call by itself.
                restorer: if handled { plan.handler } else { 0 },
                mask: u64::MAX,
            };
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                must(libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, 0, 8));
            }
        }
        // No core dumps: of 0 the kernel thinks that a program which takes them through a pipe may still want one.
        let no_core = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        must(libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core).into());
        must(libc::prctl(libc::PR_SET_NAME, c"qs-stub".as_ptr()).into());
        // No capabilities, and no way to any.
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        must(libc::syscall(libc::SYS_capset, &raw const header, &raw const none));
        must(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into());
        // For patching code that other threads may run. Where there is no such call, nothing is patched (`patch.rs`).
        libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
        // The Sentry, which has the same user, reads and writes its memory.
        must(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).into());
        for (from, to) in plan.fds.into_iter().zip([SOCKET_FD, REQUEST_FD, AREAS_FD, GLOBALS_FD]) {
            must(libc::dup2(from, to).into());
        }
        must(libc::syscall(libc::SYS_close_range, GLOBALS_FD + 1, u32::MAX, 0));
        stub::quicksand_stub_enter(plan.image)
    }
}

/// Whether there are 32-bit system calls, for 64-bit code as well: where there are none, a thread that tried to make one with its
/// signals blocked would be the end of its process.
///
/// # Safety
/// To be called in a process of its own: handler and mask of SIGSEGV are not put back.
unsafe fn has_compat_calls() -> bool {
    extern "C" fn skip(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel hands the handler its context, which nobody else knows.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] += 2;
        registers[libc::REG_RAX as usize] = -1;
    }
    const COMPAT_GETPID: i32 = 20;
    let result: i32;
    // SAFETY: system calls on this process alone; what `int $0x80` may change is named, and the handler steps over it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = skip as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let mask = !(1u64 << (libc::SIGSEGV - 1));
        if libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) != 0
            || libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0, 8) != 0
        {
            return false;
        }
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") COMPAT_GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result > 0
}
