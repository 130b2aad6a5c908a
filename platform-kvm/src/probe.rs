//! `quicksand doctor`: what this host's KVM is like, measured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Backing, Context, Exit, Platform, PlatformError, Prot, Registers};

use crate::context::KvmContext;
use crate::sys::KvmFd;
use crate::{KvmPlatform, host_error, open_device};

/// What [`probe`] found. Times are medians, in microseconds.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    pub api_version: usize,
    /// SYSCALL in guest ring 3 does not enter ring 0; it is recognised by the page fault that follows.
    pub syscall_quirk: bool,
    /// Making the VM, its window and first memory slot.
    pub create_vm_us: f64,
    /// Making a vCPU, and its first exit.
    pub create_vcpu_us: f64,
    /// From the Sentry into guest ring 0 and back, one `out` long.
    pub ring0_us: f64,
    /// From the Sentry into guest ring 3 and back by a system call.
    pub syscall_us: f64,
    /// The same for a page fault that has to be resolved here, a page of memory included.
    pub fault_us: f64,
    /// Dropping all translations of the VM.
    pub flush_us: f64,
    /// Most vCPUs of one VM, and so threads of one sandbox that run at the same time.
    pub max_vcpus: usize,
    /// Bytes of guest memory that one VM can have.
    pub window_bytes: u64,
    /// The extended state that guests have, as XCR0.
    pub xcr0: u64,
}

impl std::fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "API version            {}", self.api_version)?;
        let syscall =
            if self.syscall_quirk { "by page fault (nested, no hardware support)" } else { "by ring switch" };
        writeln!(f, "SYSCALL arrives        {syscall}")?;
        writeln!(f, "VM, vCPU creation      {:.0} us, {:.0} us", self.create_vm_us, self.create_vcpu_us)?;
        writeln!(f, "exit from ring 0       {:.1} us", self.ring0_us)?;
        writeln!(f, "exit by system call    {:.1} us", self.syscall_us)?;
        writeln!(f, "page fault resolved    {:.1} us", self.fault_us)?;
        writeln!(f, "full flush             {:.1} us", self.flush_us)?;
        writeln!(f, "vCPUs, guest memory    {}, {} GiB", self.max_vcpus, self.window_bytes >> 30)?;
        write!(f, "XCR0                   {:#x}", self.xcr0)
    }
}

const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x1000_0000;
/// Each fault is to need a table of its own.
const STRIDE: u64 = 2 << 20;
const ROUNDS: usize = 101;

fn range(start: u64, len: u64) -> UserRange {
    UserRange { start: UserAddr(start), end: UserAddr(start + len) }
}

fn median(
    rounds: usize,
    mut f: impl FnMut(usize) -> Result<(), PlatformError>,
) -> Result<f64, PlatformError> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let start = Instant::now();
        f(round)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[rounds / 2])
}

/// Looks at `/dev/kvm` and measures it, in some tens of milliseconds.
pub fn probe() -> Result<ProbeReport, PlatformError> {
    let kvm = KvmFd(open_device()?);
    let api_version = kvm.api_version().map_err(|e| host_error("KVM_GET_API_VERSION", e))?;
    let create_vm_us = median(3, |_| KvmPlatform::new(None).map(drop))?;
    let platform = KvmPlatform::new(None)?;
    let space = platform.address_space()?;
    let failed = |errno: quicksand_abi::Errno| {
        host_error("mapping guest memory", std::io::Error::from_raw_os_error(errno.raw()))
    };
    space.map(range(TEXT, 4096), Prot::RX, Backing::Anonymous).map_err(failed)?;
    space.map(range(DATA, STRIDE * 1024), Prot::RW, Backing::Anonymous).map_err(failed)?;
    // 1: mov $39, %eax; syscall; jmp 1b. At 16: movb $0, (%rbx); jmp 1b.
    let code = [0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7, 0, 0, 0, 0, 0, 0, 0, 0xc6, 0x03, 0, 0xeb, 0xeb];
    let bad = |_| host_error("writing guest memory", std::io::Error::from_raw_os_error(libc::EFAULT));
    space.write_forced(UserAddr(TEXT), &code).map_err(bad)?;

    let run = |context: &mut Box<dyn Context>,
               space: &Arc<dyn AddressSpace>,
               regs: &mut Registers,
               exit: Exit| {
        let found = context.run(space, regs)?;
        if found == exit {
            return Ok(());
        }
        Err(host_error("guest code", std::io::Error::other(format!("{found:?} where {exit:?} was expected"))))
    };
    let start = |rip: u64| Registers { rip, rbx: DATA, ..Registers::default() };
    let create_vcpu_us = median(5, |_| {
        let mut context = platform.context()?;
        let mut regs = start(TEXT);
        let ran = run(&mut context, &space, &mut regs, Exit::Syscall);
        // Kept from the pool, so that the next one is made anew.
        std::mem::forget(context);
        ran
    })?;
    let mut context = platform.context()?;
    let mut regs = start(TEXT);
    let syscall_us = median(ROUNDS, |_| run(&mut context, &space, &mut regs, Exit::Syscall))?;
    let syscall_quirk = platform.shared.counters.syscall_faults.load(Ordering::Relaxed) > 0;
    let mut bare = KvmContext::new(&platform.shared);
    let mut regs0 = start(TEXT);
    bare.run(&space, &mut regs0)?;
    let ring0_us = median(ROUNDS, |_| bare.ring0_round_trip())?;
    let fault_us = median(ROUNDS, |round| {
        regs.rip = TEXT + 16;
        regs.rbx = DATA + round as u64 * STRIDE;
        run(&mut context, &space, &mut regs, Exit::Syscall)
    })? - syscall_us;
    let flush_us = median(11, |_| {
        platform.shared.window.flush_all();
        Ok(())
    })?;
    Ok(ProbeReport {
        api_version,
        syscall_quirk,
        create_vm_us,
        create_vcpu_us,
        ring0_us,
        syscall_us,
        fault_us,
        flush_us,
        max_vcpus: platform.shared.vcpus.max(),
        window_bytes: platform.shared.window.size(),
        xcr0: platform.xcr0(),
    })
}
