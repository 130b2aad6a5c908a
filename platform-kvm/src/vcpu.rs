//! One virtual processor: loading a guest thread's registers, entering, and reading what stopped it.
//!
//! Registers travel through the shared page (`KVM_CAP_SYNC_REGS`), so that a system call costs one ioctl. Between exits
//! a vCPU rests in ring 0 (it left through a stub of `entry.rs`) or in ring 3 (a signal or a host fault stopped
//! it); it is resumed by an IRETQ from its own stack in the first case, and by setting the registers in the second.
//!
//! System calls arrive in one of two ways, and the processor state says which. On hardware, SYSCALL enters ring 0 at the
//! entry stub. Some nested hosts run guest ring 3 natively but do not switch rings on SYSCALL (unless KVM happens to
//! emulate that instruction): RCX, R11, RFLAGS and RIP are loaded, and then the fetch at the entry faults, in ring 3. A
//! page fault whose saved RIP and CR2 are both the SYSCALL entry, with the interrupt flag clear, is that: ring 3 cannot
//! clear the flag, but SYSCALL does. Guest code that merely jumps there has it set, and gets its fault.

use std::io;
use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_MEMORY_FAULT, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_regs, kvm_segment,
    kvm_sregs,
};
use quicksand_platform::{EFLAGS_USER_MASK, Registers};

use crate::cpuid::Cpu;
use crate::entry::{
    self, GDT, GDT_LIMIT, IDT, IDT_LIMIT, IRETQ, KERNEL_CS, PORT_SYSCALL, PORT_VECTORS, SYSCALL_ENTRY,
    TSS_LIMIT, TSS_SELECTOR, USER_CS, USER_SS, VcpuPage,
};
use crate::sys::{VcpuFd, XsaveArea};
use crate::window::Window;

const SYNC: u64 = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS) as u64;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;
/// Cleared on SYSCALL: TF, IF, DF, IOPL, NT, AC.
const SYSCALL_MASK: u64 = 0x0004_7700;

const CR0: u64 = 0x8005_0033;
const CR4_PAE_FXSR_XMM: u64 = 0x620;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;

const PAGE_FAULT: u8 = 14;
const DEBUG: u8 = 1;

const EFLAGS_IF: u64 = 1 << 9;

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `by_fault` when SYSCALL did not change rings.
    Syscall {
        by_fault: bool,
    },
    PageFault {
        addr: u64,
        error_code: u32,
    },
    Trap {
        vector: u8,
        error_code: u32,
        dr6: u64,
    },
    Interrupted,
    /// The host could not provide a page; its GPA where KVM says which.
    HostFault {
        gpa: Option<u64>,
    },
}

/// A vCPU that cannot go on. Guest code cannot cause this by what it does in ring 3.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) what: &'static str,
    pub(crate) source: io::Error,
}

fn broken(what: &'static str) -> impl FnOnce(io::Error) -> Broken {
    move |source| Broken { what, source }
}

/// A vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) fd: VcpuFd,
    page: VcpuPage,
    /// It rests in one of our stubs (or at the IRETQ), not in guest code.
    in_ring0: bool,
}

/// Where ring 3 was.
#[derive(Clone, Copy, Debug)]
struct Frame {
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
}

impl Frame {
    /// After the first half of a SYSCALL that did not change rings; see the module's documentation.
    fn is_inside_syscall(&self) -> bool {
        self.rip == SYSCALL_ENTRY && self.rflags & EFLAGS_IF == 0
    }
}

fn segment(selector: u16, kind: u8, dpl: u8, code: bool) -> kvm_segment {
    kvm_segment {
        selector,
        type_: kind,
        s: 1,
        dpl,
        present: 1,
        l: u8::from(code),
        db: u8::from(!code),
        g: 1,
        limit: u32::MAX,
        ..Default::default()
    }
}

/// Is `addr` what 48-bit processors accept?
fn is_canonical(addr: u64) -> bool {
    ((addr << 16) as i64 >> 16) as u64 == addr
}

impl Vcpu {
    pub(crate) fn new(mut fd: VcpuFd, page: VcpuPage, cpu: &Cpu) -> io::Result<Vcpu> {
        fd.set_cpuid(&cpu.entries)?;
        if cpu.has_xsave {
            fd.set_xcr0(cpu.xcr0)?;
        }
        fd.set_msrs([
            // SYSRET would load 0x33 and 0x2b from 0x23; it is not used, but the layout is Linux's.
            (MSR_STAR, 0x23 << 48 | u64::from(KERNEL_CS) << 32),
            (MSR_LSTAR, SYSCALL_ENTRY),
            (MSR_SYSCALL_MASK, SYSCALL_MASK),
        ])?;
        // Programs read it, by themselves and in the vDSO.
        fd.share_tsc()?;
        let mut sregs = fd.sregs()?;
        sregs.cr0 = CR0;
        sregs.cr4 = CR4_PAE_FXSR_XMM;
        if cpu.has_xsave {
            sregs.cr4 |= CR4_OSXSAVE;
        }
        if cpu.has_fsgsbase {
            sregs.cr4 |= CR4_FSGSBASE;
        }
        sregs.efer = EFER;
        sregs.cs = segment(USER_CS, 11, 3, true);
        sregs.ss = segment(USER_SS, 3, 3, false);
        sregs.tr = kvm_segment {
            base: page.address,
            limit: TSS_LIMIT,
            selector: TSS_SELECTOR,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.ldt = kvm_segment { unusable: 1, type_: 2, ..Default::default() };
        sregs.gdt.base = GDT;
        sregs.gdt.limit = GDT_LIMIT;
        sregs.idt.base = IDT;
        sregs.idt.limit = IDT_LIMIT;
        let run = fd.run_page();
        run.kvm_valid_regs = SYNC;
        run.s.regs.sregs = sregs;
        run.kvm_dirty_regs = KVM_SYNC_X86_SREGS as u64;
        let mut vcpu = Vcpu { fd, page, in_ring0: false };
        vcpu.reset_segments();
        Ok(vcpu)
    }

    fn sregs(&mut self) -> &mut kvm_sregs {
        let run = self.fd.run_page();
        // SAFETY: the union holds `kvm_sync_regs`, plain integers that any bytes make valid.
        unsafe { &mut run.s.regs.sregs }
    }

    fn gprs(&mut self) -> &mut kvm_regs {
        let run = self.fd.run_page();
        // SAFETY: as above.
        unsafe { &mut run.s.regs.regs }
    }

    /// Data segments as a new program has them, for a vCPU that changes hands.
    pub(crate) fn reset_segments(&mut self) {
        let mut null = segment(0, 3, 3, false);
        null.present = 0;
        null.unusable = 1;
        let sregs = self.sregs();
        (sregs.ds, sregs.es, sregs.fs, sregs.gs) = (null, null, null, null);
        self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_SREGS as u64;
    }

    /// Selects the address space.
    pub(crate) fn load_root(&mut self, root: u64) {
        if self.sregs().cr3 != root {
            self.sregs().cr3 = root;
            self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_SREGS as u64;
        }
    }

    /// Makes the next entry go on from `regs`, in ring 3.
    pub(crate) fn load(&mut self, window: &Window, regs: &Registers) {
        let eflags = regs.eflags & EFLAGS_USER_MASK | 0x202;
        let (mut rip, mut rsp, mut rflags) = (regs.rip, regs.rsp, eflags);
        if self.in_ring0 {
            self.write_frame(window, [regs.rip, u64::from(USER_CS), eflags, regs.rsp, u64::from(USER_SS)]);
            (rip, rsp, rflags) = (IRETQ, self.page.frame_address(), 2);
        }
        *self.gprs() = kvm_regs {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rsp,
            rbp: regs.rbp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rip,
            rflags,
        };
        self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_REGS as u64;
        let sregs = self.sregs();
        if (sregs.fs.base, sregs.gs.base) != (regs.fs_base, regs.gs_base) {
            if is_canonical(regs.fs_base) {
                sregs.fs.base = regs.fs_base;
            }
            if is_canonical(regs.gs_base) {
                sregs.gs.base = regs.gs_base;
            }
            self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_SREGS as u64;
        }
    }

    /// Goes back to the instruction that faulted, whose frame is still on the stack.
    pub(crate) fn retry(&mut self) {
        if self.in_ring0 {
            let rsp = self.page.frame_address();
            let gprs = self.gprs();
            (gprs.rip, gprs.rsp, gprs.rflags) = (IRETQ, rsp, 2);
            self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_REGS as u64;
        }
    }

    fn frame_word(&self, window: &Window, index: usize) -> u64 {
        window.words(self.page.gpa)[507 + index].load(Ordering::Acquire)
    }

    fn write_frame(&self, window: &Window, frame: [u64; 5]) {
        for (word, value) in window.words(self.page.gpa)[507..].iter().zip(frame) {
            word.store(value, Ordering::Release);
        }
    }

    /// Enters the guest once. `regs` is brought up to date unless the stop is a `HostFault` in our own stubs.
    pub(crate) fn enter(&mut self, window: &Window, regs: &mut Registers) -> Result<Stop, Broken> {
        let (root, rip) = (self.sregs().cr3, self.gprs().rip);
        let result = self.fd.enter();
        let run = self.fd.run_page();
        run.kvm_dirty_regs = 0;
        let reason = run.exit_reason;
        match result {
            Ok(()) if reason == KVM_EXIT_IO => {
                // SAFETY: the exit reason says that the union holds `io`.
                let port = unsafe { run.__bindgen_anon_1.io.port };
                self.in_ring0 = true;
                self.decode(window, regs, port)
            }
            Ok(()) => {
                // A processor that shut down was reset: what it was given, and what its tables say now, is all there is.
                let entered = format!(
                    "; entered at {rip:#x} with root {root:#x}, whose top entry is {:#x}, and TSS {:#x}",
                    window.words(root)[entry::TOP_INDEX].load(Ordering::Acquire),
                    window.words(self.page.gpa)[0].load(Ordering::Acquire),
                );
                Err(self.unexpected(&entered))
            }
            Err(e) if e.raw_os_error() == Some(libc::EINTR) || e.raw_os_error() == Some(libc::EAGAIN) => {
                self.stopped(window, regs, Stop::Interrupted)
            }
            Err(e) if e.raw_os_error() == Some(libc::EFAULT) || reason == KVM_EXIT_MEMORY_FAULT => {
                let gpa = (reason == KVM_EXIT_MEMORY_FAULT)
                    // SAFETY: the exit reason says that the union holds `memory_fault`.
                    .then(|| unsafe { self.fd.run_page().__bindgen_anon_1.memory_fault.gpa });
                self.stopped(window, regs, Stop::HostFault { gpa })
            }
            Err(e) => Err(Broken { what: "KVM_RUN", source: e }),
        }
    }

    /// Executes one `out` in ring 0. What the vCPU was doing is lost.
    pub(crate) fn ring0_round_trip(&mut self) -> Result<(), Broken> {
        if !self.in_ring0 {
            return Err(self.unexpected(""));
        }
        let rsp = self.page.frame_address();
        let gprs = self.gprs();
        (gprs.rip, gprs.rsp, gprs.rflags) = (SYSCALL_ENTRY, rsp, 2);
        self.fd.run_page().kvm_dirty_regs |= KVM_SYNC_X86_REGS as u64;
        let done = self.fd.enter();
        self.fd.run_page().kvm_dirty_regs = 0;
        done.map_err(broken("KVM_RUN"))
    }

    fn unexpected(&mut self, more: &str) -> Broken {
        let run = self.fd.run_page();
        let reason = run.exit_reason;
        // SAFETY: only integers are read, whatever the union holds.
        let detail = unsafe { run.__bindgen_anon_1.internal.suberror };
        let (rip, cs) = (self.gprs().rip, self.sregs().cs.selector);
        let text = format!("unexpected exit {reason} (detail {detail}) at rip {rip:#x} cs {cs:#x}{more}");
        Broken { what: "KVM_RUN", source: io::Error::other(text) }
    }

    /// The vCPU stopped wherever it was.
    fn stopped(&mut self, window: &Window, regs: &mut Registers, stop: Stop) -> Result<Stop, Broken> {
        self.in_ring0 = self.sregs().cs.selector & 3 == 0;
        if !self.in_ring0 {
            let gprs = *self.gprs();
            let cs = u64::from(self.sregs().cs.selector);
            let frame = Frame { rip: gprs.rip, cs, rflags: gprs.rflags, rsp: gprs.rsp };
            if stop == Stop::Interrupted {
                if frame.is_inside_syscall() {
                    // Whatever is queued is the fault at the entry.
                    self.fd.take_exception().map_err(broken("KVM_SET_VCPU_EVENTS"))?;
                    return Ok(self.syscall(regs, &gprs, gprs.rsp, true));
                }
                // An exception that KVM has accepted but not delivered is part of the state: it is reported now, or it
                // would hit whatever the thread does next.
                if let Some((vector, error_code)) =
                    self.fd.take_exception().map_err(broken("KVM_SET_VCPU_EVENTS"))?
                {
                    let addr = self.fd.sregs().map_err(broken("KVM_GET_SREGS"))?.cr2;
                    return self.exception(regs, vector, error_code, addr, frame);
                }
            }
            self.save(regs, &gprs);
            (regs.rip, regs.rsp, regs.eflags) = (gprs.rip, gprs.rsp, user_flags(gprs.rflags));
            return Ok(stop);
        }
        match self.gprs().rip {
            // About to enter ring 3: the registers are those that were loaded, and stay loaded.
            IRETQ => Ok(stop),
            rip => match entry::stub_port(rip) {
                // About to report: as if it had.
                Some(port) if stop == Stop::Interrupted => self.decode(window, regs, port),
                _ => Ok(stop),
            },
        }
    }

    fn decode(&mut self, window: &Window, regs: &mut Registers, port: u16) -> Result<Stop, Broken> {
        let gprs = *self.gprs();
        if port == PORT_SYSCALL {
            return Ok(self.syscall(regs, &gprs, gprs.rsp, false));
        }
        let vector = match port.checked_sub(PORT_VECTORS) {
            Some(vector @ 0..32) => vector as u8,
            _ => return Err(self.unexpected("")),
        };
        let [rip, cs, rflags, rsp] = [0, 1, 2, 3].map(|i| self.frame_word(window, i));
        let error_code = if entry::has_error_code(vector) {
            window.words(self.page.gpa)[506].load(Ordering::Acquire) as u32
        } else {
            0
        };
        if cs & 3 == 0 {
            return self.in_supervisor(regs, vector, rip, rsp);
        }
        let addr = self.sregs().cr2;
        self.exception(regs, vector, error_code, addr, Frame { rip, cs, rflags, rsp })
    }

    /// An exception in ring 3.
    fn exception(
        &mut self,
        regs: &mut Registers,
        vector: u8,
        error_code: u32,
        addr: u64,
        frame: Frame,
    ) -> Result<Stop, Broken> {
        let gprs = *self.gprs();
        if vector == PAGE_FAULT && addr == SYSCALL_ENTRY && frame.is_inside_syscall() {
            return Ok(self.syscall(regs, &gprs, frame.rsp, true));
        }
        self.save(regs, &gprs);
        (regs.rip, regs.rsp, regs.eflags) = (frame.rip, frame.rsp, user_flags(frame.rflags));
        if frame.cs != u64::from(USER_CS) {
            // A far jump to a code segment that the host's own tables have: not in this guest's.
            return Ok(Stop::Trap { vector: 13, error_code: frame.cs as u32 & 0xfff8, dr6: 0 });
        }
        Ok(match vector {
            PAGE_FAULT => Stop::PageFault { addr, error_code },
            DEBUG => {
                let dr6 = self.fd.take_dr6().map_err(broken("KVM_GET_DEBUGREGS"))?;
                Stop::Trap { vector, error_code, dr6 }
            }
            _ => Stop::Trap { vector, error_code, dr6: 0 },
        })
    }

    /// An exception in ring 0. The one that guest code can arrange is a debug trap held back by a `mov ss` until the
    /// first instruction of the SYSCALL entry: the system call stands.
    fn in_supervisor(
        &mut self,
        regs: &mut Registers,
        vector: u8,
        rip: u64,
        rsp: u64,
    ) -> Result<Stop, Broken> {
        if vector == DEBUG && rip == SYSCALL_ENTRY {
            let gprs = *self.gprs();
            // The frame has the RSP that was current then: the user's.
            return Ok(self.syscall(regs, &gprs, rsp, false));
        }
        let text = format!("exception {vector} in guest ring 0 at {rip:#x}");
        Err(Broken { what: "guest ring 0", source: io::Error::other(text) })
    }

    fn syscall(&mut self, regs: &mut Registers, gprs: &kvm_regs, rsp: u64, by_fault: bool) -> Stop {
        self.save(regs, gprs);
        regs.rip = gprs.rcx;
        regs.rsp = rsp;
        regs.eflags = user_flags(gprs.r11);
        regs.orig_rax = gprs.rax;
        Stop::Syscall { by_fault }
    }

    /// All but RIP, RSP and RFLAGS.
    fn save(&mut self, regs: &mut Registers, gprs: &kvm_regs) {
        let sregs = self.sregs();
        *regs = Registers {
            r15: gprs.r15,
            r14: gprs.r14,
            r13: gprs.r13,
            r12: gprs.r12,
            rbp: gprs.rbp,
            rbx: gprs.rbx,
            r11: gprs.r11,
            r10: gprs.r10,
            r9: gprs.r9,
            r8: gprs.r8,
            rax: gprs.rax,
            rcx: gprs.rcx,
            rdx: gprs.rdx,
            rsi: gprs.rsi,
            rdi: gprs.rdi,
            orig_rax: u64::MAX,
            rip: regs.rip,
            cs: u64::from(USER_CS),
            eflags: regs.eflags,
            rsp: regs.rsp,
            ss: u64::from(USER_SS),
            fs_base: sregs.fs.base,
            gs_base: sregs.gs.base,
        };
    }

    pub(crate) fn xsave(&self, area: &mut XsaveArea) -> io::Result<()> {
        self.fd.xsave(area)
    }
}

fn user_flags(rflags: u64) -> u64 {
    rflags & EFLAGS_USER_MASK | 0x202
}
