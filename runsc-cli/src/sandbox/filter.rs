//! The system calls that the sandbox process may make. This list is what a guest that took the Sentry over would be left
//! with; every line here is a decision.
//!
//! A call that is not listed kills the process. Calls that a library tries and can do without get an error instead, by
//! filters of their own on top: the kernel takes the strictest answer of all filters.
//!
//! What is not here, and why that matters: `execve` (no other program), `fork` and its kin (`clone` makes threads only),
//! `kill` beyond this process, `ptrace`, `mount` and its kin, `setns`, `unshare`, `bpf`, `perf_event_open`,
//! `userfaultfd`, `io_uring`, `open_by_handle_at`, and `openat` through a symbolic link.
//!
//! Each platform adds what it needs: KVM its device calls; systrap the memory of its stubs (`process_vm_*`), and their end. There is
//! nobody else whom those could reach: in the sandbox's pid namespace there are the Sentry and its stubs only.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::bpf;
use crate::error::{Context, Error, Result};
use crate::platform::Chosen;

/// Which process a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The Sentry; `opens_files`: it opens the container's files by itself.
    Sentry { opens_files: bool, platform: Platform },
    /// A gofer: files, and the sockets it is asked on.
    Gofer,
}

/// Which platform's calls are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    Kvm,
    Systrap,
}

impl From<&Chosen> for Platform {
    fn from(chosen: &Chosen) -> Platform {
        match chosen {
            Chosen::Kvm(_) => Platform::Kvm,
            Chosen::Systrap => Platform::Systrap,
        }
    }
}

/// Finding, making, opening and removing files, below the directories that the process was given.
const FILE_NAMES: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
];

/// What an open file can be asked.
const OPEN_FILES: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // Allowed so that a filter on top can answer it with an error.
    libc::SYS_openat,
];

/// Memory, threads, time: what any program of ours needs.
const PROGRAM: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// The Sentry's own.
const SENTRY: &[c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    // Sockets: the guest's, in the sandbox's network namespace, and the control socket.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Threads, processors, clocks.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_membarrier,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // Allowed so that a filter on top can answer it with an error.
    libc::SYS_clone3,
];

/// Terminal and device calls by their whole number.
const IOCTLS: &[u32] = &[
    0x5401,
    0x5402,
    0x5403,
    0x5404, // TCGETS, TCSETS, TCSETSW, TCSETSF
    0x802c_542a,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d, // the same with termios2
    0x5409,
    0x540a,
    0x540b, // TCSBRK, TCXONC, TCFLSH
    0x5411,
    0x5413,
    0x5414, // TIOCOUTQ, TIOCGWINSZ, TIOCSWINSZ
    0x541b,
    0x5421, // FIONREAD, FIONBIO
];

/// Classes of device calls, by the type byte: network interfaces (reading them needs no right; changing them needs one that
/// we lack), and KVM.
const IOCTLS_NETWORK: u64 = 0x89;
const IOCTLS_KVM: u64 = 0xae;

/// The Sentry's with systrap: the memory and the end of stubs, and which processor an agent runs on.
const SYSTRAP: &[c_long] = &[
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_waitid,
    libc::SYS_sched_setaffinity,
];

/// Families of sockets that may be made.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters, for this thread and those that it will start.
pub fn install(process: Process) -> Result<()> {
    for program in programs(process)? {
        seccompiler::apply_filter(&program).context("the system call filter")?;
    }
    Ok(())
}

fn programs(process: Process) -> Result<Vec<BpfProgram>> {
    let errno = |e: i32| SeccompAction::Errno(e.unsigned_abs());
    let mut programs = Vec::new();
    if let Process::Sentry { opens_files, .. } = process {
        // glibc then makes threads with `clone`, whose flags a filter can see.
        programs.push(compile(
            only(libc::SYS_clone3, Vec::new()),
            SeccompAction::Allow,
            errno(libc::ENOSYS),
        )?);
        // An open follows no symbolic link: ours never do, the standard library's look-ups of the host's settings would.
        let refused = if opens_files { vec![masked(2, flag(libc::O_NOFOLLOW), 0)?] } else { Vec::new() };
        programs.push(compile(only(libc::SYS_openat, refused), SeccompAction::Allow, errno(libc::EACCES))?);
    }
    programs.push(main_program(allowed(process)?)?);
    Ok(programs)
}

/// Kills whoever makes a call that `rules` do not have.
fn main_program(rules: Rules) -> Result<BpfProgram> {
    let (plain, checked): (Rules, Rules) = rules.into_iter().partition(|(_, checks)| checks.is_empty());
    let numbers: Vec<u32> = plain.keys().filter_map(|number| u32::try_from(*number).ok()).collect();
    let rest = compile(checked, SeccompAction::KillProcess, SeccompAction::Allow)?;
    bpf::allow_or(&numbers, rest).ok_or_else(|| Error::new("the system call filter is too long"))
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64);
    filter.and_then(BpfProgram::try_from).context("the system call filter")
}

fn only(call: c_long, rules: Vec<SeccompRule>) -> Rules {
    BTreeMap::from([(call, rules)])
}

fn allowed(process: Process) -> Result<Rules> {
    let lists: &[&[c_long]] = match process {
        Process::Sentry { opens_files: true, .. } => &[PROGRAM, OPEN_FILES, SENTRY, FILE_NAMES],
        Process::Sentry { opens_files: false, .. } => &[PROGRAM, OPEN_FILES, SENTRY],
        Process::Gofer => &[PROGRAM, OPEN_FILES, FILE_NAMES, &[libc::SYS_openat2]],
    };
    let mut rules: Rules =
        lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect();
    let Process::Sentry { platform, .. } = process else { return Ok(rules) };

    let mut ioctls = Vec::new();
    for number in IOCTLS {
        ioctls.push(equal(1, u64::from(*number))?);
    }
    ioctls.push(masked(1, 0xff00, IOCTLS_NETWORK << 8)?);
    if platform == Platform::Kvm {
        ioctls.push(masked(1, 0xff00, IOCTLS_KVM << 8)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);

    let families: Result<Vec<_>> = FAMILIES.iter().map(|f| equal(0, u64::from(f.unsigned_abs()))).collect();
    rules.insert(libc::SYS_socket, families?);
    rules.insert(libc::SYS_socketpair, vec![equal(0, u64::from(libc::AF_UNIX.unsigned_abs()))?]);

    // Threads of this process, in its namespaces.
    let thread = flag(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
    let namespaces = flag(
        libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET,
    );
    rules.insert(libc::SYS_clone, vec![masked(0, thread | namespaces, thread)?]);

    // Signals to this process only: it is the first of its pid namespace. To stubs, the one that stops a guest thread, and
    // the one that ends the stub.
    let mut signals = vec![equal(0, 1)?];
    if platform == Platform::Systrap {
        let kick = quicksand_platform_systrap::KICK_SIGNAL;
        signals.push(equal(2, u64::from(kick.unsigned_abs()))?);
        rules.insert(libc::SYS_pidfd_send_signal, vec![equal(1, u64::from(libc::SIGKILL.unsigned_abs()))?]);
        rules.extend(SYSTRAP.iter().map(|call| (*call, Vec::new())));
    }
    rules.insert(libc::SYS_tgkill, signals);
    rules.insert(libc::SYS_prctl, vec![equal(0, u64::from(libc::PR_SET_NAME.unsigned_abs()))?]);
    Ok(rules)
}

/// Flags as the register holds them.
fn flag(bits: i32) -> u64 {
    u64::from(bits.cast_unsigned())
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule> {
    rule(argument, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule> {
    rule(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .context("the system call filter")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filters_compile() {
        use super::{Platform, Process, programs};
        for platform in [Platform::Kvm, Platform::Systrap] {
            assert_eq!(programs(Process::Sentry { opens_files: true, platform }).unwrap().len(), 3);
        }
        assert_eq!(programs(Process::Gofer).unwrap().len(), 1);
    }
}
