//! The one table of system calls: number, name, arguments, handler, and what of it is supported.
//!
//! A row reads `NR name(arg: Kind, ...) => path::to::handler "support";`. The support text is `"full"`, or says what is not
//! supported. A row without a handler answers ENOSYS, and its first use is logged by name. The same table feeds dispatch,
//! `--strace` (the argument kinds), `docs/compatibility.md` and the metrics.

use super::SyscallResult;
use super::args::FromArg;
use super::strace::Kind;
use crate::task::CurrentTask;

/// A handler behind its uniform face: raw registers in.
pub type Handler = fn(&CurrentTask, &[u64; 6]) -> SyscallResult;

/// One row.
#[derive(Debug)]
pub struct Syscall {
    pub number: u16,
    pub name: &'static str,
    pub args: &'static [(&'static str, Kind)],
    pub handler: Option<Handler>,
    /// What is supported, for the compatibility page. Empty where there is no handler.
    pub support: &'static str,
}

/// The row of a number.
pub fn lookup(number: u64) -> Option<&'static Syscall> {
    let index = BY_NUMBER.get(usize::try_from(number).ok()?)?;
    TABLE.get(usize::from(*index))
}

/// All rows, by number.
pub fn table() -> &'static [Syscall] {
    TABLE
}

/// One past the highest number.
pub const LIMIT: usize = 470;

const BY_NUMBER: [u16; LIMIT] = {
    let mut index = [u16::MAX; LIMIT];
    let mut i = 0;
    while i < TABLE.len() {
        index[TABLE[i].number as usize] = i as u16;
        i += 1;
    }
    index
};

macro_rules! handler {
    ($handler:path, $($arg:ident),*) => {{
        fn adapt(task: &CurrentTask, raw: &[u64; 6]) -> SyscallResult {
            #[allow(unused_mut, unused_variables)]
            let mut raw = raw.iter().copied();
            $(let $arg = raw.next().unwrap_or(0);)*
            $handler(task, $(FromArg::from_arg($arg)),*)
        }
        Some(adapt as Handler)
    }};
}

macro_rules! row {
    ($nr:literal $name:ident ($($arg:ident : $kind:ident),*)) => {
        Syscall {
            number: $nr,
            name: stringify!($name),
            args: &[$((stringify!($arg), Kind::$kind)),*],
            handler: None,
            support: "",
        }
    };
    ($nr:literal $name:ident ($($arg:ident : $kind:ident),*) $handler:path, $support:literal) => {
        Syscall {
            number: $nr,
            name: stringify!($name),
            args: &[$((stringify!($arg), Kind::$kind)),*],
            handler: handler!($handler, $($arg),*),
            support: $support,
        }
    };
}

macro_rules! syscalls {
    ($($nr:literal $name:ident ($($arg:ident : $kind:ident),*) $(=> $handler:path, $support:literal)?;)*) => {
        const TABLE: &[Syscall] = &[$(row!($nr $name($($arg: $kind),*) $($handler, $support)?)),*];
    };
}

#[rustfmt::skip]
syscalls! {
    0 read(fd: Fd, buf: Ptr, count: Size) => crate::vfs::syscalls_rw::sys_read, "full";
    1 write(fd: Fd, buf: Buf, count: Size) => crate::vfs::syscalls_rw::sys_write, "full";
    2 open(path: Path, flags: OpenFlags, mode: Oct) => crate::vfs::syscalls_open::sys_open, "full";
    3 close(fd: Fd) => crate::vfs::syscalls_fd::sys_close, "full";
    4 stat(path: Path, buf: Ptr) => crate::vfs::syscalls_stat::sys_stat, "full";
    5 fstat(fd: Fd, buf: Ptr) => crate::vfs::syscalls_stat::sys_fstat, "full";
    6 lstat(path: Path, buf: Ptr) => crate::vfs::syscalls_stat::sys_lstat, "full";
    7 poll(fds: Ptr, nfds: UInt, timeout: Int) => crate::fs::poll::sys_poll, "full";
    8 lseek(fd: Fd, offset: Int, whence: Int) => crate::vfs::syscalls_rw::sys_lseek, "full";
    9 mmap(addr: Ptr, len: Size, prot: Prot, flags: MapFlags, fd: Fd, offset: Hex) => crate::mm::syscalls::sys_mmap, "full";
    10 mprotect(addr: Ptr, len: Size, prot: Prot) => crate::mm::syscalls::sys_mprotect, "full";
    11 munmap(addr: Ptr, len: Size) => crate::mm::syscalls::sys_munmap, "full";
    12 brk(addr: Ptr) => crate::mm::syscalls::sys_brk, "full";
    13 rt_sigaction(sig: Sig, act: Ptr, oldact: Ptr, sigsetsize: Size) => crate::signal::syscalls::sys_rt_sigaction, "full";
    14 rt_sigprocmask(how: Int, set: Ptr, oldset: Ptr, sigsetsize: Size) => crate::signal::syscalls::sys_rt_sigprocmask, "full";
    15 rt_sigreturn() => crate::signal::frame::sys_rt_sigreturn, "full";
    16 ioctl(fd: Fd, cmd: Hex, arg: Hex) => crate::vfs::syscalls_ioctl::sys_ioctl, "what each kind of file knows";
    17 pread64(fd: Fd, buf: Ptr, count: Size, offset: Int) => crate::vfs::syscalls_rw::sys_pread64, "full";
    18 pwrite64(fd: Fd, buf: Buf, count: Size, offset: Int) => crate::vfs::syscalls_rw::sys_pwrite64, "full";
    19 readv(fd: Fd, iov: Ptr, iovcnt: Int) => crate::vfs::syscalls_rw::sys_readv, "full";
    20 writev(fd: Fd, iov: Ptr, iovcnt: Int) => crate::vfs::syscalls_rw::sys_writev, "full";
    21 access(path: Path, mode: Oct) => crate::vfs::syscalls_stat::sys_access, "full";
    22 pipe(fds: Ptr) => crate::fs::pipe::syscalls::pipe, "full";
    23 select(nfds: Int, readfds: Ptr, writefds: Ptr, exceptfds: Ptr, timeout: Ptr) => crate::fs::poll::sys_select, "full";
    24 sched_yield() => crate::task::sched::sys_sched_yield, "full";
    25 mremap(addr: Ptr, old_len: Size, new_len: Size, flags: Hex, new_addr: Ptr) => crate::mm::syscalls::sys_mremap, "full";
    26 msync(addr: Ptr, len: Size, flags: Hex) => crate::mm::syscalls::sys_msync, "full";
    27 mincore(addr: Ptr, len: Size, vec: Ptr) => crate::mm::syscalls::sys_mincore, "full";
    28 madvise(addr: Ptr, len: Size, advice: Int) => crate::mm::syscalls::sys_madvise, "guard pages and MADV_HWPOISON are not supported; MADV_COLLAPSE always answers EINVAL";
    29 shmget(key: Int, size: Size, flags: Hex) => crate::ipc::shm::sys_shmget, "no huge pages";
    30 shmat(id: Int, addr: Ptr, flags: Hex) => crate::ipc::shm::sys_shmat, "full";
    31 shmctl(id: Int, cmd: Int, buf: Ptr) => crate::ipc::shm::sys_shmctl, "the time of the last detach is not kept";
    32 dup(fd: Fd) => crate::vfs::syscalls_fd::sys_dup, "full";
    33 dup2(oldfd: Fd, newfd: Fd) => crate::vfs::syscalls_fd::sys_dup2, "full";
    34 pause() => crate::signal::syscalls::sys_pause, "full";
    35 nanosleep(req: Ptr, rem: Ptr) => crate::time::syscalls::sys_nanosleep, "full";
    36 getitimer(which: Int, value: Ptr) => crate::time::syscalls::sys_getitimer, "full";
    37 alarm(seconds: UInt) => crate::time::syscalls::sys_alarm, "full";
    38 setitimer(which: Int, value: Ptr, old: Ptr) => crate::time::syscalls::sys_setitimer, "full";
    39 getpid() => crate::task::syscalls::sys_getpid, "full";
    40 sendfile(out_fd: Fd, in_fd: Fd, offset: Ptr, count: Size) => crate::fs::splice::syscalls::sys_sendfile, "full";
    41 socket(family: Int, kind: Hex, protocol: Int) => crate::net::syscalls::sys_socket, "AF_UNIX, AF_INET, AF_INET6 (stream, datagram), AF_NETLINK (route)";
    42 connect(fd: Fd, addr: Ptr, len: UInt) => crate::net::syscalls::sys_connect, "full";
    43 accept(fd: Fd, addr: Ptr, len: Ptr) => crate::net::syscalls::sys_accept, "full";
    44 sendto(fd: Fd, buf: Buf, count: Size, flags: Hex, addr: Ptr, addrlen: UInt) => crate::net::syscalls_msg::sys_sendto, "no MSG_OOB on Unix sockets";
    45 recvfrom(fd: Fd, buf: Ptr, count: Size, flags: Hex, addr: Ptr, addrlen: Ptr) => crate::net::syscalls_msg::sys_recvfrom, "full";
    46 sendmsg(fd: Fd, msg: Ptr, flags: Hex) => crate::net::syscalls_msg::sys_sendmsg, "no MSG_OOB on Unix sockets";
    47 recvmsg(fd: Fd, msg: Ptr, flags: Hex) => crate::net::syscalls_msg::sys_recvmsg, "full";
    48 shutdown(fd: Fd, how: Int) => crate::net::syscalls::sys_shutdown, "full";
    49 bind(fd: Fd, addr: Ptr, len: UInt) => crate::net::syscalls::sys_bind, "full";
    50 listen(fd: Fd, backlog: Int) => crate::net::syscalls::sys_listen, "full";
    51 getsockname(fd: Fd, addr: Ptr, len: Ptr) => crate::net::syscalls::sys_getsockname, "full";
    52 getpeername(fd: Fd, addr: Ptr, len: Ptr) => crate::net::syscalls::sys_getpeername, "full";
    53 socketpair(family: Int, kind: Hex, protocol: Int, fds: Ptr) => crate::net::syscalls::sys_socketpair, "full";
    54 setsockopt(fd: Fd, level: Int, name: Int, value: Ptr, len: UInt) => crate::net::syscalls::sys_setsockopt, "options by name; others answer ENOPROTOOPT";
    55 getsockopt(fd: Fd, level: Int, name: Int, value: Ptr, len: Ptr) => crate::net::syscalls::sys_getsockopt, "options by name; others answer ENOPROTOOPT";
    56 clone(flags: Hex, stack: Ptr, parent_tid: Ptr, child_tid: Ptr, tls: Hex) => crate::task::clone::sys_clone, "no new namespaces";
    57 fork() => crate::task::clone::sys_fork, "full";
    58 vfork() => crate::task::clone::sys_vfork, "full";
    59 execve(path: Path, argv: Ptr, envp: Ptr) => crate::task::exec::sys_execve, "full";
    60 exit(status: Int) => crate::task::exit::sys_exit, "full";
    61 wait4(pid: Int, status: Ptr, options: Hex, rusage: Ptr) => crate::task::wait::sys_wait4, "full";
    62 kill(pid: Int, sig: Sig) => crate::signal::syscalls::sys_kill, "full";
    63 uname(buf: Ptr) => crate::task::syscalls::sys_uname, "full";
    64 semget(key: Int, nsems: Int, flags: Hex) => crate::ipc::sem::sys_semget, "full";
    65 semop(id: Int, sops: Ptr, nsops: Size) => crate::ipc::sem::sys_semop, "full";
    66 semctl(id: Int, num: Int, cmd: Int, arg: Hex) => crate::ipc::sem::sys_semctl, "full";
    67 shmdt(addr: Ptr) => crate::ipc::shm::sys_shmdt, "full";
    68 msgget(key: Int, flags: Hex) => crate::ipc::msg::sys_msgget, "full";
    69 msgsnd(id: Int, msg: Ptr, size: Size, flags: Hex) => crate::ipc::msg::sys_msgsnd, "full";
    70 msgrcv(id: Int, msg: Ptr, size: Size, kind: Int, flags: Hex) => crate::ipc::msg::sys_msgrcv, "no MSG_COPY";
    71 msgctl(id: Int, cmd: Int, buf: Ptr) => crate::ipc::msg::sys_msgctl, "full";
    72 fcntl(fd: Fd, cmd: Int, arg: Hex) => crate::vfs::syscalls_fd::sys_fcntl, "no leases, no F_NOTIFY, no write hints";
    73 flock(fd: Fd, op: Int) => crate::vfs::syscalls_fd::sys_flock, "full";
    74 fsync(fd: Fd) => crate::vfs::syscalls_attr::sys_fsync, "full";
    75 fdatasync(fd: Fd) => crate::vfs::syscalls_attr::sys_fdatasync, "full";
    76 truncate(path: Path, len: Int) => crate::vfs::syscalls_attr::sys_truncate, "full";
    77 ftruncate(fd: Fd, len: Int) => crate::vfs::syscalls_attr::sys_ftruncate, "full";
    78 getdents(fd: Fd, buf: Ptr, count: UInt) => crate::vfs::syscalls_stat::sys_getdents, "full";
    79 getcwd(buf: Ptr, size: Size) => crate::vfs::syscalls_path::sys_getcwd, "full";
    80 chdir(path: Path) => crate::vfs::syscalls_path::sys_chdir, "full";
    81 fchdir(fd: Fd) => crate::vfs::syscalls_path::sys_fchdir, "full";
    82 rename(old: Path, new: Path) => crate::vfs::syscalls_path::sys_rename, "full";
    83 mkdir(path: Path, mode: Oct) => crate::vfs::syscalls_path::sys_mkdir, "full";
    84 rmdir(path: Path) => crate::vfs::syscalls_path::sys_rmdir, "full";
    85 creat(path: Path, mode: Oct) => crate::vfs::syscalls_open::sys_creat, "full";
    86 link(old: Path, new: Path) => crate::vfs::syscalls_path::sys_link, "full";
    87 unlink(path: Path) => crate::vfs::syscalls_path::sys_unlink, "full";
    88 symlink(target: Path, path: Path) => crate::vfs::syscalls_path::sys_symlink, "full";
    89 readlink(path: Path, buf: Ptr, size: Size) => crate::vfs::syscalls_stat::sys_readlink, "full";
    90 chmod(path: Path, mode: Oct) => crate::vfs::syscalls_attr::sys_chmod, "full";
    91 fchmod(fd: Fd, mode: Oct) => crate::vfs::syscalls_attr::sys_fchmod, "full";
    92 chown(path: Path, uid: Int, gid: Int) => crate::vfs::syscalls_attr::sys_chown, "full";
    93 fchown(fd: Fd, uid: Int, gid: Int) => crate::vfs::syscalls_attr::sys_fchown, "full";
    94 lchown(path: Path, uid: Int, gid: Int) => crate::vfs::syscalls_attr::sys_lchown, "full";
    95 umask(mask: Oct) => crate::vfs::syscalls_path::sys_umask, "full";
    96 gettimeofday(tv: Ptr, tz: Ptr) => crate::time::syscalls::sys_gettimeofday, "full";
    97 getrlimit(resource: Int, rlim: Ptr) => crate::task::syscalls::sys_getrlimit, "full";
    98 getrusage(who: Int, usage: Ptr) => crate::task::syscalls::sys_getrusage, "times, maximum resident set, faults, voluntary switches";
    99 sysinfo(info: Ptr) => crate::task::syscalls::sys_sysinfo, "full";
    100 times(buf: Ptr) => crate::task::syscalls::sys_times, "full";
    101 ptrace(request: Int, pid: Int, addr: Ptr, data: Ptr) => crate::task::syscalls::sys_ptrace, "answers EPERM";
    102 getuid() => crate::task::syscalls_creds::sys_getuid, "full";
    103 syslog(kind: Int, buf: Ptr, len: Int) => crate::task::syscalls::sys_syslog, "the log is empty";
    104 getgid() => crate::task::syscalls_creds::sys_getgid, "full";
    105 setuid(uid: Int) => crate::task::syscalls_creds::sys_setuid, "full";
    106 setgid(gid: Int) => crate::task::syscalls_creds::sys_setgid, "full";
    107 geteuid() => crate::task::syscalls_creds::sys_geteuid, "full";
    108 getegid() => crate::task::syscalls_creds::sys_getegid, "full";
    109 setpgid(pid: Int, pgid: Int) => crate::task::session::sys_setpgid, "full";
    110 getppid() => crate::task::syscalls::sys_getppid, "full";
    111 getpgrp() => crate::task::session::sys_getpgrp, "full";
    112 setsid() => crate::task::session::sys_setsid, "full";
    113 setreuid(ruid: Int, euid: Int) => crate::task::syscalls_creds::sys_setreuid, "full";
    114 setregid(rgid: Int, egid: Int) => crate::task::syscalls_creds::sys_setregid, "full";
    115 getgroups(size: Int, list: Ptr) => crate::task::syscalls_creds::sys_getgroups, "full";
    116 setgroups(size: Int, list: Ptr) => crate::task::syscalls_creds::sys_setgroups, "full";
    117 setresuid(ruid: Int, euid: Int, suid: Int) => crate::task::syscalls_creds::sys_setresuid, "full";
    118 getresuid(ruid: Ptr, euid: Ptr, suid: Ptr) => crate::task::syscalls_creds::sys_getresuid, "full";
    119 setresgid(rgid: Int, egid: Int, sgid: Int) => crate::task::syscalls_creds::sys_setresgid, "full";
    120 getresgid(rgid: Ptr, egid: Ptr, sgid: Ptr) => crate::task::syscalls_creds::sys_getresgid, "full";
    121 getpgid(pid: Int) => crate::task::session::sys_getpgid, "full";
    122 setfsuid(uid: Int) => crate::task::syscalls_creds::sys_setfsuid, "full";
    123 setfsgid(gid: Int) => crate::task::syscalls_creds::sys_setfsgid, "full";
    124 getsid(pid: Int) => crate::task::session::sys_getsid, "full";
    125 capget(header: Ptr, data: Ptr) => crate::task::syscalls_creds::sys_capget, "full";
    126 capset(header: Ptr, data: Ptr) => crate::task::syscalls_creds::sys_capset, "full";
    127 rt_sigpending(set: Ptr, sigsetsize: Size) => crate::signal::syscalls::sys_rt_sigpending, "full";
    128 rt_sigtimedwait(set: Ptr, info: Ptr, timeout: Ptr, sigsetsize: Size) => crate::signal::syscalls::sys_rt_sigtimedwait, "full";
    129 rt_sigqueueinfo(pid: Int, sig: Sig, info: Ptr) => crate::signal::syscalls::sys_rt_sigqueueinfo, "full";
    130 rt_sigsuspend(set: Ptr, sigsetsize: Size) => crate::signal::syscalls::sys_rt_sigsuspend, "full";
    131 sigaltstack(ss: Ptr, old: Ptr) => crate::signal::syscalls::sys_sigaltstack, "full";
    132 utime(path: Path, times: Ptr) => crate::vfs::syscalls_attr::sys_utime, "full";
    133 mknod(path: Path, mode: Oct, dev: Hex) => crate::vfs::syscalls_path::sys_mknod, "full";
    134 uselib(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    135 personality(persona: Hex) => crate::task::syscalls::sys_personality, "remembered; only ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT and UNAME26 have an effect";
    136 ustat(dev: Hex, buf: Ptr) => crate::task::refused::sys_ustat, "always EINVAL";
    137 statfs(path: Path, buf: Ptr) => crate::vfs::syscalls_stat::sys_statfs, "full";
    138 fstatfs(fd: Fd, buf: Ptr) => crate::vfs::syscalls_stat::sys_fstatfs, "full";
    139 sysfs(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    140 getpriority(which: Int, who: Int) => crate::task::sched::sys_getpriority, "remembered and told back; the host schedules";
    141 setpriority(which: Int, who: Int, prio: Int) => crate::task::sched::sys_setpriority, "remembered and told back; the host schedules";
    142 sched_setparam(pid: Int, param: Ptr) => crate::task::sched::sys_sched_setparam, "remembered and told back; the host schedules";
    143 sched_getparam(pid: Int, param: Ptr) => crate::task::sched::sys_sched_getparam, "remembered and told back; the host schedules";
    144 sched_setscheduler(pid: Int, policy: Int, param: Ptr) => crate::task::sched::sys_sched_setscheduler, "remembered and told back; the host schedules";
    145 sched_getscheduler(pid: Int) => crate::task::sched::sys_sched_getscheduler, "remembered and told back; the host schedules";
    146 sched_get_priority_max(policy: Int) => crate::task::sched::sys_sched_get_priority_max, "full";
    147 sched_get_priority_min(policy: Int) => crate::task::sched::sys_sched_get_priority_min, "full";
    148 sched_rr_get_interval(pid: Int, interval: Ptr) => crate::task::sched::sys_sched_rr_get_interval, "remembered and told back; the host schedules";
    149 mlock(addr: Ptr, len: Size) => crate::mm::syscalls::sys_mlock, "pages are made resident, not pinned in the host";
    150 munlock(addr: Ptr, len: Size) => crate::mm::syscalls::sys_munlock, "full";
    151 mlockall(flags: Hex) => crate::mm::syscalls::sys_mlockall, "as mlock";
    152 munlockall() => crate::mm::syscalls::sys_munlockall, "full";
    153 vhangup() => crate::task::refused::sys_vhangup, "refused: EPERM without the capability, else ENOSYS";
    154 modify_ldt(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    155 pivot_root(new: Path, old: Path) => crate::vfs::syscalls_mount::sys_pivot_root, "full";
    156 _sysctl(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    157 prctl(option: Int, arg2: Hex, arg3: Hex, arg4: Hex, arg5: Hex) => crate::task::prctl::sys_prctl, "no seccomp, PR_SET_MM";
    158 arch_prctl(code: Hex, addr: Ptr) => crate::task::prctl::sys_arch_prctl, "full";
    159 adjtimex(buf: Ptr) => crate::task::refused::sys_adjtimex, "can be read; always EPERM for changes: the clock is the host's";
    160 setrlimit(resource: Int, rlim: Ptr) => crate::task::syscalls::sys_setrlimit, "full";
    161 chroot(path: Path) => crate::vfs::syscalls_path::sys_chroot, "full";
    162 sync() => crate::vfs::syscalls_attr::sys_sync, "does nothing: what is written is in the page cache of the host";
    163 acct() => crate::task::refused::sys_acct, "refused: EPERM without the capability, else ENOSYS";
    164 settimeofday(tv: Ptr, tz: Ptr) => crate::time::syscalls::sys_settimeofday, "always EPERM: the clock is the host's";
    165 mount(source: Path, target: Path, fstype: Path, flags: Hex, data: Ptr) => crate::vfs::syscalls_mount::sys_mount, "tmpfs, proc, sysfs, bind, move, remount; propagation is always private";
    166 umount2(target: Path, flags: Hex) => crate::vfs::syscalls_mount::sys_umount2, "full";
    167 swapon() => crate::task::refused::sys_swapon, "refused: EPERM without the capability, else ENOSYS";
    168 swapoff() => crate::task::refused::sys_swapoff, "refused: EPERM without the capability, else ENOSYS";
    169 reboot() => crate::task::refused::sys_reboot, "refused: EPERM without the capability, else ENOSYS";
    170 sethostname(name: Ptr, len: Size) => crate::task::syscalls::sys_sethostname, "full";
    171 setdomainname(name: Ptr, len: Size) => crate::task::syscalls::sys_setdomainname, "full";
    172 iopl(level: UInt) => crate::task::refused::sys_iopl, "refused: EPERM without the capability, else ENOSYS";
    173 ioperm(from: Hex, count: UInt, on: Int) => crate::task::refused::sys_ioperm, "refused: EPERM without the capability, else ENOSYS";
    174 create_module(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    175 init_module() => crate::task::refused::sys_init_module, "refused: EPERM without the capability, else ENOSYS";
    176 delete_module() => crate::task::refused::sys_delete_module, "refused: EPERM without the capability, else ENOSYS";
    177 get_kernel_syms(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    178 query_module(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    179 quotactl(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    180 nfsservctl(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    181 getpmsg(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    182 putpmsg(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    183 afs_syscall(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    184 tuxcall(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    185 security(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    186 gettid() => crate::task::syscalls::sys_gettid, "full";
    187 readahead(fd: Fd, offset: Int, count: Size) => crate::vfs::syscalls_attr::sys_readahead, "checked, then ignored";
    188 setxattr(path: Path, name: Path, value: Ptr, size: Size, flags: Hex) => crate::vfs::syscalls_xattr::sys_setxattr, "full";
    189 lsetxattr(path: Path, name: Path, value: Ptr, size: Size, flags: Hex) => crate::vfs::syscalls_xattr::sys_lsetxattr, "full";
    190 fsetxattr(fd: Fd, name: Path, value: Ptr, size: Size, flags: Hex) => crate::vfs::syscalls_xattr::sys_fsetxattr, "full";
    191 getxattr(path: Path, name: Path, value: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_getxattr, "full";
    192 lgetxattr(path: Path, name: Path, value: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_lgetxattr, "full";
    193 fgetxattr(fd: Fd, name: Path, value: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_fgetxattr, "full";
    194 listxattr(path: Path, list: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_listxattr, "full";
    195 llistxattr(path: Path, list: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_llistxattr, "full";
    196 flistxattr(fd: Fd, list: Ptr, size: Size) => crate::vfs::syscalls_xattr::sys_flistxattr, "full";
    197 removexattr(path: Path, name: Path) => crate::vfs::syscalls_xattr::sys_removexattr, "full";
    198 lremovexattr(path: Path, name: Path) => crate::vfs::syscalls_xattr::sys_lremovexattr, "full";
    199 fremovexattr(fd: Fd, name: Path) => crate::vfs::syscalls_xattr::sys_fremovexattr, "full";
    200 tkill(tid: Int, sig: Sig) => crate::signal::syscalls::sys_tkill, "full";
    201 time(tloc: Ptr) => crate::time::syscalls::sys_time, "full";
    202 futex(uaddr: Ptr, op: Hex, val: UInt, timeout: Ptr, uaddr2: Ptr, val3: UInt) => crate::task::futex::sys_futex, "priority is inherited from nobody; no FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI";
    203 sched_setaffinity(pid: Int, len: UInt, mask: Ptr) => crate::task::sched::sys_sched_setaffinity, "remembered and told back; the host schedules";
    204 sched_getaffinity(pid: Int, len: UInt, mask: Ptr) => crate::task::sched::sys_sched_getaffinity, "remembered and told back; the host schedules";
    205 set_thread_area(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    206 io_setup(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    207 io_destroy(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    208 io_getevents(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    209 io_submit(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    210 io_cancel(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    211 get_thread_area(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    212 lookup_dcookie(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    213 epoll_create(size: Int) => crate::fs::epoll::syscalls::sys_epoll_create, "full";
    214 epoll_ctl_old(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    215 epoll_wait_old(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    216 remap_file_pages(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    217 getdents64(fd: Fd, buf: Ptr, count: UInt) => crate::vfs::syscalls_stat::sys_getdents64, "full";
    218 set_tid_address(tidptr: Ptr) => crate::task::robust::sys_set_tid_address, "full";
    219 restart_syscall() => crate::task::syscalls::sys_restart_syscall, "full";
    220 semtimedop(id: Int, sops: Ptr, nsops: Size, timeout: Ptr) => crate::ipc::sem::sys_semtimedop, "full";
    221 fadvise64(fd: Fd, offset: Int, len: Size, advice: Int) => crate::vfs::syscalls_attr::sys_fadvise64, "checked, then ignored";
    222 timer_create(clock: Int, sevp: Ptr, timerid: Ptr) => crate::time::syscalls::sys_timer_create, "full";
    223 timer_settime(timerid: Int, flags: Hex, new: Ptr, old: Ptr) => crate::time::syscalls::sys_timer_settime, "full";
    224 timer_gettime(timerid: Int, value: Ptr) => crate::time::syscalls::sys_timer_gettime, "full";
    225 timer_getoverrun(timerid: Int) => crate::time::syscalls::sys_timer_getoverrun, "full";
    226 timer_delete(timerid: Int) => crate::time::syscalls::sys_timer_delete, "full";
    227 clock_settime(clock: Int, ts: Ptr) => crate::time::syscalls::sys_clock_settime, "always EPERM: the clock is the host's";
    228 clock_gettime(clock: Int, ts: Ptr) => crate::time::syscalls::sys_clock_gettime, "full";
    229 clock_getres(clock: Int, ts: Ptr) => crate::time::syscalls::sys_clock_getres, "full";
    230 clock_nanosleep(clock: Int, flags: Hex, req: Ptr, rem: Ptr) => crate::time::syscalls::sys_clock_nanosleep, "full";
    231 exit_group(status: Int) => crate::task::exit::sys_exit_group, "full";
    232 epoll_wait(epfd: Fd, events: Ptr, max: Int, timeout: Int) => crate::fs::epoll::syscalls::sys_epoll_wait, "full; EPOLLEXCLUSIVE wakes every waiter";
    233 epoll_ctl(epfd: Fd, op: Int, fd: Fd, event: Ptr) => crate::fs::epoll::syscalls::sys_epoll_ctl, "full";
    234 tgkill(tgid: Int, tid: Int, sig: Sig) => crate::signal::syscalls::sys_tgkill, "full";
    235 utimes(path: Path, times: Ptr) => crate::vfs::syscalls_attr::sys_utimes, "full";
    236 vserver(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    237 mbind(addr: Ptr, len: Size, mode: Hex, mask: Ptr, maxnode: UInt, flags: Hex) => crate::mm::numa::sys_mbind, "one node: remembered and told back";
    238 set_mempolicy(mode: Hex, mask: Ptr, maxnode: UInt) => crate::mm::numa::sys_set_mempolicy, "one node: remembered and told back";
    239 get_mempolicy(mode: Ptr, mask: Ptr, maxnode: UInt, addr: Ptr, flags: Hex) => crate::mm::numa::sys_get_mempolicy, "one node: remembered and told back";
    240 mq_open(name: Path, flags: OpenFlags, mode: Oct, attr: Ptr);
    241 mq_unlink(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    242 mq_timedsend(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    243 mq_timedreceive(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    244 mq_notify(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    245 mq_getsetattr(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    246 kexec_load(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    247 waitid(which: Int, pid: Int, info: Ptr, options: Hex, rusage: Ptr) => crate::task::wait::sys_waitid, "full";
    248 add_key(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    249 request_key(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    250 keyctl(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    251 ioprio_set(which: Int, who: Int, prio: Hex) => crate::task::ioprio::sys_ioprio_set, "remembered and told back; the host schedules";
    252 ioprio_get(which: Int, who: Int) => crate::task::ioprio::sys_ioprio_get, "remembered and told back; the host schedules";
    253 inotify_init() => crate::fs::inotify::sys_inotify_init, "full";
    254 inotify_add_watch(fd: Fd, path: Path, mask: Hex) => crate::fs::inotify::sys_inotify_add_watch, "no IN_UNMOUNT; changes made by the host are not seen; IN_DELETE_SELF does not wait for the last close";
    255 inotify_rm_watch(fd: Fd, wd: Int) => crate::fs::inotify::sys_inotify_rm_watch, "full";
    256 migrate_pages(pid: Int, maxnode: UInt, old: Ptr, new: Ptr) => crate::mm::numa::sys_migrate_pages, "one node: nothing moves";
    257 openat(dirfd: Fd, path: Path, flags: OpenFlags, mode: Oct) => crate::vfs::syscalls_open::sys_openat, "full";
    258 mkdirat(dirfd: Fd, path: Path, mode: Oct) => crate::vfs::syscalls_path::sys_mkdirat, "full";
    259 mknodat(dirfd: Fd, path: Path, mode: Oct, dev: Hex) => crate::vfs::syscalls_path::sys_mknodat, "full";
    260 fchownat(dirfd: Fd, path: Path, uid: Int, gid: Int, flags: Hex) => crate::vfs::syscalls_attr::sys_fchownat, "full";
    261 futimesat(dirfd: Fd, path: Path, times: Ptr) => crate::vfs::syscalls_attr::sys_futimesat, "full";
    262 newfstatat(dirfd: Fd, path: Path, buf: Ptr, flags: Hex) => crate::vfs::syscalls_stat::sys_newfstatat, "full";
    263 unlinkat(dirfd: Fd, path: Path, flags: Hex) => crate::vfs::syscalls_path::sys_unlinkat, "full";
    264 renameat(olddirfd: Fd, old: Path, newdirfd: Fd, new: Path) => crate::vfs::syscalls_path::sys_renameat, "full";
    265 linkat(olddirfd: Fd, old: Path, newdirfd: Fd, new: Path, flags: Hex) => crate::vfs::syscalls_path::sys_linkat, "full";
    266 symlinkat(target: Path, dirfd: Fd, path: Path) => crate::vfs::syscalls_path::sys_symlinkat, "full";
    267 readlinkat(dirfd: Fd, path: Path, buf: Ptr, size: Size) => crate::vfs::syscalls_stat::sys_readlinkat, "full";
    268 fchmodat(dirfd: Fd, path: Path, mode: Oct) => crate::vfs::syscalls_attr::sys_fchmodat, "full";
    269 faccessat(dirfd: Fd, path: Path, mode: Oct) => crate::vfs::syscalls_stat::sys_faccessat, "full";
    270 pselect6(nfds: Int, readfds: Ptr, writefds: Ptr, exceptfds: Ptr, timeout: Ptr, sigmask: Ptr) => crate::fs::poll::sys_pselect6, "full";
    271 ppoll(fds: Ptr, nfds: UInt, timeout: Ptr, sigmask: Ptr, sigsetsize: Size) => crate::fs::poll::sys_ppoll, "full";
    272 unshare(flags: Hex) => crate::task::clone::sys_unshare, "CLONE_FS and CLONE_FILES; no new namespaces";
    273 set_robust_list(head: Ptr, len: Size) => crate::task::robust::sys_set_robust_list, "full";
    274 get_robust_list(pid: Int, head: Ptr, len: Ptr) => crate::task::robust::sys_get_robust_list, "full";
    275 splice(in_fd: Fd, in_off: Ptr, out_fd: Fd, out_off: Ptr, len: Size, flags: Hex) => crate::fs::splice::syscalls::sys_splice, "full";
    276 tee(in_fd: Fd, out_fd: Fd, len: Size, flags: Hex) => crate::fs::splice::syscalls::sys_tee, "full";
    277 sync_file_range(fd: Fd, offset: Int, len: Int, flags: Hex) => crate::vfs::syscalls_attr::sys_sync_file_range, "full";
    278 vmsplice(fd: Fd, iov: Ptr, count: Size, flags: Hex) => crate::fs::splice::syscalls::sys_vmsplice, "full; pages are copied";
    279 move_pages(pid: Int, count: Size, pages: Ptr, nodes: Ptr, status: Ptr, flags: Hex) => crate::mm::numa::sys_move_pages, "one node: nothing moves";
    280 utimensat(dirfd: Fd, path: Path, times: Ptr, flags: Hex) => crate::vfs::syscalls_attr::sys_utimensat, "full";
    281 epoll_pwait(epfd: Fd, events: Ptr, max: Int, timeout: Int, sigmask: Ptr, sigsetsize: Size) => crate::fs::epoll::syscalls::sys_epoll_pwait, "full";
    282 signalfd(fd: Fd, mask: Ptr, sigsetsize: Size) => crate::fs::signalfd::sys_signalfd, "full";
    283 timerfd_create(clock: Int, flags: Hex) => crate::fs::timerfd::sys_timerfd_create, "full";
    284 eventfd(initval: UInt) => crate::fs::eventfd::sys_eventfd, "full";
    285 fallocate(fd: Fd, mode: Hex, offset: Int, len: Int) => crate::vfs::syscalls_attr::sys_fallocate, "full";
    286 timerfd_settime(fd: Fd, flags: Hex, new: Ptr, old: Ptr) => crate::fs::timerfd::sys_timerfd_settime, "full; the clock cannot be set, so TFD_TIMER_CANCEL_ON_SET never fires";
    287 timerfd_gettime(fd: Fd, value: Ptr) => crate::fs::timerfd::sys_timerfd_gettime, "full";
    288 accept4(fd: Fd, addr: Ptr, len: Ptr, flags: Hex) => crate::net::syscalls::sys_accept4, "full";
    289 signalfd4(fd: Fd, mask: Ptr, sigsetsize: Size, flags: Hex) => crate::fs::signalfd::sys_signalfd4, "full";
    290 eventfd2(initval: UInt, flags: Hex) => crate::fs::eventfd::sys_eventfd2, "full";
    291 epoll_create1(flags: Hex) => crate::fs::epoll::syscalls::sys_epoll_create1, "full";
    292 dup3(oldfd: Fd, newfd: Fd, flags: Hex) => crate::vfs::syscalls_fd::sys_dup3, "full";
    293 pipe2(fds: Ptr, flags: Hex) => crate::fs::pipe::syscalls::pipe2, "no O_NOTIFICATION_PIPE";
    294 inotify_init1(flags: Hex) => crate::fs::inotify::sys_inotify_init1, "full";
    295 preadv(fd: Fd, iov: Ptr, iovcnt: Int, pos_low: Int, pos_high: Int) => crate::vfs::syscalls_rw::sys_preadv, "full";
    296 pwritev(fd: Fd, iov: Ptr, iovcnt: Int, pos_low: Int, pos_high: Int) => crate::vfs::syscalls_rw::sys_pwritev, "full";
    297 rt_tgsigqueueinfo(tgid: Int, tid: Int, sig: Sig, info: Ptr) => crate::signal::syscalls::sys_rt_tgsigqueueinfo, "full";
    298 perf_event_open(attr: Ptr, pid: Int, cpu: Int, group: Fd, flags: Hex) => crate::task::refused::sys_perf_event_open, "no events: EACCES without the capability, else ENOENT";
    299 recvmmsg(fd: Fd, msgs: Ptr, count: UInt, flags: Hex, timeout: Ptr) => crate::net::syscalls_msg::sys_recvmmsg, "full";
    300 fanotify_init(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    301 fanotify_mark(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    302 prlimit64(pid: Int, resource: Int, new: Ptr, old: Ptr) => crate::task::syscalls::sys_prlimit64, "full";
    303 name_to_handle_at(dirfd: Fd, path: Path, handle: Ptr, mount_id: Ptr, flags: Hex) => crate::vfs::syscalls_attr::sys_name_to_handle_at, "always EOPNOTSUPP";
    304 open_by_handle_at() => crate::task::refused::sys_open_by_handle_at, "refused: EPERM without the capability, else ENOSYS";
    305 clock_adjtime(clock: Int, buf: Ptr) => crate::task::refused::sys_clock_adjtime, "can be read; always EPERM for changes: the clock is the host's";
    306 syncfs(fd: Fd) => crate::vfs::syscalls_attr::sys_syncfs, "does nothing: what is written is in the page cache of the host";
    307 sendmmsg(fd: Fd, msgs: Ptr, count: UInt, flags: Hex) => crate::net::syscalls_msg::sys_sendmmsg, "full";
    308 setns(fd: Fd, kind: Hex) => crate::task::clone::sys_setns, "answers EINVAL";
    309 getcpu(cpu: Ptr, node: Ptr, cache: Ptr) => crate::task::sched::sys_getcpu, "full";
    310 process_vm_readv(pid: Int, liov: Ptr, liovcnt: UInt, riov: Ptr, riovcnt: UInt, flags: Hex) => crate::mm::process_vm::sys_process_vm_readv, "full";
    311 process_vm_writev(pid: Int, liov: Ptr, liovcnt: UInt, riov: Ptr, riovcnt: UInt, flags: Hex) => crate::mm::process_vm::sys_process_vm_writev, "full";
    312 kcmp(pid1: Int, pid2: Int, kind: Int, idx1: UInt, idx2: UInt) => crate::task::syscalls::sys_kcmp, "no epoll targets";
    313 finit_module() => crate::task::refused::sys_finit_module, "refused: EPERM without the capability, else ENOSYS";
    314 sched_setattr(pid: Int, attr: Ptr, flags: Hex) => crate::task::sched::sys_sched_setattr, "remembered and told back; the host schedules";
    315 sched_getattr(pid: Int, attr: Ptr, size: UInt, flags: Hex) => crate::task::sched::sys_sched_getattr, "remembered and told back; the host schedules";
    316 renameat2(olddirfd: Fd, old: Path, newdirfd: Fd, new: Path, flags: Hex) => crate::vfs::syscalls_path::sys_renameat2, "no RENAME_WHITEOUT";
    317 seccomp(op: Int, flags: Hex, args: Ptr) => crate::task::syscalls::sys_seccomp, "no filters: answers EINVAL";
    318 getrandom(buf: Ptr, count: Size, flags: Hex) => crate::task::syscalls::sys_getrandom, "full";
    319 memfd_create(name: Path, flags: Hex) => crate::mm::syscalls::sys_memfd_create, "no MFD_HUGETLB";
    320 kexec_file_load(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    321 bpf(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    322 execveat(dirfd: Fd, path: Path, argv: Ptr, envp: Ptr, flags: Hex) => crate::task::exec::sys_execveat, "full";
    323 userfaultfd(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    324 membarrier(cmd: Int, flags: Hex, cpu: Int) => crate::task::membarrier::sys_membarrier, "no RSEQ";
    325 mlock2(addr: Ptr, len: Size, flags: Hex) => crate::mm::syscalls::sys_mlock2, "as mlock";
    326 copy_file_range(in_fd: Fd, in_off: Ptr, out_fd: Fd, out_off: Ptr, len: Size, flags: Hex) => crate::fs::splice::syscalls::sys_copy_file_range, "full";
    327 preadv2(fd: Fd, iov: Ptr, iovcnt: Int, pos_low: Int, pos_high: Int, flags: Hex) => crate::vfs::syscalls_rw::sys_preadv2, "no RWF_ATOMIC, no RWF_DONTCACHE";
    328 pwritev2(fd: Fd, iov: Ptr, iovcnt: Int, pos_low: Int, pos_high: Int, flags: Hex) => crate::vfs::syscalls_rw::sys_pwritev2, "no RWF_ATOMIC, no RWF_DONTCACHE";
    329 pkey_mprotect(addr: Ptr, len: Size, prot: Prot, pkey: Int) => crate::mm::syscalls::sys_pkey_mprotect, "no protection keys";
    330 pkey_alloc(flags: Hex, rights: Hex) => crate::mm::syscalls::sys_pkey_alloc, "no protection keys: EINVAL";
    331 pkey_free(pkey: Int) => crate::mm::syscalls::sys_pkey_free, "no protection keys: EINVAL";
    332 statx(dirfd: Fd, path: Path, flags: Hex, mask: Hex, buf: Ptr) => crate::vfs::syscalls_stat::sys_statx, "full";
    333 io_pgetevents(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    334 rseq() => crate::task::refused::sys_rseq, "always ENOSYS: preemption by the host cannot be seen";
    424 pidfd_send_signal(pidfd: Fd, sig: Sig, info: Ptr, flags: Hex) => crate::task::pidfd::sys_pidfd_send_signal, "no flags";
    425 io_uring_setup(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    426 io_uring_enter(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    427 io_uring_register(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    428 open_tree(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    429 move_mount(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    430 fsopen(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    431 fsconfig(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    432 fsmount(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    433 fspick(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    434 pidfd_open(pid: Int, flags: Hex) => crate::task::pidfd::sys_pidfd_open, "no PIDFD_THREAD";
    435 clone3(args: Ptr, size: Size) => crate::task::clone::sys_clone3, "no new namespaces, no CLONE_INTO_CGROUP";
    436 close_range(first: UInt, last: UInt, flags: Hex) => crate::vfs::syscalls_fd::sys_close_range, "full";
    437 openat2(dirfd: Fd, path: Path, how: Ptr, size: Size) => crate::vfs::syscalls_open::sys_openat2, "RESOLVE_CACHED always answers EAGAIN";
    438 pidfd_getfd(pidfd: Fd, fd: Fd, flags: Hex) => crate::task::pidfd::sys_pidfd_getfd, "full";
    439 faccessat2(dirfd: Fd, path: Path, mode: Oct, flags: Hex) => crate::vfs::syscalls_stat::sys_faccessat2, "full";
    440 process_madvise(pidfd: Fd, iov: Ptr, iovcnt: Size, advice: Int, flags: Hex) => crate::mm::process_vm::sys_process_madvise, "full";
    441 epoll_pwait2(epfd: Fd, events: Ptr, max: Int, timeout: Ptr, sigmask: Ptr, sigsetsize: Size) => crate::fs::epoll::syscalls::sys_epoll_pwait2, "full";
    442 mount_setattr(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    443 quotactl_fd(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    444 landlock_create_ruleset(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    445 landlock_add_rule(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    446 landlock_restrict_self(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    447 memfd_secret(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    448 process_mrelease(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    449 futex_waitv(waiters: Ptr, count: UInt, flags: Hex, timeout: Ptr, clock: Int) => crate::task::futex_waitv::sys_futex_waitv, "full";
    450 set_mempolicy_home_node(addr: Ptr, len: Size, node: UInt, flags: Hex) => crate::mm::numa::sys_set_mempolicy_home_node, "one node: checked, then ignored";
    451 cachestat(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    452 fchmodat2(dirfd: Fd, path: Path, mode: Oct, flags: Hex) => crate::vfs::syscalls_attr::sys_fchmodat2, "full";
    453 map_shadow_stack(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    454 futex_wake(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    455 futex_wait(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    456 futex_requeue(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    457 statmount(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    458 listmount(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    459 lsm_get_self_attr(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    460 lsm_set_self_attr(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    461 lsm_list_modules(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    462 mseal(addr: Ptr, len: Size, flags: Hex) => crate::mm::syscalls::sys_mseal, "full";
    463 setxattrat(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    464 getxattrat(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    465 listxattrat(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    466 removexattrat(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
    467 open_tree_attr(a: Hex, b: Hex, c: Hex, d: Hex, e: Hex, f: Hex);
}
