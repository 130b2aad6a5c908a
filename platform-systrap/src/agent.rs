//! Orders for a stub's agent, and the first of all stubs.
//!
//! An order is a list of operations in pages that the stub cannot write. That it has been carried out, and whether all went
//! well, comes through a descriptor that guest code cannot use; an operation's result comes through memory that guest code
//! can write: it is an allegation, and only about the guest's own memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::layout::{
    AREA_LEN, AREAS, AREAS_LEN, RECEIVED_FD, REQUEST, REQUEST_LEN, SOCKET_FD, THREAD_FLAGS, agent, request,
    special,
};
use crate::sys::{self, SharedMemory, futex_wait, futex_wake};

/// What the agent is to do: a system call, or one of [`special`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) number: u64,
    pub(crate) args: [u64; 6],
    pub(crate) may_fail: bool,
}

impl Operation {
    pub(crate) fn call(number: libc::c_long, args: [u64; 6]) -> Operation {
        Operation { number: number as u64, args, may_fail: false }
    }
    pub(crate) fn special(number: u64, args: [u64; 3]) -> Operation {
        let [a, b, c] = args;
        Operation { number, args: [a, b, c, 0, 0, 0], may_fail: false }
    }
    #[cfg(test)]
    pub(crate) fn stored(&self) -> Option<(u64, u8)> {
        (self.number == special::STORE).then_some((self.args[0], self.args[1] as u8))
    }
    /// The same, whose failure does not count.
    pub(crate) fn may_fail(self) -> Operation {
        Operation { may_fail: true, ..self }
    }
    /// Takes the next message from the socket; its descriptors get the numbers from [`RECEIVED_FD`]. The message's header
    /// lies where the stub cannot write; so the kernel reports EFAULT, when all is done.
    fn receive() -> Operation {
        let header = REQUEST + request::MESSAGE_HEADER as u64;
        Operation::call(libc::SYS_recvmsg, [SOCKET_FD as u64, header, libc::MSG_DONTWAIT as u64, 0, 0, 0])
            .may_fail()
    }
    fn close_received() -> Operation {
        Operation::call(libc::SYS_close_range, [RECEIVED_FD as u64, u64::from(u32::MAX), 0, 0, 0, 0])
    }
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The stub has ended.
    Ended,
    /// A host call failed, with this number.
    Errno(i32),
}

/// The Sentry's end of the line to an agent.
#[derive(Debug)]
pub(crate) struct Line {
    memory: SharedMemory,
    socket: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last order.
    sequence: u32,
    /// The agent, once there is one, and where it runs.
    agent: i32,
    processor: Option<usize>,
    first: First,
}

/// The order that a stub is born with.
#[derive(Debug, Default)]
enum First {
    #[default]
    None,
    /// Its answer has not been looked at.
    Out,
    /// What its only operation returned, as the stub says.
    Done(Result<u64, i32>),
}

/// What a stub is given at its birth.
#[derive(Debug)]
pub(crate) struct Dowry {
    pub(crate) socket: OwnedFd,
    pub(crate) request: OwnedFd,
    pub(crate) areas: OwnedFd,
}

impl Line {
    /// A line to a stub that is to be made, that stub's areas, and what it is to be given.
    pub(crate) fn new() -> io::Result<(Line, SharedMemory, Dowry)> {
        let (near, far) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_passcred(&near, true)?;
        let (memory, request) = SharedMemory::new("stub-request", REQUEST_LEN)?;
        let (areas, areas_fd) = SharedMemory::new("stub-areas", AREAS_LEN)?;
        // A `msghdr` with one buffer of one byte.
        let put = |at: usize, value: u64| memory.u64(at).store(value, Ordering::Relaxed);
        put(request::MESSAGE_HEADER + 16, REQUEST + request::IO_VECTOR as u64);
        put(request::MESSAGE_HEADER + 24, 1);
        put(request::MESSAGE_HEADER + 32, AREAS + agent::CONTROL as u64);
        put(request::MESSAGE_HEADER + 40, agent::CONTROL_LEN as u64);
        put(request::IO_VECTOR, AREAS + agent::MESSAGE as u64);
        put(request::IO_VECTOR + 8, 1);
        let line = Line { memory, socket: near, state: Mutex::default() };
        Ok((line, areas, Dowry { socket: far, request, areas: areas_fd }))
    }

    /// Waits until the new stub says that it is there; returns its process id as the kernel knows it. The other end must
    /// be nobody's but the stub's.
    pub(crate) fn await_birth(&self) -> io::Result<i32> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        loop {
            let mut buffers = [io::IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(&self.socket, &mut buffers, &mut control, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(message) if message.bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
            }
        }
        let pid = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
            _ => None,
        });
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        self.state.lock().agent = pid;
        Ok(pid)
    }

    fn ack(&self) -> &AtomicU32 {
        self.memory.u32(request::ACK)
    }

    /// The stub has ended: whoever waits for an answer gets none.
    pub(crate) fn ended(&self) {
        self.ack().fetch_or(request::ACK_DEAD, Ordering::SeqCst);
        futex_wake(self.ack());
    }

    /// Has operations carried out, one after the other, whether or not one fails; `files` are there for them, from
    /// number [`RECEIVED_FD`] on, at most [`agent::MAX_FILES`]. Each operation's result is in `results` as the stub says. At most
    /// [`request::MAX_OPERATIONS`] less two.
    pub(crate) fn order(
        &self,
        areas: &SharedMemory,
        files: &[BorrowedFd<'_>],
        operations: &[Operation],
        results: &mut [u64],
    ) -> Result<(), Failed> {
        let mut state = self.state.lock();
        self.settle(&mut state, areas)?;
        let with_files = !files.is_empty();
        if with_files {
            send(&self.socket, files)?;
        }
        let before = with_files.then(Operation::receive);
        let after = with_files.then(Operation::close_received);
        let mut count: usize = 0;
        for operation in before.iter().chain(operations).chain(&after) {
            self.put(count, operation);
            count += 1;
        }
        let offset = usize::from(with_files);
        // We sleep while the agent works, so the best place for it is here: another processor may have to be woken, or be
        // busy looking out for us.
        let here = sys::this_processor();
        if state.processor != Some(here) {
            state.processor = Some(here);
            sys::bind(state.agent, here);
        }
        self.post(&mut state, count);
        let all_well = self.answer(&state)?;
        let result_at = |i: usize| result(areas, i + offset);
        for (i, result) in results.iter_mut().enumerate() {
            *result = result_at(i);
        }
        if all_well {
            return Ok(());
        }
        let failure = operations.iter().enumerate().filter(|(_, o)| !o.may_fail).find_map(|(i, _)| {
            let result = result_at(i) as i64;
            (-4095..0).contains(&result).then_some(-result as i32)
        });
        Err(Failed::Errno(failure.unwrap_or(libc::ENOMEM)))
    }

    fn put(&self, index: usize, operation: &Operation) {
        let at = request::OPERATIONS + index * request::OPERATION_LEN;
        let store = |at: usize, value: u64| self.memory.u64(at).store(value, Ordering::Relaxed);
        store(at, operation.number);
        for (i, arg) in operation.args.into_iter().enumerate() {
            store(at + 8 + 8 * i, arg);
        }
        store(at + request::FLAGS, if operation.may_fail { request::MAY_FAIL } else { 0 });
    }

    /// Gives the first order to a stub that is not yet born. It has one operation, and no files.
    pub(crate) fn order_first(&self, operation: &Operation) {
        let mut state = self.state.lock();
        self.put(0, operation);
        self.post(&mut state, 1);
        state.first = First::Out;
    }

    /// What came of it.
    pub(crate) fn first_result(&self, areas: &SharedMemory) -> Result<u64, Failed> {
        let mut state = self.state.lock();
        self.settle(&mut state, areas)?;
        match state.first {
            First::Done(result) => result.map_err(Failed::Errno),
            First::None | First::Out => Err(Failed::Ended),
        }
    }

    /// Waits for the answer to the first order, if that is still out.
    fn settle(&self, state: &mut State, areas: &SharedMemory) -> Result<(), Failed> {
        if let First::Out = state.first {
            let all_well = self.answer(state)?;
            let result = result(areas, 0);
            state.first =
                First::Done(if all_well { Ok(result) } else { Err((result as i64).wrapping_neg() as i32) });
        }
        Ok(())
    }

    /// Sends an order of so many operations.
    fn post(&self, state: &mut State, count: usize) {
        state.sequence = state.sequence.wrapping_add(1);
        let good = state.good();
        self.memory.u32(request::ANSWER).store(good | (good | 1) << 8, Ordering::Relaxed);
        self.memory.u32(request::COUNT).store(count as u32, Ordering::Relaxed);
        self.memory.u32(request::SENTRY_SLEEPS).store(1, Ordering::Relaxed);
        let number = self.memory.u32(request::SEQUENCE);
        number.store(state.sequence, Ordering::SeqCst);
        futex_wake(number);
    }

    /// Waits for the answer to the last order: whether all went well.
    fn answer(&self, state: &State) -> Result<bool, Failed> {
        let (good, before) = (state.good(), state.good_before());
        loop {
            let ack = self.ack().load(Ordering::Acquire);
            if ack & request::ACK_DEAD != 0 {
                return Err(Failed::Ended);
            }
            if ack & !1 == good {
                return Ok(ack == good);
            }
            if ack & !1 != before {
                // Nothing else is ever written there.
                return Err(Failed::Ended);
            }
            futex_wait(self.ack(), ack);
        }
    }
}

impl State {
    /// What the agent writes when it has carried out the last order and all went well.
    fn good(&self) -> u32 {
        (self.sequence & 0x7f) << 1
    }
    fn good_before(&self) -> u32 {
        (self.sequence.wrapping_sub(1) & 0x7f) << 1
    }
}

fn result(areas: &SharedMemory, index: usize) -> u64 {
    areas.u64(agent::RESULTS + 8 * index).load(Ordering::Relaxed)
}

fn send(socket: &OwnedFd, files: &[BorrowedFd<'_>]) -> Result<(), Failed> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(agent::MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Failed::Errno(libc::EMFILE));
    }
    loop {
        let sent = rustix::net::sendmsg(socket, &[io::IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL);
        match sent {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(Failed::Ended),
            Err(e) => return Err(Failed::Errno(e.raw_os_error())),
        }
    }
}

impl Dowry {
    /// The descriptors in the order in which a forked stub expects them.
    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 3] {
        [self.socket.as_fd(), self.request.as_fd(), self.areas.as_fd()]
    }
}

/// The operation that forks the stub.
pub(crate) fn fork() -> Operation {
    Operation::special(special::FORK, [0; 3])
}

/// The operation that makes a guest thread with the area of that number.
pub(crate) fn thread(index: usize) -> Operation {
    Operation::special(special::THREAD, [THREAD_FLAGS, AREAS + (index * AREA_LEN) as u64, 0])
}
