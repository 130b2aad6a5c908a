//! The file server of a container's root, and what it shares with the Sentry.
//!
//! - [`hostfs`] is every operation on the host's files that is ever made on a guest's behalf. With `directfs` the Sentry
//!   calls it itself; otherwise a gofer process does.
//! - [`server`] is that process. [`protocol`] and [`wire`] are how it is asked.
#![forbid(unsafe_code)]

pub mod hostfs;
pub mod protocol;
pub mod server;
pub mod wire;
