//! Entry points: the moment at which a function is ready, found without its help.
//!
//! A container may be watched for one such moment. When it comes, the task that brought it about stops at the quiesce barrier
//! before its next instruction, and whoever watches is told; stopping the others and taking the checkpoint is theirs to do.
//! Where nothing is watched, each place that could bring one about looks at one word.
//!
//! Invariants: a moment comes once, whoever races for it. A call that brings it about has done all that it does, output
//! included, or waits as it would have waited: nothing is done twice or left out by what is restored.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use quicksand_abi::poll::PollFd;
use quicksand_abi::signal::code;
use quicksand_abi::{SigInfo, UserAddr};

use crate::fs::epoll::Epoll;
use crate::kernel::{Container, Kernel};
use crate::net::socket::SocketFile;
use crate::sync::{Events, Level, Mutex};
use crate::syscalls::Fd;
use crate::task::{CurrentTask, ThreadGroup, Work};
use crate::vfs::OpenFile;

/// What makes a function ready.
#[derive(Debug)]
pub enum EntryPoint {
    /// The first `listen(2)` on a stream socket has succeeded.
    Listen,
    /// A thread waits for a connection, for the first time: in `accept`, or for several files of which one listens.
    Accept,
    /// A line that matches was written to standard output or error, its end included.
    Line(LineMatcher),
    /// The Lambda Runtime API was asked for the next event, for the first time.
    LambdaNext,
    /// A process, or somebody outside, sent this signal. It is not delivered.
    Signal(i32),
}

/// Says of a line, without its end, whether it is the one.
type IsWanted = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Looks at lines.
pub struct LineMatcher(pub Box<IsWanted>);

impl fmt::Debug for LineMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineMatcher")
    }
}

/// Of a longer line only the beginning is looked at.
const MAX_LINE: usize = 64 << 10;

/// How deep epoll instances may be nested, as for Linux.
const MAX_NESTING: usize = 5;

/// The watch for one moment.
pub struct Watch {
    point: EntryPoint,
    armed: AtomicBool,
    on_reached: Box<dyn Fn() + Send + Sync>,
    /// The inodes of standard output and error.
    streams: OnceLock<[u64; 2]>,
    /// What was written to each since its last line ended.
    lines: Mutex<[Vec<u8>; 2]>,
}

impl Watch {
    pub(crate) fn new(point: EntryPoint, on_reached: Box<dyn Fn() + Send + Sync>) -> Watch {
        Watch {
            point,
            armed: AtomicBool::new(true),
            on_reached,
            streams: OnceLock::new(),
            lines: Mutex::new(Level::Leaf, Default::default()),
        }
    }
    /// Whether the moment can still come.
    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }
    /// Nothing is watched any longer. False where the moment had come.
    pub(crate) fn disarm(&self) -> bool {
        self.armed.swap(false, Ordering::SeqCst)
    }
    pub(crate) fn set_streams(&self, output: &OpenFile, error: &OpenFile) {
        let _ = self.streams.set([output.inode.id, error.inode.id]);
    }
    /// The world is to stand still, beginning with `task`.
    fn stop(&self, kernel: &Kernel, task: Option<&CurrentTask>) {
        if kernel.quiesce.begin()
            && let Some(task) = task
        {
            task.set_work(Work::QUIESCE);
        }
        (self.on_reached)();
    }
    fn reached(&self, task: &CurrentTask) {
        if self.disarm() {
            self.stop(task.kernel(), Some(task));
        }
    }
    /// As if for [`EntryPoint::LambdaNext`]: true for whoever is first, and has to call [`Watch::lambda_reached`] then.
    pub(crate) fn take_lambda(&self) -> bool {
        matches!(self.point, EntryPoint::LambdaNext) && self.disarm()
    }
    pub(crate) fn lambda_reached(&self, task: &CurrentTask) {
        self.stop(task.kernel(), Some(task));
    }

    /// Bytes were written to a stream. True where they end a line that matches.
    fn find_line(&self, stream: usize, mut bytes: &[u8]) -> bool {
        let EntryPoint::Line(matcher) = &self.point else { return false };
        let mut lines = self.lines.lock();
        let line = &mut lines[stream];
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            extend(line, &bytes[..end]);
            let found = matcher.0(line);
            line.clear();
            if found {
                return true;
            }
            bytes = &bytes[end + 1..];
        }
        extend(line, bytes);
        false
    }
}

fn extend(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_LINE.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, armed: {})", self.point, self.is_armed())
    }
}

impl Container {
    /// Watches for `point`, before anything runs; when it comes, `on_reached` is called once, from a task's thread and perhaps
    /// with locks held: it must not wait. False where something is watched already.
    pub fn watch_entry(&self, point: EntryPoint, on_reached: Box<dyn Fn() + Send + Sync>) -> bool {
        self.entry.set(Watch::new(point, on_reached)).is_ok()
    }
    /// Nobody waits for the moment any longer. Where it has come, and nothing else has stopped the world, the world goes on.
    pub fn abandon_entry(&self) {
        if let Some(watch) = self.entry.get() {
            watch.disarm();
            self.kernel.quiesce.abandon();
            if let Some(api) = self.runtime_api() {
                api.thaw();
            }
        }
    }
    pub(crate) fn entry(&self) -> Option<&Watch> {
        self.entry.get()
    }
    fn armed(&self) -> Option<&Watch> {
        self.entry.get().filter(|watch| watch.is_armed())
    }
}

/// A socket listens from now on.
pub(crate) fn listens(task: &CurrentTask, socket: &SocketFile) {
    if let Some(watch) = task.container().armed()
        && matches!(watch.point, EntryPoint::Listen)
        && socket.ops.is_stream()
    {
        watch.reached(task);
    }
}

/// Bytes of a task have been written to a descriptor that was handed in.
pub(crate) fn wrote(task: &CurrentTask, file: &OpenFile, bytes: &[u8]) {
    if let Some(watch) = task.container().armed()
        && let Some(streams) = watch.streams.get()
        && let Some(stream) = streams.iter().position(|inode| *inode == file.inode.id)
        && watch.find_line(stream, bytes)
    {
        watch.reached(task);
    }
}

/// A task is about to wait in a system call.
pub(crate) fn waits(task: &CurrentTask, number: u64, args: &[u64; 6]) {
    if let Some(watch) = task.container().armed()
        && matches!(watch.point, EntryPoint::Accept)
        && waits_for_connection(task, number, args)
    {
        watch.reached(task);
    }
}

/// A signal is sent to a process. True where it was what was watched for, and is not to be delivered.
pub(crate) fn signalled(
    group: &ThreadGroup,
    tasks: &[std::sync::Arc<crate::task::Task>],
    info: &SigInfo,
) -> bool {
    let Some(first) = tasks.first() else { return false };
    let Some(watch) = first.container().armed() else { return false };
    let by_somebody = matches!(info.code, code::SI_USER | code::SI_QUEUE | code::SI_TKILL);
    if !matches!(watch.point, EntryPoint::Signal(signal) if signal == info.signo) || !by_somebody {
        return false;
    }
    if !watch.disarm() {
        return false;
    }
    tracing::debug!("process {} got the signal of the entry point", group.pid());
    watch.stop(first.kernel(), None);
    // Before the sender goes on where it is of this process, as a program is that signals itself.
    for task in tasks {
        task.interrupt(Work::QUIESCE);
    }
    true
}

/// Whether a call waits for a connection. What it names is read again: a program that changes it meanwhile decides for
/// itself what is seen.
fn waits_for_connection(task: &CurrentTask, number: u64, args: &[u64; 6]) -> bool {
    let fd = Fd(args[0] as i32);
    let Ok(number) = i64::try_from(number) else { return false };
    match number {
        libc::SYS_accept | libc::SYS_accept4 => true,
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            task.file(fd).is_ok_and(|file| watches_listener(&file, MAX_NESTING))
        }
        libc::SYS_poll | libc::SYS_ppoll => {
            // The call itself has checked the number.
            let count = usize::try_from(args[1] as u32).unwrap_or(0);
            let fds: Vec<PollFd> = task.read_array(UserAddr(args[0]), count).unwrap_or_default();
            let wanted = |entry: &PollFd| u32::from(entry.events as u16) & Events::READABLE.bits() != 0;
            fds.iter().filter(|entry| wanted(entry)).any(|entry| listens_at(task, entry.fd))
        }
        libc::SYS_select | libc::SYS_pselect6 => {
            let count = usize::try_from(args[0] as i32).unwrap_or(0).min(1 << 20);
            let mut set = vec![0; count.div_ceil(8)];
            if args[1] == 0 || task.read_bytes(UserAddr(args[1]), &mut set).is_err() {
                return false;
            }
            (0..count).filter(|fd| set[fd / 8] & (1 << (fd % 8)) != 0).any(|fd| listens_at(task, fd as i32))
        }
        _ => false,
    }
}

fn listens_at(task: &CurrentTask, fd: i32) -> bool {
    fd >= 0 && task.file(Fd(fd)).is_ok_and(|file| is_listener(&file) || watches_listener(&file, MAX_NESTING))
}

fn is_listener(file: &OpenFile) -> bool {
    file.ops_as::<SocketFile>().is_some_and(|socket| socket.ops.is_listening())
}

/// Whether an epoll instance waits for connections.
fn watches_listener(file: &OpenFile, nesting: usize) -> bool {
    let Some(epoll) = file.ops_as::<Epoll>() else { return false };
    epoll.watched().iter().any(|(_, file, events, _)| {
        events & Events::READABLE.bits() != 0
            && (is_listener(file) || (nesting > 0 && watches_listener(file, nesting - 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(wanted: &'static [u8]) -> Watch {
        let matcher = LineMatcher(Box::new(move |line| line == wanted));
        Watch::new(EntryPoint::Line(matcher), Box::new(|| {}))
    }

    #[test]
    fn a_line_counts_when_it_has_ended_and_in_its_own_stream() {
        let watch = watch(b"ready");
        assert!(!watch.find_line(0, b"rea"));
        assert!(!watch.find_line(1, b"dy\n"));
        assert!(!watch.find_line(0, b"dy"));
        assert!(watch.find_line(0, b"\nmore"));
        assert!(!watch.find_line(1, b"ready to go\nready\r\nready") && watch.find_line(1, b"\n"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let watch = watch(&[b'a'; MAX_LINE]);
        for _ in 0..100 {
            assert!(!watch.find_line(1, &[b'a'; MAX_LINE / 10]));
        }
        assert_eq!(watch.lines.lock()[1].len(), MAX_LINE);
        assert!(watch.find_line(1, b"b\n"));
    }
}
