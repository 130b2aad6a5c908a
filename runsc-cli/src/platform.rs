//! Which platform runs a sandbox's code. It is chosen by the command, which still has the host's files in sight, and made
//! in the sandbox process.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use quicksand_platform::Platform;
use quicksand_platform_kvm::KvmPlatform;
use quicksand_platform_systrap::SystrapPlatform;

use crate::cli::PlatformName;
use crate::costs;
use crate::error::{Context, Error, Result};

/// A platform that was chosen, with what it needs of the host.
#[derive(Debug)]
pub enum Chosen {
    /// An open `/dev/kvm`.
    Kvm(OwnedFd),
    Systrap,
}

impl Chosen {
    /// What `--platform` asks for.
    pub fn by_name(name: PlatformName) -> Result<Chosen> {
        match name {
            PlatformName::Kvm => Ok(Chosen::Kvm(open_kvm()?)),
            PlatformName::Systrap => Ok(Chosen::Systrap),
            PlatformName::Auto => Ok(Chosen::best()),
        }
    }

    /// The one whose system calls cost less here.
    fn best() -> Chosen {
        match (costs::remembered().prefers_kvm(), open_kvm()) {
            (true, Ok(device)) => Chosen::Kvm(device),
            _ => Chosen::Systrap,
        }
    }

    /// How many tasks of the host's a sandbox may need that runs `limit` of its own; the kernel in it counts those itself.
    /// As in a spec, nothing above zero means no limit.
    pub fn host_tasks(&self, limit: i64) -> i64 {
        match self {
            // A process of the host's for each of a guest's, with an agent, and a thread for each thread.
            Chosen::Systrap if limit > 0 => limit.saturating_mul(3).saturating_add(32),
            _ => limit,
        }
    }

    /// The descriptors that it needs.
    pub fn descriptors(&self) -> Vec<i32> {
        match self {
            Chosen::Kvm(device) => vec![device.as_raw_fd()],
            Chosen::Systrap => Vec::new(),
        }
    }

    /// Makes it. To be called by the sandbox process's main thread when that has given up its rights, but before it
    /// has a system call filter and other threads: systrap's processes are forks of it.
    pub fn make(&self) -> Result<Arc<dyn Platform>> {
        let starting = "starting the platform";
        Ok(match self {
            Chosen::Kvm(device) => Arc::new(
                KvmPlatform::new(Some(device.try_clone().context("a descriptor")?)).context(starting)?,
            ),
            Chosen::Systrap => Arc::new(SystrapPlatform::new().context(starting)?),
        })
    }
}

fn open_kvm() -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        Error::new(format!("/dev/kvm cannot be opened ({e}); `quicksand doctor` says what to do about it; --platform=systrap needs none"))
    })
}
