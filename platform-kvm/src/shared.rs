//! What all address spaces and contexts of one platform share: the VM and its window, the supervisor's tables, open
//! backing files, and counters.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quicksand_abi::Errno;

use crate::cpuid::Cpu;
use crate::entry::Supervisor;
use crate::frames::Frames;
use crate::pool::VcpuPool;
use crate::segments::HostFile;
use crate::space::errno;
use crate::sys::KvmFd;
use crate::window::Window;

/// Everything behind a [`crate::KvmPlatform`].
#[derive(Debug)]
pub(crate) struct Shared {
    // vCPUs go before the VM and the memory they run in.
    pub(crate) vcpus: VcpuPool,
    pub(crate) supervisor: Supervisor,
    pub(crate) frames: Frames,
    pub(crate) files: Files,
    pub(crate) counters: Counters,
    pub(crate) cpu: Cpu,
    pub(crate) window: Window,
    /// For the VM of a forked Sentry, which may not open `/dev/kvm` any more.
    pub(crate) kvm: KvmFd,
}

/// Backing files by identity, so that a hundred mappings of a library hold one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<FileKey, Weak<HostFile>>>,
}

/// Device, inode, and the access mode, which decides what mappings a descriptor allows.
type FileKey = (u64, u64, u32);

impl Files {
    pub(crate) fn get(&self, fd: BorrowedFd<'_>) -> Result<Arc<HostFile>, Errno> {
        let stat = rustix::fs::fstat(fd).map_err(errno)?;
        let flags = rustix::fs::fcntl_getfl(fd).map_err(errno)?;
        let key = (stat.st_dev, stat.st_ino, (flags & rustix::fs::OFlags::RWMODE).bits());
        let mut open = self.open.lock();
        if let Some(file) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(errno)?;
        let file = Arc::new(HostFile { fd, regular });
        if open.len() >= 64 && open.len().is_power_of_two() {
            open.retain(|_, file| file.strong_count() > 0);
        }
        open.insert(key, Arc::downgrade(&file));
        Ok(file)
    }
}

/// Events since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syscalls: AtomicU64,
    pub(crate) syscall_faults: AtomicU64,
    pub(crate) faults_resolved: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) traps: AtomicU64,
    pub(crate) kicks: AtomicU64,
    pub(crate) host_faults: AtomicU64,
    pub(crate) fills: AtomicU64,
    pub(crate) cow_copies: AtomicU64,
    pub(crate) forks: AtomicU64,
    pub(crate) vcpus: AtomicU64,
    pub(crate) vcpu_steals: AtomicU64,
}

impl Shared {
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let c = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("exit_syscall", get(&c.syscalls)),
            ("exit_syscall_by_fault", get(&c.syscall_faults)),
            ("exit_fault", get(&c.faults)),
            ("exit_fault_resolved", get(&c.faults_resolved)),
            ("exit_trap", get(&c.traps)),
            ("exit_kick", get(&c.kicks)),
            ("exit_host_fault", get(&c.host_faults)),
            ("table_fills", get(&c.fills)),
            ("cow_copies", get(&c.cow_copies)),
            ("forks", get(&c.forks)),
            ("vcpus", get(&c.vcpus)),
            ("vcpu_steals", get(&c.vcpu_steals)),
            ("revoked_runs", get(&self.window.revoked_runs)),
            ("full_flushes", get(&self.window.flushes)),
            ("window_backed_bytes", self.window.backed_bytes()),
            ("window_used_bytes", self.window.used_bytes()),
        ]
    }
}
