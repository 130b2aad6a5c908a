//! Where things are: the stub's own range of the address space, and the fields of the pages that the Sentry and a stub
//! share. The assembly of `stub.rs` and the Sentry's side both take every number from here.
//!
//! The range `STUB_START..STUB_END` is above anything that a guest can map. In it, from below:
//!
//! - the *image*: code and constants, readable and executable, never writable;
//! - the *globals*: one page, read-only here, the same in all stubs of a platform, written by the Sentry;
//! - the *records*: one page of what the entries for patched system calls need to know; private and writable like guest memory;
//! - the *request pages*, read-only here, of this stub alone: what the agent is to do, written by the Sentry;
//! - the *areas*, readable and writable for everybody: one for the agent, some for its results, one per guest thread. What
//!   stands there is an allegation by the guest.

use quicksand_abi::UserAddr;

pub(crate) const STUB_START: u64 = UserAddr::MAP_END.0;
pub(crate) const STUB_END: u64 = UserAddr::TASK_SIZE.0;

pub(crate) const IMAGE: u64 = STUB_START;
pub(crate) const IMAGE_LEN: usize = 0x4000;
/// Constants begin here, after the code.
pub(crate) const CONSTANTS_OFFSET: usize = 0x3000;
pub(crate) const CONSTANTS: u64 = IMAGE + CONSTANTS_OFFSET as u64;

/// Before them, the entries for patched system calls, one a slot.
pub(crate) const SLOTS_OFFSET: usize = 0x2000;
pub(crate) const SLOTS: u64 = IMAGE + SLOTS_OFFSET as u64;
pub(crate) const SLOT_LEN: usize = 32;
/// How many there are; the first are for sites that load the call's number.
pub(crate) const SLOTS_COUNT: usize = 128;
pub(crate) const NUMBER_SLOTS: usize = 112;

pub(crate) const GLOBALS: u64 = STUB_START + 0x1_0000;
pub(crate) const GLOBALS_LEN: usize = 0x1000;
pub(crate) const REQUEST: u64 = STUB_START + 0x2_0000;
pub(crate) const REQUEST_LEN: usize = 0x4000;
/// Of each slot: where the call returns to, and the call's number.
pub(crate) const RECORDS: u64 = STUB_START + 0x3_0000;
pub(crate) const RECORDS_LEN: usize = 0x1000;
pub(crate) const RECORD_LEN: usize = 16;

/// The table: the slots' addresses, then the descriptors of guest threads. The third byte of any address in it is no
/// instruction in 64-bit mode (`push %es`), which is what makes a jump into the middle of a patched site recognisable.
pub(crate) const TABLE: u64 = 0x6_0000;
pub(crate) const TABLE_LEN: usize = 0x4000;
/// Of the table, the first `user_desc` of `set_thread_area(2)`, one for each area; threads in later areas have none.
pub(crate) const DESCRIPTORS: usize = 0x400;
pub(crate) const DESCRIPTOR_LEN: usize = 16;
pub(crate) const DESCRIPTORS_COUNT: usize = (TABLE_LEN - DESCRIPTORS) / DESCRIPTOR_LEN;
/// Which of a thread's three descriptors it is, on x86-64, and its selector. Its limit says which area is the thread's.
pub(crate) const DESCRIPTOR_ENTRY: u32 = 12;
pub(crate) const SELECTOR: u32 = DESCRIPTOR_ENTRY << 3 | 3;

/// An area's size; also the alignment by which the handler finds its own. A signal frame with all of a large processor's
/// state fits in.
pub(crate) const AREA_LEN: usize = 0x8000;
pub(crate) const MAX_AREAS: usize = 16384;
pub(crate) const AREAS: u64 = STUB_START + 0x1000_0000;
pub(crate) const AREAS_LEN: usize = MAX_AREAS * AREA_LEN;
/// Of each area, where the alternate signal stack begins.
pub(crate) const STACK: usize = 0x1000;
/// The agent's area is the first. Bulk results (`mincore`) are in those after it; guest threads have the rest.
pub(crate) const BULK_OFFSET: usize = AREA_LEN;
pub(crate) const BULK_LEN: usize = 2 * AREA_LEN;
pub(crate) const FIRST_THREAD_AREA: usize = 3;

/// Fields of a guest thread's area.
pub(crate) mod area {
    /// Who runs: see the constants of [`super::state`]. A futex.
    pub(crate) const STATE: usize = 0x00;
    /// Not zero while the Sentry sleeps on `STATE`.
    pub(crate) const SENTRY_SLEEPS: usize = 0x40;
    /// Not zero while the stub's thread sleeps on `STATE`.
    pub(crate) const STUB_SLEEPS: usize = 0x80;
    /// The signal that stopped it; 0: none, it has made a patched call, and its registers are in `REGISTERS`.
    pub(crate) const SIGNAL: usize = 0xc0;
    /// Where its `ucontext` is.
    pub(crate) const FRAME: usize = 0xc8;
    pub(crate) const FS_BASE: usize = 0xd0;
    pub(crate) const GS_BASE: usize = 0xd8;
    /// How many cycles of the time stamp counter the thread looks out for the Sentry before it sleeps.
    pub(crate) const SPIN_CYCLES: usize = 0xe0;
    /// A `stack_t`: the alternate stack, for a thread that starts.
    pub(crate) const ALT_STACK: usize = 0x100;
    /// An errand: the number of a system call and its six arguments; then what it returned.
    pub(crate) const ERRAND: usize = 0x300;
    pub(crate) const ERRAND_RESULT: usize = 0x338;
    /// The registers of a patched call, in the order of [`super::register`].
    pub(crate) const REGISTERS: usize = 0x140;
    /// Not zero: the next patched call is not to be answered by the stub.
    pub(crate) const FORCE: usize = 0x1d8;
    /// Answers that the stub may give by itself, by the index that the image has for a number: valid with the highest bit set.
    pub(crate) const ANSWERS: usize = 0x200;
    /// Where the entry of a patched call puts the stack pointer and the flags until it has registers to spare: at a place that
    /// depends on the slot.
    pub(crate) const ZONE: usize = 0x600;
}

/// Indices in [`area::REGISTERS`], as in a `sigcontext`.
pub(crate) mod register {
    pub(crate) const R8: usize = 0;
    pub(crate) const R9: usize = 1;
    pub(crate) const R10: usize = 2;
    pub(crate) const R12: usize = 4;
    pub(crate) const R13: usize = 5;
    pub(crate) const R14: usize = 6;
    pub(crate) const R15: usize = 7;
    pub(crate) const RDI: usize = 8;
    pub(crate) const RSI: usize = 9;
    pub(crate) const RBP: usize = 10;
    pub(crate) const RBX: usize = 11;
    pub(crate) const RDX: usize = 12;
    pub(crate) const RAX: usize = 13;
    pub(crate) const RSP: usize = 15;
    pub(crate) const RIP: usize = 16;
    pub(crate) const EFLAGS: usize = 17;
}

/// Values of an area's state word.
pub(crate) mod state {
    /// The guest runs, or is about to.
    pub(crate) const GUEST: u32 = 0;
    /// It has stopped, and waits for the Sentry.
    pub(crate) const EVENT: u32 = 1;
    /// The stub has ended. Final.
    pub(crate) const DEAD: u32 = 2;
    /// It is to run the errand in its area, and then be in `EVENT` again.
    pub(crate) const ERRAND: u32 = 3;
    /// After a patched call: the thread is to take a signal, so that there is a frame with its extended state.
    pub(crate) const TAKE_SIGNAL: u32 = 4;
}

/// Fields of the request pages.
pub(crate) mod request {
    /// Counts requests. A futex, on which the agent waits.
    pub(crate) const SEQUENCE: usize = 0x00;
    /// Its lowest byte is written by the agent when it is done, through a descriptor: guest code cannot. A futex.
    pub(crate) const ACK: usize = 0x40;
    /// Set by the Sentry in `ACK` when the stub has ended.
    pub(crate) const ACK_DEAD: u32 = 0x100;
    pub(crate) const SENTRY_SLEEPS: usize = 0x80;
    /// How many operations there are.
    pub(crate) const COUNT: usize = 0x84;
    /// What the agent is to write to `ACK`: at `ANSWER` if all operations did well, else the byte after it.
    pub(crate) const ANSWER: usize = 0x88;
    /// A `msghdr` and its `iovec`, for descriptors to come.
    pub(crate) const MESSAGE_HEADER: usize = 0x100;
    pub(crate) const IO_VECTOR: usize = 0x140;
    pub(crate) const OPERATIONS: usize = 0x200;
    /// Of an operation: its number, six arguments, and `FLAGS`.
    pub(crate) const OPERATION_LEN: usize = 64;
    pub(crate) const FLAGS: usize = 56;
    /// A failure of this one does not count.
    pub(crate) const MAY_FAIL: u64 = 1;
    pub(crate) const MAX_OPERATIONS: usize = (super::REQUEST_LEN - OPERATIONS) / OPERATION_LEN;
}

/// Offsets in the agent's area: the results of operations, then where a received message and its control data go.
pub(crate) mod agent {
    pub(crate) const RESULTS: usize = 0;
    pub(crate) const MESSAGE: usize = 0xc00;
    pub(crate) const CONTROL: usize = 0xc40;
    /// Room for a header and as many descriptors as one order may come with.
    pub(crate) const CONTROL_LEN: usize = 16 + 4 * MAX_FILES;
    pub(crate) const MAX_FILES: usize = 40;
    /// A `struct rusage`, and in it the field that is asked for.
    pub(crate) const USAGE: usize = 0xd00;
    pub(crate) const MAX_RSS: usize = USAGE + std::mem::offset_of!(libc::rusage, ru_maxrss);
}

/// Fields of the globals.
pub(crate) mod globals {
    /// The Sentry's process id, as its stubs see it.
    pub(crate) const SENTRY_PID: usize = 0x00;
    /// The processors that guest threads may run on, as `sched_setaffinity(2)` takes them.
    pub(crate) const PROCESSORS: usize = 0x100;
    pub(crate) const PROCESSORS_LEN: usize = 128;
}

/// Operations of the agent that are no system call.
pub(crate) mod special {
    pub(crate) const FIRST: u64 = 0x1000;
    /// Makes a guest thread with the clone flags and in the area given.
    pub(crate) const THREAD: u64 = 0x1000;
    /// Forks the stub.
    pub(crate) const FORK: u64 = 0x1001;
    /// Compares and exchanges a 32-bit word: address, expected, new.
    pub(crate) const COMPARE_EXCHANGE: u64 = 0x1002;
    /// Stores a byte: address, value.
    pub(crate) const STORE: u64 = 0x1003;
}

/// Descriptors of a stub: its socket and its request pages. What it receives gets the next numbers.
pub(crate) const SOCKET_FD: i32 = 0;
pub(crate) const REQUEST_FD: i32 = 1;
pub(crate) const RECEIVED_FD: i32 = 2;

/// Offsets in the constants.
pub(crate) mod constants {
    /// A signal mask with everything in it.
    pub(crate) const ALL_SIGNALS: usize = 0x00;
    /// The agent's: all but the faults that its copies may meet.
    pub(crate) const AGENT_SIGNALS: usize = 0x08;
    /// The agent's alternate stack, a `stack_t`.
    pub(crate) const AGENT_STACK: usize = 0x10;
    /// Not zero: the host has 32-bit system calls.
    pub(crate) const COMPAT_CALLS: usize = 0x38;
    /// Two `sock_fprog`.
    pub(crate) const AGENT_FILTER: usize = 0x40;
    pub(crate) const GUEST_FILTER: usize = 0x50;
    /// An XSAVE area with everything in its initial state.
    pub(crate) const CLEAN_STATE: usize = 0x80;
    /// For each number below 256, which of an area's answers is its; 0: none.
    pub(crate) const ANSWER_INDEX: usize = 0x300;
    pub(crate) const PROGRAMS: usize = 0x400;
}

/// `mov 8(%rsp), %r9`: what the C libraries' `syscall(3)` does before its instruction, and so do its slots.
pub(crate) const STACK_ARGUMENT: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];

/// Calls whose answer the Sentry may leave with the stub.
pub(crate) const ANSWERED: [libc::c_long; 7] = [
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// The signal that gets a guest thread out.
pub const KICK_SIGNAL: i32 = libc::SIGURG;

pub(crate) const THREAD_FLAGS: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;
/// The child is the Sentry's, as its maker is. It sends no signal when it ends.
pub(crate) const FORK_FLAGS: u64 = libc::CLONE_PARENT as u64;
