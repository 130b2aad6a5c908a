//! The records of a checkpoint: kernel objects as flat data, one type per kind of object.
//!
//! Numbers identify: an object that is referred to from several places (an open file, a descriptor table, an address
//! space) has a record of its own, found by the number that the kernel gave it. What a record holds is what the object
//! cannot be made without; what can be computed, or is of the host, is left out. Field names are those of the objects.
//!
//! Invariants: a record holds nothing of the host (no descriptor, pid or address); every field is checked where the object is
//! made from it, since an image is hostile input.

use rkyv::{Archive, Deserialize, Serialize};

/// The version of all records together. An image of another version is refused.
pub const VERSION: u32 = 2;

/// Kinds, as an image names its record tables.
pub mod kind {
    pub const TASK: &str = "task";
    pub const PROCESS: &str = "process";
    pub const MM: &str = "mm";
    pub const FDS: &str = "fds";
    pub const FS: &str = "fs";
    pub const FILE: &str = "file";
    pub const PIPE: &str = "pipe";
    pub const ACTIONS: &str = "actions";
    pub const UNIX: &str = "unix";
    pub const SHARED: &str = "shared";
    pub const UNNAMED: &str = "unnamed";
    pub const TREE: &str = "tree";
    pub const PTY: &str = "pty";
    pub const MEMFD: &str = "memfd";
    pub const SEGMENT: &str = "segment";
    pub const SEMAPHORES: &str = "semaphores";
    pub const MESSAGES: &str = "messages";
}

/// The section that holds the [`Sandbox`].
pub const SANDBOX: &str = "sandbox";

/// The section that holds the [`Lambda`], where the container has the Runtime API.
pub const LAMBDA: &str = "lambda";

/// What belongs to no single object.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Sandbox {
    pub version: u32,
    /// CLOCK_MONOTONIC at the checkpoint, and how far CLOCK_BOOTTIME was ahead of it.
    pub monotonic_ns: u64,
    pub realtime_ns: i64,
    /// XCR0 and the length of extended states: a platform that has others cannot go on.
    pub xcr0: u64,
    pub extended_state_len: u32,
    pub last_pid: i32,
    pub host_name: Vec<u8>,
    pub domain_name: Vec<u8>,
    /// The container's first process.
    pub init: i32,
    /// Those that have a terminal, or had one.
    pub sessions: Vec<Session>,
    pub console: Option<Console>,
    /// The generations of System V segments, sets and queues.
    pub ipc_generations: [i32; 3],
}

/// A session with a terminal; of others there is nothing to say.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Session {
    pub sid: i32,
    pub tty: Option<Tty>,
    /// The process group in the foreground, or 0.
    pub foreground: i32,
}

/// A terminal.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub enum Tty {
    /// A pair of the container's own, by its number.
    Pty(u64),
    /// The one that the container was given.
    Console,
}

/// The container's terminal, which is handed over anew.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Console {
    /// A `struct termios`.
    pub termios: Vec<u8>,
    /// Its number in the container's devpts.
    pub index: Option<u32>,
    pub uid: u32,
    pub gid: u32,
}

/// A thread.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Task {
    pub tid: i32,
    pub pid: i32,
    pub mm: u64,
    pub fds: u64,
    pub fs: u64,
    pub creds: Creds,
    pub name: Vec<u8>,
    pub clear_child_tid: u64,
    pub robust_list: u64,
    pub pdeath_signal: i32,
    pub no_new_privs: bool,
    pub personality: u32,
    pub timer_slack_ns: u64,
    /// As `set_mempolicy(2)` takes it.
    pub mem_policy: u16,
    pub sched: Sched,
    /// In the order of `struct user_regs_struct`.
    pub regs: [u64; 23],
    /// The XSAVE area, standard format.
    pub extended_state: Vec<u8>,
    pub altstack: (u64, i32, u64),
    pub blocked: u64,
    pub saved_mask: Option<u64>,
    /// Each 128 bytes.
    pub pending: Vec<Vec<u8>>,
    /// The call that it waits in.
    pub call: Option<Call>,
    /// What `restart_syscall` would go on with.
    pub restart_block: Option<Call>,
    /// A call that a signal interrupted and that is not settled yet: how it restarts.
    pub restart: Option<u8>,
    pub trap: (u64, u64, u64),
    /// The process whose thread waits in `vfork(2)` for this one.
    pub vfork_parent: Option<i32>,
    pub used: Usage,
}

/// User and system time in nanoseconds, the largest size, faults, waits.
pub type Usage = [u64; 5];

/// A blocked system call.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Call {
    pub number: u64,
    pub args: [u64; 6],
    pub resume: Resume,
}

/// Its progress. Deadlines are on the sandbox's monotonic clock.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    None,
    Transferred {
        bytes: u64,
    },
    Io {
        bytes: u64,
        deadline: Option<u64>,
    },
    Deadline(Option<u64>),
    SavedMask {
        mask: u64,
        deadline: Option<u64>,
    },
    CpuSleep {
        until_ns: i64,
    },
    Messages {
        received: u32,
        deadline: Option<u64>,
    },
    /// `vfork(2)`, which waits for this thread.
    Vfork {
        tid: i32,
    },
    /// An opener of a FIFO, whose partner has come.
    FifoMet,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Sched {
    pub policy: u32,
    pub priority: u32,
    pub nice: i32,
    pub reset_on_fork: bool,
    pub affinity: u64,
    pub io_priority: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub struct Creds {
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    /// Permitted, effective, inheritable, bounding, ambient.
    pub caps: [u64; 5],
    pub securebits: u32,
}

/// A process.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub pgid: i32,
    pub sid: i32,
    pub subreaper: bool,
    pub exit_signal: i32,
    pub execs: u32,
    pub actions: u64,
    /// Soft and hard.
    pub rlimits: Vec<(u64, u64)>,
    pub pending: Vec<Vec<u8>>,
    pub dumpable: i32,
    pub membarrier: u32,
    pub oom_score_adj: (i32, i32),
    pub unkillable: bool,
    pub timers: Timers,
    pub job: Job,
    /// What its threads have used that ended, and its children that it waited for.
    pub ended: Usage,
    pub children: Usage,
    /// Its first thread has ended before the others.
    pub leader: Option<Leader>,
    /// It has ended, and nobody has waited for it.
    pub zombie: Option<Zombie>,
}

/// When a timer runs out next, on its clock, and its interval.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Schedule {
    pub next_ns: Option<i64>,
    pub interval_ns: i64,
}

/// The timers of a process.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub struct Timers {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub interval: [Schedule; 3],
    pub posix: Vec<PosixTimer>,
    pub next_id: i32,
}

/// A timer of `timer_create(2)`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct PosixTimer {
    pub id: i32,
    pub clock: i32,
    /// Signal, value, thread.
    pub notify: Option<(i32, u64, Option<i32>)>,
    pub schedule: Schedule,
    pub overrun: u64,
    pub last_overrun: i32,
}

/// Job control of a process.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Job {
    /// The signal that stops it.
    pub signal: Option<i32>,
    /// All of its threads have stopped.
    pub complete: bool,
    /// What `wait4(2)` has not reported, and what the parent has not been told: stopped by a signal, or (0) gone on.
    pub event: Option<i32>,
    pub notify_parent: Option<i32>,
}

/// A first thread that has ended.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Leader {
    pub creds: Creds,
    pub name: Vec<u8>,
}

/// What a parent that waits learns.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Zombie {
    /// The exit code, where no signal ended it.
    pub code: u8,
    /// The signal that ended it, or 0.
    pub signal: i32,
    pub core_dumped: bool,
    pub creds: Creds,
    pub name: Vec<u8>,
}

/// Signal actions: handler, flags, restorer, mask, for signals 1 to 64.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Actions {
    pub table: Vec<[u64; 4]>,
}

/// An address space.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Mm {
    pub mmap_base: u64,
    pub top_down: bool,
    pub low_base: u64,
    /// `start_code` to `env_end`, in the order of `mm::Marks`.
    pub marks: [u64; 12],
    pub auxv: Vec<u8>,
    pub default_flags: u32,
    pub exe: Option<u64>,
    pub stack_limit: u64,
    pub vmas: Vec<Vma>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    /// PROT_ bits.
    pub prot: u8,
    pub max_prot: u8,
    pub flags: u32,
    /// A memory policy, as `mbind(2)` takes it.
    pub policy: u16,
    pub backing: Backing,
    pub anon_name: Option<Vec<u8>>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub enum Backing {
    Anon,
    /// An open file by its number, and the offset in it.
    File {
        file: u64,
        offset: u64,
        may_write: bool,
    },
    /// Memory that address spaces share, by its number.
    Shared {
        memory: u64,
        offset: u64,
    },
    /// `[vvar]`, `[vdso]`: by its offset in the memory of the vDSO.
    Special {
        name: String,
        offset: u64,
    },
}

/// A descriptor table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Fds {
    /// POSIX locks of whoever uses the table: an open file of what is locked, first and last byte, whether it is exclusive,
    /// the process that set it.
    pub locks: Vec<(u64, u64, u64, bool, i32)>,
    /// Descriptor, open file, flags.
    pub open: Vec<(i32, u64, u32)>,
}

/// Root, working directory, umask.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Fs {
    pub root: Vec<u8>,
    pub cwd: Vec<u8>,
    pub umask: u32,
}

/// An open file.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct File {
    pub flags: u32,
    pub offset: u64,
    /// `flock(2)`: whether it is exclusive, and who took it.
    pub flock: Option<(bool, i32)>,
    /// Locks of the open file: first and last byte, whether they are exclusive.
    pub locks: Vec<(u64, u64, bool)>,
    pub signals: Option<FileSignals>,
    pub body: FileBody,
}

/// O_ASYNC, F_SETOWN, F_SETSIG.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct FileSignals {
    pub pid: i32,
    pub thread: bool,
    pub signal: i32,
    /// Whose rights count.
    pub setter: Option<Creds>,
    /// O_ASYNC, by this descriptor.
    pub on: Option<i32>,
    pub urgent: bool,
    pub full: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub enum FileBody {
    /// By its path in the container.
    Path {
        path: Vec<u8>,
        deny_write: bool,
    },
    /// A regular file without a name, by its number.
    Unnamed {
        inode: u64,
        deny_write: bool,
    },
    /// Standard input, output or error, handed over anew; `console`: all three in one, a terminal.
    Stdio {
        number: u8,
        console: bool,
    },
    /// The container's terminal, opened by its path.
    Console {
        path: Vec<u8>,
    },
    /// An end of a pair of terminals, and its path where it was opened by one.
    Terminal {
        pty: u64,
        master: bool,
        path: Option<Vec<u8>>,
    },
    /// A FIFO, and its path where it still has one.
    Fifo {
        pipe: u64,
        path: Option<Vec<u8>>,
        read: bool,
        write: bool,
        /// It waits for its first writer, and shows no hangup.
        no_hup: bool,
    },
    /// `memfd_create(2)`; whether it counts as a writer.
    Memfd {
        memfd: u64,
        writer: bool,
        deny_write: bool,
    },
    Inotify {
        /// Watch descriptor, mask, cookie, name.
        events: Vec<(i32, u32, u32, Vec<u8>)>,
        last: i32,
        /// Watch descriptor, mask, path.
        watches: Vec<(i32, u32, Vec<u8>)>,
    },
    /// A pidfd; 0 where the process has been reaped.
    PidFd {
        pid: i32,
    },
    Netlink {
        socket: Netlink,
        timeouts: [Option<u64>; 2],
    },
    Pipe {
        pipe: u64,
        read: bool,
        write: bool,
    },
    EventFd {
        count: u64,
        semaphore: bool,
    },
    TimerFd {
        clock_id: i32,
        /// The next expiry on the timer's clock, and the interval.
        next_ns: Option<i64>,
        interval_ns: i64,
        ticks: u64,
        settime_flags: u32,
    },
    SignalFd {
        mask: u64,
    },
    Epoll {
        items: Vec<Watched>,
    },
    /// A Unix socket by its number, and SO_RCVTIMEO and SO_SNDTIMEO in nanoseconds.
    Unix {
        socket: u64,
        timeouts: [Option<u64>; 2],
    },
    Inet {
        socket: Inet,
        timeouts: [Option<u64>; 2],
    },
    /// A connection to the Runtime API, by its number there.
    Lambda {
        connection: u64,
        socket: Inet,
        timeouts: [Option<u64>; 2],
    },
}

/// Descriptor number and open file of what an epoll instance watches, events (private bits included), data.
pub type Watched = (i32, u64, u32, u64);

/// An internet socket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Inet {
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    /// `sockaddr` bytes, where it is bound.
    pub local: Option<Vec<u8>>,
    /// The backlog, where it listens.
    pub listening: Option<i32>,
    /// Where a datagram socket is connected to.
    pub remote: Option<Vec<u8>>,
    /// It was connected by TCP: its peer is lost.
    pub reset: bool,
    /// Level, name, value.
    pub options: Vec<(i32, i32, Vec<u8>)>,
}

/// A netlink socket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Netlink {
    pub kind: i32,
    pub port: u32,
    pub groups: u32,
    pub incoming: Vec<Vec<u8>>,
    pub pass_credentials: bool,
    pub overrun: bool,
    pub switches: u32,
    pub buffers: [Option<i32>; 2],
}

/// A message that waits in a Unix socket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// A record ends here.
    pub eor: bool,
    /// The sender's pid, uid and gid.
    pub credentials: Option<(i32, u32, u32)>,
    /// The sender's name, as an address.
    pub from: Option<Vec<u8>>,
    /// The socket that it is charged to.
    pub sender: Option<u64>,
    /// Open files under way.
    pub rights: Vec<u64>,
}

/// Pid, uid, gid, and groups of who opened a socket.
pub type PeerCredentials = (i32, u32, u32, Vec<u32>);

/// A Unix socket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Unix {
    pub kind: i32,
    /// The name as `getsockname(2)` gives it.
    pub name: Vec<u8>,
    /// Where the node is that it is bound to; the name alone stands for abstract ones.
    pub node: Option<Vec<u8>>,
    pub bound: bool,
    /// The backlog, and who listens.
    pub listening: Option<(u64, PeerCredentials)>,
    /// Sockets of connections that nobody has accepted.
    pub pending: Vec<u64>,
    pub peer: Option<u64>,
    /// It had a peer, which has closed.
    pub orphan: bool,
    pub shut_read: bool,
    pub shut_write: bool,
    /// An error that nobody has seen.
    pub error: Option<i32>,
    /// In the order of `net::unix::Options`.
    pub options: [i64; 14],
    pub send_buffer: u64,
    pub peer_credentials: Option<PeerCredentials>,
    pub messages: Vec<Message>,
}

/// Memory that address spaces share: its contents are pages of a space of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Shared {
    pub size: u64,
    /// Of a System V segment: the key that it was made with.
    pub key: Option<i32>,
}

/// A pair of terminals.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Pty {
    /// Where the devpts is mounted that its slave is in, and its number there.
    pub mount: Vec<u8>,
    pub index: u32,
    /// A `struct termios` and a `struct winsize`.
    pub termios: Vec<u8>,
    pub winsize: [u16; 4],
    /// Lines that are complete, the one that is edited, and input that is no line.
    pub lines: Vec<Vec<u8>>,
    pub edit: Vec<u8>,
    pub raw: Vec<u8>,
    pub literal: bool,
    pub output: Vec<u8>,
    pub column: u64,
    pub stopped: bool,
    pub locked: bool,
    pub hung_up: bool,
    pub other_closed: bool,
    pub exclusive: bool,
    pub packet: bool,
    pub packet_status: u8,
    /// Permissions, user and group of the slave.
    pub owner: (u32, u32, u32),
}

/// A file of `memfd_create(2)`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Memfd {
    /// Its name as `/proc` shows it.
    pub name: Vec<u8>,
    pub seals: u32,
    pub node: TreeNode,
}

/// Who made and who owns a System V object.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct IpcOwner {
    pub key: i32,
    /// Of the owner and of the maker.
    pub uids: [u32; 2],
    pub gids: [u32; 2],
    pub mode: u32,
}

/// A System V segment.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Segment {
    pub owner: IpcOwner,
    pub size: u64,
    /// The memory that it is, by its number.
    pub memory: u64,
    pub removed: bool,
    pub atime: i64,
    pub ctime: i64,
    pub creator: i32,
    pub last: i32,
}

/// A System V set of semaphores.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Semaphores {
    pub owner: IpcOwner,
    /// Value, and who changed it last.
    pub values: Vec<(i32, i32)>,
    pub otime: i64,
    pub ctime: i64,
    /// By process: what is added when it ends.
    pub undo: Vec<(i32, Vec<i32>)>,
}

/// A System V queue.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Messages {
    pub owner: IpcOwner,
    pub messages: Vec<(i64, Vec<u8>)>,
    pub max_bytes: u64,
    pub times: [i64; 3],
    pub last: [i32; 2],
}

/// A pipe.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Pipe {
    pub slots: u32,
    /// Contents of the buffers, and whether each is a packet.
    pub buffers: Vec<(Vec<u8>, bool)>,
}

/// What is in memory of one file system that a container has mounted: a tmpfs whole, of an overlay what differs from the
/// tree below.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Tree {
    /// Where its root is mounted.
    pub mount: Vec<u8>,
    /// `tmpfs` or `overlay`.
    pub fs_type: String,
    /// The first is the root.
    pub nodes: Vec<TreeNode>,
    /// Each directory's entries stand after the entry that leads to it.
    pub entries: Vec<TreeEntry>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct TreeEntry {
    /// The directory, by its place among the nodes.
    pub dir: u32,
    pub name: Vec<u8>,
    /// `None`: the tree below has the name, and it was removed.
    pub node: Option<u32>,
}

/// A regular file that is open and has no name, or had one.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Unnamed {
    /// Where the file system is mounted.
    pub mount: Vec<u8>,
    /// The name that it had last.
    pub name: Vec<u8>,
    /// It may be given one (O_TMPFILE).
    pub linkable: bool,
    pub node: TreeNode,
}

/// A file in memory.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct TreeNode {
    /// `S_IFMT` bits.
    pub format: u32,
    /// The tree below has it at this place; what follows is what differs.
    pub lower: bool,
    /// Where the tree below has it, where that is not this place.
    pub origin: Option<Vec<u8>>,
    pub attr: Option<TreeAttr>,
    pub contents: Option<TreeContents>,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct TreeAttr {
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: i64,
    pub mtime: i64,
}

/// Contents of a regular file: pages of the image, in a space of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct TreeContents {
    pub space: u64,
    pub size: u64,
}

/// The Lambda Runtime API.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Lambda {
    pub address: u32,
    pub port: u16,
    pub function_arn: String,
    pub connections: Vec<LambdaConnection>,
    /// Connections that wait for an event, in their order.
    pub polls: Vec<u64>,
    /// Request ids of events that were delivered and have no response.
    pub running: Vec<String>,
}

/// A connection to it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct LambdaConnection {
    pub id: u64,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub poll: u8,
    pub closing: bool,
    pub continued: bool,
    pub shut_read: bool,
    pub shut_write: bool,
    pub port: u16,
}
