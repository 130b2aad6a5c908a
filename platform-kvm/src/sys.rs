//! `/dev/kvm` as it is: the ioctls that this crate needs, each a small function.
//!
//! Three file descriptors, as in the kernel's API document (`Documentation/virt/kvm/api.rst`): the system
//! ([`KvmFd`]), a virtual machine ([`VmFd`]) and a virtual processor ([`VcpuFd`]). Structures come from
//! `kvm-bindings`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_cpuid_entry2, kvm_debugregs, kvm_device_attr,
    kvm_msr_entry, kvm_run, kvm_sregs, kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcr, kvm_xcrs,
    kvm_xsave,
};

const fn io(nr: u64) -> u64 {
    ((KVMIO as u64) << 8) | nr
}
const fn ior(nr: u64, size: usize) -> u64 {
    (2 << 30) | ((size as u64) << 16) | io(nr)
}
const fn iow(nr: u64, size: usize) -> u64 {
    (1 << 30) | ((size as u64) << 16) | io(nr)
}
const fn iowr(nr: u64, size: usize) -> u64 {
    (3 << 30) | ((size as u64) << 16) | io(nr)
}

const KVM_GET_API_VERSION: u64 = io(0x00);
const KVM_CREATE_VM: u64 = io(0x01);
const KVM_CHECK_EXTENSION: u64 = io(0x03);
const KVM_GET_VCPU_MMAP_SIZE: u64 = io(0x04);
const KVM_GET_SUPPORTED_CPUID: u64 = iowr(0x05, 8);
const KVM_CREATE_VCPU: u64 = io(0x41);
const KVM_SET_NR_MMU_PAGES: u64 = io(0x44);
const KVM_SET_USER_MEMORY_REGION: u64 = iow(0x46, size_of::<kvm_userspace_memory_region>());
const KVM_RUN: u64 = io(0x80);
const KVM_GET_SREGS: u64 = ior(0x83, size_of::<kvm_sregs>());
const KVM_SET_MSRS: u64 = iow(0x89, 8);
const KVM_SET_CPUID2: u64 = iow(0x90, 8);
const KVM_GET_VCPU_EVENTS: u64 = ior(0x9f, size_of::<kvm_vcpu_events>());
const KVM_SET_VCPU_EVENTS: u64 = iow(0xa0, size_of::<kvm_vcpu_events>());
const KVM_GET_DEBUGREGS: u64 = ior(0xa1, size_of::<kvm_debugregs>());
const KVM_SET_DEBUGREGS: u64 = iow(0xa2, size_of::<kvm_debugregs>());
const KVM_SET_DEVICE_ATTR: u64 = iow(0xe1, size_of::<kvm_device_attr>());
const KVM_GET_XSAVE: u64 = ior(0xa4, size_of::<XsaveArea>());
const KVM_SET_XSAVE: u64 = iow(0xa5, size_of::<XsaveArea>());
const KVM_SET_XCRS: u64 = iow(0xa7, size_of::<kvm_xcrs>());

/// Most CPUID entries that any KVM returns.
const MAX_CPUID: usize = 256;

/// The 4 KiB XSAVE area of `KVM_GET_XSAVE`, in the standard (not compacted) format.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct XsaveArea(pub(crate) [u8; 4096]);

const _: () = assert!(size_of::<XsaveArea>() == size_of::<kvm_xsave>());

#[repr(C)]
struct CpuidList {
    nent: u32,
    padding: u32,
    entries: [kvm_cpuid_entry2; MAX_CPUID],
}

#[repr(C)]
struct MsrList<const N: usize> {
    nmsrs: u32,
    pad: u32,
    entries: [kvm_msr_entry; N],
}

/// One ioctl with a pointer or integer argument.
///
/// # Safety
/// `arg` must be what `request` expects: a valid integer, or a pointer to a structure of the right type that stays
/// valid, and for requests that write unaliased, for the call.
unsafe fn ioctl(fd: &OwnedFd, request: u64, arg: usize) -> io::Result<usize> {
    // SAFETY: the caller vouches for `arg`; the descriptor is open for as long as `fd` is borrowed.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, arg) };
    usize::try_from(r).map_err(|_| io::Error::last_os_error())
}

fn new_fd(raw: usize) -> OwnedFd {
    // SAFETY: the value was just returned by a KVM_CREATE_ ioctl, which gives a new descriptor owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(raw as i32) }
}

/// `/dev/kvm`.
#[derive(Debug)]
pub(crate) struct KvmFd(pub(crate) OwnedFd);

impl KvmFd {
    pub(crate) fn api_version(&self) -> io::Result<usize> {
        // SAFETY: the request takes no argument.
        unsafe { ioctl(&self.0, KVM_GET_API_VERSION, 0) }
    }

    pub(crate) fn check_extension(&self, cap: u32) -> usize {
        // SAFETY: the argument is an integer.
        unsafe { ioctl(&self.0, KVM_CHECK_EXTENSION, cap as usize) }.unwrap_or(0)
    }

    pub(crate) fn vcpu_mmap_size(&self) -> io::Result<usize> {
        // SAFETY: the request takes no argument.
        unsafe { ioctl(&self.0, KVM_GET_VCPU_MMAP_SIZE, 0) }
    }

    pub(crate) fn supported_cpuid(&self) -> io::Result<Vec<kvm_cpuid_entry2>> {
        let mut list = Box::new(CpuidList {
            nent: MAX_CPUID as u32,
            padding: 0,
            entries: [kvm_cpuid_entry2::default(); MAX_CPUID],
        });
        // SAFETY: `list` is laid out as `struct kvm_cpuid2` with room for the `nent` entries it announces, and is
        // exclusively ours.
        unsafe { ioctl(&self.0, KVM_GET_SUPPORTED_CPUID, &raw mut *list as usize)? };
        Ok(list.entries[..(list.nent as usize).min(MAX_CPUID)].to_vec())
    }

    pub(crate) fn create_vm(&self) -> io::Result<VmFd> {
        // SAFETY: the argument is the machine type, 0.
        unsafe { ioctl(&self.0, KVM_CREATE_VM, 0) }.map(|raw| VmFd(new_fd(raw)))
    }
}

/// A virtual machine.
#[derive(Debug)]
pub(crate) struct VmFd(OwnedFd);

impl VmFd {
    /// Makes, or with `len == 0` deletes, a memory slot.
    ///
    /// # Safety
    /// `host..host + len` must be memory that guest code may do anything to for as long as the slot exists.
    pub(crate) unsafe fn set_memory(&self, slot: u32, gpa: u64, host: u64, len: u64) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: the structure is the one the request reads; the caller vouches for the memory it names.
        unsafe { ioctl(&self.0, KVM_SET_USER_MEMORY_REGION, &raw const region as usize) }.map(drop)
    }

    /// How many page tables KVM may keep shadowed; a limit, not a reservation. Of no meaning with two-level paging.
    pub(crate) fn set_nr_mmu_pages(&self, pages: usize) -> io::Result<()> {
        // SAFETY: the argument is an integer.
        unsafe { ioctl(&self.0, KVM_SET_NR_MMU_PAGES, pages) }.map(drop)
    }

    pub(crate) fn create_vcpu(&self, id: u32, mmap_size: usize) -> io::Result<VcpuFd> {
        // SAFETY: the argument is an integer.
        let fd = new_fd(unsafe { ioctl(&self.0, KVM_CREATE_VCPU, id as usize)? });
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
        let run = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                mmap_size,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &fd,
                0,
            )?
        };
        let Some(run) = NonNull::new(run.cast::<kvm_run>()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        Ok(VcpuFd { fd, run, mmap_size })
    }
}

/// A virtual processor and its shared `struct kvm_run`.
#[derive(Debug)]
pub(crate) struct VcpuFd {
    fd: OwnedFd,
    run: NonNull<kvm_run>,
    mmap_size: usize,
}

// SAFETY: the descriptor may be used from any thread (KVM itself serialises), and the mapping is ours alone; whoever
// holds the `VcpuFd` has it exclusively.
unsafe impl Send for VcpuFd {}

impl Drop for VcpuFd {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `create_vcpu` with this length and nothing refers to it any more:
        // references into it borrow `self`, and kickers' pointers are withdrawn before a vCPU is let go.
        let _ = unsafe { rustix::mm::munmap(self.run.as_ptr().cast(), self.mmap_size) };
    }
}

impl VcpuFd {
    /// The shared page. Its `immediate_exit` byte may be written by other threads and is not to be touched here.
    pub(crate) fn run_page(&mut self) -> &mut kvm_run {
        // SAFETY: the mapping is at least a `kvm_run` long and lives as long as `self`; `&mut self` makes this the
        // only reference. The kernel writes it inside KVM_RUN only, which also borrows `self` mutably. Kickers
        // store to `immediate_exit` alone, through a raw atomic pointer; nothing here reads or writes that byte.
        unsafe { self.run.as_mut() }
    }

    pub(crate) fn run_ptr(&self) -> NonNull<kvm_run> {
        self.run
    }

    /// `KVM_RUN`.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        // SAFETY: the request takes no argument. What guest code may touch is bounded by the memory slots.
        unsafe { ioctl(&self.fd, KVM_RUN, 0) }.map(drop)
    }

    pub(crate) fn sregs(&self) -> io::Result<kvm_sregs> {
        let mut sregs = kvm_sregs::default();
        // SAFETY: the request fills in exactly this structure.
        unsafe { ioctl(&self.fd, KVM_GET_SREGS, &raw mut sregs as usize)? };
        Ok(sregs)
    }

    pub(crate) fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> io::Result<()> {
        let mut list = Box::new(CpuidList {
            nent: entries.len().min(MAX_CPUID) as u32,
            padding: 0,
            entries: [kvm_cpuid_entry2::default(); MAX_CPUID],
        });
        for (to, from) in list.entries.iter_mut().zip(entries) {
            *to = *from;
        }
        // SAFETY: `list` is laid out as `struct kvm_cpuid2` and holds the `nent` entries it announces.
        unsafe { ioctl(&self.fd, KVM_SET_CPUID2, &raw const *list as usize) }.map(drop)
    }

    /// Sets model-specific registers; all of them, or an error.
    pub(crate) fn set_msrs<const N: usize>(&self, msrs: [(u32, u64); N]) -> io::Result<()> {
        let list = MsrList {
            nmsrs: N as u32,
            pad: 0,
            entries: msrs.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() }),
        };
        // SAFETY: `list` is laid out as `struct kvm_msrs` and holds the `nmsrs` entries it announces.
        let done = unsafe { ioctl(&self.fd, KVM_SET_MSRS, &raw const list as usize)? };
        if done == N { Ok(()) } else { Err(io::Error::other("a model-specific register was refused")) }
    }

    /// Makes the guest's time stamp counter the host's.
    pub(crate) fn share_tsc(&self) -> io::Result<()> {
        let offset = 0u64;
        let attribute = kvm_device_attr {
            flags: 0,
            group: KVM_VCPU_TSC_CTRL,
            attr: u64::from(KVM_VCPU_TSC_OFFSET),
            addr: &raw const offset as u64,
        };
        // SAFETY: the request reads this structure and the eight bytes it points to.
        if unsafe { ioctl(&self.fd, KVM_SET_DEVICE_ATTR, &raw const attribute as usize) }.is_ok() {
            return Ok(());
        }
        // Before Linux 5.16: right but for the time between these two lines, some hundred cycles.
        const MSR_TSC: u32 = 0x10;
        // SAFETY: reading the counter has no other effect.
        let now = unsafe { std::arch::x86_64::_rdtsc() };
        self.set_msrs([(MSR_TSC, now)])
    }

    pub(crate) fn set_xcr0(&self, value: u64) -> io::Result<()> {
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value };
        // SAFETY: the request reads exactly this structure.
        unsafe { ioctl(&self.fd, KVM_SET_XCRS, &raw const xcrs as usize) }.map(drop)
    }

    pub(crate) fn xsave(&self, area: &mut XsaveArea) -> io::Result<()> {
        // SAFETY: the request writes `struct kvm_xsave`, 4096 bytes; a host feature that needs more (AMX) must be
        // asked for by `arch_prctl`, which nobody here does, and then the request fails instead.
        unsafe { ioctl(&self.fd, KVM_GET_XSAVE, &raw mut *area as usize) }.map(drop)
    }

    pub(crate) fn set_xsave(&self, area: &XsaveArea) -> io::Result<()> {
        // SAFETY: the request reads 4096 bytes and validates them.
        unsafe { ioctl(&self.fd, KVM_SET_XSAVE, &raw const *area as usize) }.map(drop)
    }

    /// Takes back an exception that KVM has queued but not delivered: vector and error code.
    pub(crate) fn take_exception(&self) -> io::Result<Option<(u8, u32)>> {
        let mut events = kvm_vcpu_events::default();
        // SAFETY: the request fills in exactly this structure.
        unsafe { ioctl(&self.fd, KVM_GET_VCPU_EVENTS, &raw mut events as usize)? };
        let exception = events.exception;
        if exception.injected == 0 && exception.pending == 0 {
            return Ok(None);
        }
        (events.exception.injected, events.exception.pending) = (0, 0);
        // Only what is always valid is written: no NMI, SIPI or SMM state.
        events.flags = 0;
        // SAFETY: the request reads exactly this structure.
        unsafe { ioctl(&self.fd, KVM_SET_VCPU_EVENTS, &raw const events as usize)? };
        let error_code = if exception.has_error_code != 0 { exception.error_code } else { 0 };
        Ok(Some((exception.nr, error_code)))
    }

    /// Reads DR6 and sets it back to its idle value, as a debug-exception handler does.
    pub(crate) fn take_dr6(&self) -> io::Result<u64> {
        let mut regs = kvm_debugregs::default();
        // SAFETY: the request fills in exactly this structure.
        unsafe { ioctl(&self.fd, KVM_GET_DEBUGREGS, &raw mut regs as usize)? };
        let dr6 = regs.dr6;
        regs.dr6 = 0xffff_0ff0;
        // SAFETY: the request reads exactly this structure.
        unsafe { ioctl(&self.fd, KVM_SET_DEBUGREGS, &raw const regs as usize)? };
        Ok(dr6)
    }
}
