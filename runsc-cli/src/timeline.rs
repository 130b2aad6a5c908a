//! `--timeline-fd`: milestones of a start, as JSON lines, for whoever measures us.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Context, Result};

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Where milestones are written; nowhere, usually.
#[derive(Debug, Default)]
pub struct Timeline(Option<File>);

impl Timeline {
    /// Takes over descriptor `fd`, which whoever started us left open.
    pub fn new(fd: Option<i32>) -> Result<Timeline> {
        let Some(fd) = fd else { return Ok(Timeline(None)) };
        // Opened anew rather than adopted, because a number on the command line is no proof that the descriptor is free.
        let path = format!("/proc/self/fd/{fd}");
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let file: OwnedFd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .context(format!("--timeline-fd {fd}"))?;
        Ok(Timeline(Some(file.into())))
    }
    pub fn event(&mut self, name: &str, t_ns: u64) {
        if let Some(file) = &mut self.0 {
            // Nobody to tell where the reader is gone.
            let _ = file.write_all(format!("{{\"event\":\"{name}\",\"t_ns\":{t_ns}}}\n").as_bytes());
        }
    }
    /// Another one that writes to the same place; nowhere where that fails.
    pub fn another(&self) -> Timeline {
        Timeline(self.0.as_ref().and_then(|file| file.try_clone().ok()))
    }
    pub fn is_watched(&self) -> bool {
        self.0.is_some()
    }
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|f| f.as_fd())
    }
}
