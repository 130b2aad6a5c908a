//! The Sentry: Quicksand's kernel. It answers every system call of the programs in a sandbox.
//!
//! Where to look, by Linux's names:
//!
//! - [`kernel`]: the top object, containers, boot. [`task`]: tasks, thread groups, the task loop, fork, exec, exit, wait.
//! - [`signal`]: queues, delivery, frames. [`mm`]: VMAs and everything `mmap(2)`. [`loader`]: ELF, `#!`, the first stack.
//! - [`vfs`]: inodes, dentries, mounts, open files, path walks. [`fs`]: one file system per directory.
//! - [`ipc`]: System V shared memory, semaphores, message queues.
//! - [`net`]: sockets. [`time`]: clocks and timers. [`syscalls`]: the one table that lists every call, and `--strace`.
//! - [`sync`]: locks with levels, wait queues. [`state`]: records of all objects, and identity.
//! - [`entry`]: the moment at which a function is ready.
//!
//! Three rules hold everywhere. The platform owns pages, the Sentry owns VMAs. A blocked task is data, not a stack:
//! a handler returns [`syscalls::Blocked`] and is called again. Guest memory is an allegation: it is reached only
//! through [`mm::MemoryManager`], and anything read from it twice may differ.
#![forbid(unsafe_code)]

pub mod boot;
pub mod entry;
pub mod fs;
pub mod host_poll;
pub mod ipc;
pub mod kernel;
pub mod loader;
pub mod machine;
pub mod mm;
pub mod net;
pub mod signal;
pub mod state;
pub mod sync;
pub mod syscalls;
pub mod task;
pub mod time;
pub mod vfs;
