//! The KVM platform: guest code runs in ring 3 of a virtual machine whose ring 0 is a few instructions that leave at once.
//!
//! - One VM per sandbox. Guest-physical memory is a *window* of the Sentry's address space (`window.rs`), so the Sentry
//!   reads and writes guest memory directly (`access.rs`, `copy.rs`).
//! - An address space is a guest page table, filled ahead from the segments that the Sentry mapped (`space.rs`,
//!   `segments.rs`, `page_table.rs`). The host kernel pages on demand behind it. Guest `fork` shares frames
//!   (`frames.rs`) and copies them on write (`cow.rs`).
//! - A context borrows a vCPU (`context.rs`, `pool.rs`, `vcpu.rs`); ring 0 is in `entry.rs`.
//!
//! It must be right on KVM with hardware virtualisation and on nested KVM without. The two differ in how SYSCALL
//! arrives (`vcpu.rs`), in whose page tables the processor walks (`Window::revoke`), and in whether CPUID can be filtered
//! (`cpuid.rs`); which one it is shows in the CPU state, and what works on both is done on both.

mod access;
mod context;
mod copy;
mod cow;
mod cpuid;
mod entry;
mod fpu;
mod frames;
mod page_table;
mod pool;
mod probe;
mod segments;
mod shared;
mod space;
mod sys;
mod vcpu;
mod window;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_MAX_VCPUS, KVM_CAP_NR_MEMSLOTS, KVM_CAP_SYNC_REGS,
    KVM_CAP_VCPU_ATTRIBUTES, KVM_CAP_XSAVE, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
};
use quicksand_platform::{AddressSpace, Context, Platform, PlatformError};

pub use probe::{ProbeReport, probe};

use context::KvmContext;
use cpuid::Cpu;
use entry::Supervisor;
use shared::Shared;
use space::KvmSpace;
use sys::{KvmFd, VmFd};
use window::Window;

const NAME: &str = "kvm";
const API_VERSION: usize = 12;

pub(crate) fn host_error(what: &'static str, source: io::Error) -> PlatformError {
    PlatformError::Host { platform: NAME, what, source }
}

fn unavailable(reason: impl Into<String>) -> PlatformError {
    PlatformError::Unavailable { platform: NAME, reason: reason.into() }
}

/// One sandbox's virtual machine.
#[derive(Debug)]
pub struct KvmPlatform {
    shared: Arc<Shared>,
}

/// Opens `/dev/kvm`, or says in one line what to do.
fn open_device() -> Result<OwnedFd, PlatformError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOENT => unavailable(
            "/dev/kvm does not exist; load the kvm module (kvm_intel or kvm_amd), or use another platform",
        ),
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => unavailable(
            "/dev/kvm may not be opened; add this user to the group that owns it, or use another platform",
        ),
        e => unavailable(format!("/dev/kvm cannot be opened ({e}); use another platform")),
    })
}

fn create_vm(kvm: &KvmFd) -> Result<VmFd, PlatformError> {
    let vm = kvm.create_vm().map_err(|e| host_error("KVM_CREATE_VM", e))?;
    // Where page tables are shadowed, KVM sizes its cache by the memory that the VM has, which here grows.
    const SHADOW_TABLES: usize = 64 << 10;
    vm.set_nr_mmu_pages(SHADOW_TABLES).map_err(|e| host_error("KVM_SET_NR_MMU_PAGES", e))?;
    Ok(vm)
}

impl KvmPlatform {
    /// A new virtual machine, on `device` (an open `/dev/kvm`) or one opened here.
    pub fn new(device: Option<OwnedFd>) -> Result<KvmPlatform, PlatformError> {
        let kvm = KvmFd(match device {
            Some(device) => device,
            None => open_device()?,
        });
        match kvm.api_version() {
            Ok(API_VERSION) => {}
            Ok(version) => return Err(unavailable(format!("/dev/kvm has API version {version}, not 12"))),
            Err(e) => return Err(unavailable(format!("the descriptor given is not /dev/kvm ({e})"))),
        }
        let sync = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS) as usize;
        if kvm.check_extension(KVM_CAP_SYNC_REGS) & sync != sync
            || kvm.check_extension(KVM_CAP_IMMEDIATE_EXIT) == 0
            || kvm.check_extension(KVM_CAP_XSAVE) == 0
        {
            return Err(unavailable("the host's KVM is too old: Linux 4.17 or later is needed"));
        }
        copy::install_handler();
        let cpu = Cpu::new(
            kvm.supported_cpuid().map_err(|e| host_error("KVM_GET_SUPPORTED_CPUID", e))?,
            kvm.check_extension(KVM_CAP_VCPU_ATTRIBUTES) != 0,
        );
        let vm = create_vm(&kvm)?;
        let mmap_size = kvm.vcpu_mmap_size().map_err(|e| host_error("KVM_GET_VCPU_MMAP_SIZE", e))?;

        let slots = kvm.check_extension(KVM_CAP_NR_MEMSLOTS) as u32;
        let window = Window::new(vm, cpu.physical_bits, slots)?;
        let supervisor = Supervisor::new(&window)?;
        let max_vcpus = kvm.check_extension(KVM_CAP_MAX_VCPUS).max(1);
        Ok(KvmPlatform {
            shared: Arc::new(Shared {
                vcpus: pool::VcpuPool::new(max_vcpus, mmap_size),
                supervisor,
                frames: frames::Frames::default(),
                files: shared::Files::default(),
                counters: shared::Counters::default(),
                cpu,
                window,
                kvm,
            }),
        })
    }
}

impl Platform for KvmPlatform {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(KvmSpace::new(&self.shared)?))
    }

    fn context(&self) -> Result<Box<dyn Context>, PlatformError> {
        Ok(Box::new(KvmContext::new(&self.shared)))
    }

    fn extended_state_len(&self) -> usize {
        self.shared.cpu.xsave_len
    }

    fn xcr0(&self) -> u64 {
        self.shared.cpu.xcr0
    }

    fn guest_tsc_offset(&self) -> Option<i64> {
        // Each vCPU is given the host's counter (`Vcpu::new`). Exactly that only where it can be said so.
        self.shared.cpu.exact_tsc.then_some(0)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters()
    }

    fn before_sentry_fork(&self) -> Result<(), PlatformError> {
        self.shared.vcpus.evict_all()
    }

    fn after_sentry_fork_in_child(&self) -> Result<(), PlatformError> {
        // A VM works for the process that made it only. Guest page tables are memory like any other and came along.
        self.shared.vcpus.disown();
        self.shared.window.replace_vm(create_vm(&self.shared.kvm)?)
    }
}
