//! What a system call costs on each platform: `--platform=auto` measures it once on a host, and remembers it in `/run` (an
//! ordinary user's in `$XDG_RUNTIME_DIR`) for as long as kernel and processor stay the same.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_host::process::{Namespaces, spawn};
use quicksand_platform::{Backing, Exit, Platform, PlatformError, Prot, Registers};
use quicksand_platform_kvm::KvmPlatform;
use quicksand_platform_systrap::SystrapPlatform;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::fail;

/// What one system call costs on each platform, in microseconds; `None` where it cannot run here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Costs {
    /// The kernel and processor that this was measured on.
    host: String,
    pub kvm_us: Option<f64>,
    pub systrap_us: Option<f64>,
}

impl Costs {
    /// KVM is the cheaper one of those that there are.
    pub fn prefers_kvm(&self) -> bool {
        match (self.kvm_us, self.systrap_us) {
            (Some(kvm), Some(systrap)) => kvm < systrap,
            (kvm, None) => kvm.is_some(),
            (None, Some(_)) => false,
        }
    }
}

/// What was measured before on this host, or now.
pub fn remembered() -> Costs {
    remembered_in(file().as_deref())
}

fn remembered_in(file: Option<&Path>) -> Costs {
    let host = host();
    if let Some(costs) = file.and_then(read).filter(|costs| costs.host == host) {
        return costs;
    }
    let costs = match measure() {
        Ok(costs) => Costs { host, ..costs },
        Err(e) => {
            tracing::warn!("what platforms cost could not be measured: {e}");
            return Costs::default();
        }
    };
    if let Some(file) = file
        && let Err(e) = write(file, &costs)
    {
        tracing::debug!("what platforms cost is not remembered: {e}");
    }
    costs
}

/// It is the host's, whatever `--root` is.
fn file() -> Option<PathBuf> {
    let dir = match rustix::process::geteuid().is_root() {
        true => PathBuf::from("/run"),
        false => std::env::var_os("XDG_RUNTIME_DIR")?.into(),
    };
    Some(dir.join("quicksand-platforms.json"))
}

fn read(file: &Path) -> Option<Costs> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn write(file: &Path, costs: &Costs) -> Result<()> {
    let new = file.with_extension(format!("json.{}", std::process::id()));
    let text = serde_json::to_vec(costs).context("costs")?;
    fs::write(&new, text).and_then(|()| fs::rename(&new, file)).context(file.display())
}

/// The kernel's release and build, the processor's model, and whether KVM may be used.
fn host() -> String {
    use rustix::fs::Access;
    let name = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let kvm = rustix::fs::access("/dev/kvm", Access::READ_OK | Access::WRITE_OK).is_ok();
    format!("{} {} {model} kvm {kvm}", name.release().to_string_lossy(), name.version().to_string_lossy())
}

/// Measures in a process of its own: platforms start threads and leave signal handlers behind.
fn measure() -> Result<Costs> {
    let (mut near, far) = std::os::unix::net::UnixStream::pair().context("a socket pair")?;
    let keep = [far.as_raw_fd()];
    let child = spawn(Namespaces::empty(), None, &keep, move || {
        let cost = |platform: std::result::Result<Arc<dyn Platform>, PlatformError>| {
            platform.and_then(|platform| syscall_us(&*platform)).map_err(|e| tracing::debug!("{e}")).ok()
        };
        let costs = Costs {
            host: String::new(),
            kvm_us: cost(KvmPlatform::new(None).map(|p| Arc::new(p) as Arc<dyn Platform>)),
            systrap_us: cost(SystrapPlatform::new().map(|p| Arc::new(p) as Arc<dyn Platform>)),
        };
        let sent = serde_json::to_writer(&far, &costs);
        u8::from(sent.is_err())
    })
    .context("a process that measures")?;
    let mut text = Vec::new();
    let read = std::io::Read::read_to_end(&mut near, &mut text);
    crate::launch::wait(&child);
    read.context("what platforms cost")?;
    if text.is_empty() {
        fail!("measuring the platforms failed");
    }
    serde_json::from_slice(&text).context("what platforms cost")
}

/// The median of some system calls, in microseconds.
fn syscall_us(platform: &dyn Platform) -> std::result::Result<f64, PlatformError> {
    const TEXT: u64 = 0x40_0000;
    const ROUNDS: usize = 61;
    // xor %eax, %eax; mov $39, %al; syscall; jmp to the start: no place that a platform could patch.
    const CODE: [u8; 8] = [0x31, 0xc0, 0xb0, 39, 0x0f, 0x05, 0xeb, 0xf8];
    let failed = |what| PlatformError::Exhausted { platform: platform.name(), what };
    let space = platform.address_space()?;
    let mut context = platform.context()?;
    let range = UserRange::new(UserAddr(TEXT), 4096).ok_or(failed("addresses"))?;
    space.map(range, Prot::RX, Backing::Anonymous).map_err(|_| failed("memory"))?;
    space.write_forced(UserAddr(TEXT), &CODE).map_err(|_| failed("memory"))?;
    let mut regs = Registers { rip: TEXT, ..Registers::default() };
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        if context.run(&space, &mut regs)? != Exit::Syscall {
            return Err(failed("system calls"));
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_one_that_is_there() {
        let costs = |kvm_us, systrap_us| Costs { host: String::new(), kvm_us, systrap_us };
        assert!(costs(Some(1.0), Some(2.0)).prefers_kvm());
        assert!(!costs(Some(50.0), Some(5.0)).prefers_kvm());
        assert!(costs(Some(50.0), None).prefers_kvm());
        assert!(!costs(None, Some(5.0)).prefers_kvm());
        assert!(!costs(None, None).prefers_kvm());
    }

    #[test]
    fn what_was_measured_is_remembered_for_this_host() {
        let file = std::env::temp_dir().join(format!("quicksand-costs-{}.json", std::process::id()));
        let costs = Costs { host: host(), kvm_us: Some(1.5), systrap_us: None };
        write(&file, &costs).unwrap();
        assert_eq!(remembered_in(Some(&file)), costs);
        fs::remove_file(&file).unwrap();
    }
}
