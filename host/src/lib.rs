//! Safe wrappers over the host system calls that no library covers. With the platforms, the only place of `unsafe`: each
//! function here is small, and states in its own terms what makes it safe to call with any arguments.

pub mod cpu;
pub mod fs;
pub mod mount;
pub mod process;
pub mod signal;
pub mod socket;
mod thread_clock;
pub mod tsc;
pub mod tty;

pub use thread_clock::thread_cpu_ns;
