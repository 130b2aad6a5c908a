//! Answers left with the platform: who a task is. Such calls take no arguments, and a platform may answer them without coming here.
//!
//! Whoever changes one of these facts calls [`TaskAnswers::invalidate`] afterwards, before the change can be noticed by
//! any other way. They are given anew when the task next enters guest code. Under `--strace` none are: each call is to be seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use quicksand_platform::Answers;

use super::Task;
use crate::sync::{Level, Mutex};

/// Of one task.
pub(crate) struct TaskAnswers {
    platform: OnceLock<Arc<dyn Answers>>,
    /// Counts changes.
    version: Mutex<u64>,
    /// There are facts that the platform has not been given. Changes under `version`.
    stale: AtomicBool,
}

impl Default for TaskAnswers {
    fn default() -> TaskAnswers {
        TaskAnswers {
            platform: OnceLock::new(),
            version: Mutex::new(Level::Leaf, 0),
            stale: AtomicBool::new(false),
        }
    }
}

fn facts(task: &Task) -> [(libc::c_long, u64); 7] {
    let creds = task.creds();
    let number = |n: i32| n as u64;
    [
        (libc::SYS_getpid, number(task.group().pid())),
        (libc::SYS_gettid, number(task.tid())),
        (libc::SYS_getppid, number(task.pids().parent_pid(task.group()))),
        (libc::SYS_getuid, creds.ruid.into()),
        (libc::SYS_geteuid, creds.euid.into()),
        (libc::SYS_getgid, creds.rgid.into()),
        (libc::SYS_getegid, creds.egid.into()),
    ]
}

impl TaskAnswers {
    /// The task has a context that takes answers.
    pub(crate) fn set_platform(&self, platform: Arc<dyn Answers>) {
        // A task has one context for life.
        if self.platform.set(platform).is_ok() {
            self.stale.store(true, Ordering::SeqCst);
        }
    }

    /// A fact about the task has changed: no call that begins after this is given what was true before.
    pub(crate) fn invalidate(&self) {
        let Some(platform) = self.platform.get() else { return };
        let mut version = self.version.lock();
        *version += 1;
        self.stale.store(true, Ordering::SeqCst);
        for number in [
            libc::SYS_getpid,
            libc::SYS_gettid,
            libc::SYS_getppid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
        ] {
            platform.set(number as u64, None);
        }
    }

    /// Gives the platform what it has not been given.
    pub(crate) fn renew(&self, task: &Task) {
        if !self.stale.load(Ordering::Relaxed) || task.kernel().strace() {
            return;
        }
        let Some(platform) = self.platform.get() else { return };
        // The facts have locks of their own, under which they may just be changing.
        let before = *self.version.lock();
        let facts = facts(task);
        let version = self.version.lock();
        if *version == before {
            self.stale.store(false, Ordering::SeqCst);
            for (number, value) in facts {
                platform.set(number as u64, Some(value));
            }
        }
    }
}
