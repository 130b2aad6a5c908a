//! File systems, one per module.

pub mod anon;
pub mod dev;
pub mod pseudo;
pub mod sys;
pub mod tty;
