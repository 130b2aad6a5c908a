//! Linux's user-space ABI for x86-64: errnos, user addresses, flags and structures. No logic.
//!
//! Everything here is what a guest program can see, laid out as the kernel's UAPI headers say. Structures derive
//! `zerocopy` traits so that they can be copied to and from guest memory without `unsafe`. Constants that `libc`
//! already has are taken from there under their Linux names.
#![forbid(unsafe_code)]

mod addr;
pub mod elf;
mod errno;
pub mod fs;
pub mod netlink;
pub mod poll;
pub mod signal;
pub mod socket;
pub mod task;
pub mod time;
pub mod tty;

pub use addr::{PAGE_SIZE, UserAddr, UserRange};
pub use errno::Errno;
pub use signal::SigInfo;
pub use time::{Timespec, Timeval};
