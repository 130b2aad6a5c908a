//! Checkpoint and restore: kernel objects as records, guest memory as pages.
//!
//! - [`records`]: what is stored of each kind of object. [`sink`]: where a checkpoint goes.
//! - [`save`]: from a stopped kernel to records; [`save_files`] for what descriptors lead to; [`memory`] for pages.
//! - `processes`, `ipc`, `sockets`, `terminals`: objects of one kind, both ways.
//! - [`restore`]: from an image to a container that runs on. `identity`: what must differ between copies of one image.
//!
//! Invariants:
//! - A checkpoint looks at a kernel in which every task waits at the quiesce barrier, and changes nothing in it.
//! - What cannot be stored refuses the checkpoint, by name ([`SaveError::Unsupported`]); nothing is left out silently.
//! - An image is hostile: a restore trusts no number in it, and fails with an error that says which record was wrong.

mod identity;
mod ipc;
mod lambda;
pub mod memory;
mod moved;
mod processes;
pub mod records;
pub mod restore;
mod restore_files;
pub mod save;
mod save_files;
pub mod sink;
mod sockets;
mod stages;
mod terminals;
mod trees;

pub use restore::{RestoreConfig, RestoreError, Restored};
pub use save::{SaveError, SaveOptions, Saved};
pub use sink::ImageSink;
