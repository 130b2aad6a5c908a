//! The signal frame in which a stopped guest thread's registers lie, in the thread's area.
//!
//! Everything here is guest-writable, at any time: addresses are checked against the area, contents are taken for what
//! they are, the guest's own registers. What the kernel loads from a frame when the thread goes on is what any program
//! can have it load, but for the signal mask, which can at most make the thread deaf to kicks (`context.rs`).

use quicksand_abi::UserAddr;
use quicksand_platform::{Access, EFLAGS_USER_MASK, Exit, Fault, FaultCause, Registers, Trap};

use crate::fpu::{self, Cpu, State};
use crate::layout::{AREA_LEN, AREAS, KICK_SIGNAL, STACK, STUB_START, area, register};
use crate::stub;
use crate::sys::SharedMemory;

/// Offsets in `struct ucontext`.
pub(crate) mod offset {
    pub(super) const FLAGS: usize = 0;
    pub(super) const STACK: usize = 16;
    pub(crate) const REGISTERS: usize = 40;
    pub(super) const FP_STATE: usize = 224;
    pub(super) const SIGNAL_MASK: usize = 296;
    /// The `siginfo` that lies behind it in a frame.
    pub(super) const SIGINFO: usize = 304;
    pub(super) const END: usize = SIGINFO + 128;
}

/// Of the 23 registers in a `sigcontext`.
pub(crate) mod index {
    pub(crate) const R11: usize = 3;
    pub(super) const SEGMENTS: usize = 18;
    pub(super) const ERROR: usize = 19;
    pub(super) const TRAP: usize = 20;
    pub(super) const CR2: usize = 22;
}

/// XSTATE, SIGCONTEXT_SS, STRICT_RESTORE_SS.
const UCONTEXT_FLAGS: u64 = 7;
pub(crate) const EFLAGS_FIXED: u64 = 0x202;
pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER_SS: u64 = 0x2b;
/// Where the first frame of a new thread lies in its area, and the state that belongs to it.
const FIRST_FRAME: usize = STACK + 0x100;
const FIRST_STATE: usize = STACK + 0x400;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
const TRAP_TRACE: i32 = 2;
const SI_KERNEL: i32 = 0x80;
const NR_URETPROBE: u64 = 335;

const ERROR_WRITE: u64 = 1 << 1;
const ERROR_FETCH: u64 = 1 << 4;
const GENERAL_PROTECTION: Trap = Trap { vector: 13, error_code: 0, dr6: 0 };

/// What can be loaded as a segment's base.
pub(crate) fn canonical(base: u64) -> u64 {
    if base >> 47 == 0 || base >> 47 == !0 >> 47 { base } else { 0 }
}

/// A frame that does not lie where one can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damaged;

/// A frame of the thread whose area begins at `area` in `memory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    memory: &'a SharedMemory,
    area: usize,
    /// Offset of the `ucontext` in `memory`.
    at: usize,
}

impl<'a> Frame<'a> {
    /// The frame that the thread says it has.
    pub(crate) fn of(memory: &'a SharedMemory, index: usize) -> Result<Frame<'a>, Damaged> {
        let area = index * AREA_LEN;
        let at = memory.u64(area + area::FRAME).load(std::sync::atomic::Ordering::Relaxed);
        let at = inside(area, at, offset::END, 8)?;
        Ok(Frame { memory, area, at })
    }

    /// Writes the first frame of a new thread; all but registers and state. The thread is to find it by its area.
    pub(crate) fn prepare(memory: &'a SharedMemory, index: usize, cpu: &Cpu) {
        let area = index * AREA_LEN;
        let address = |offset: usize| AREAS + (area + offset) as u64;
        let store = |at: usize, value: u64| {
            memory.u64(area + at).store(value, std::sync::atomic::Ordering::Relaxed);
        };
        let stack = stub::alt_stack(address(0));
        memory.write(area + area::ALT_STACK, &stack);
        memory.u32(area + area::SIGNAL).store(KICK_SIGNAL as u32, std::sync::atomic::Ordering::Relaxed);
        store(area::FRAME, address(FIRST_FRAME));
        store(FIRST_FRAME + offset::FLAGS, UCONTEXT_FLAGS);
        memory.write(area + FIRST_FRAME + offset::STACK, &stack);
        store(FIRST_FRAME + offset::FP_STATE, address(FIRST_STATE));
        memory.write(area + FIRST_STATE + fpu::SOFTWARE.start, &cpu.software_bytes());
        // The length is a multiple of eight, and the word behind it free.
        store(FIRST_STATE + cpu.xsave_len, u64::from(fpu::FRAME_MAGIC_2));
    }

    fn get(&self, at: usize) -> u64 {
        self.memory.u64(self.at + at).load(std::sync::atomic::Ordering::Relaxed)
    }
    fn set(&self, at: usize, value: u64) {
        self.memory.u64(self.at + at).store(value, std::sync::atomic::Ordering::Relaxed);
    }

    /// Puts in what the thread is to go on with.
    pub(crate) fn set_registers(&self, regs: &Registers) {
        let eflags = regs.eflags & EFLAGS_USER_MASK | EFLAGS_FIXED;
        let all = [
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rdi, regs.rsi,
            regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp, regs.rip, eflags,
        ];
        for (i, value) in all.into_iter().enumerate() {
            self.set(offset::REGISTERS + 8 * i, value);
        }
        self.set(offset::REGISTERS + 8 * index::SEGMENTS, USER_CS | USER_SS << 48);
        self.set(offset::SIGNAL_MASK, 0);
        let base = |at: usize, value: u64| {
            let word = self.memory.u64(self.area + at);
            word.store(canonical(value), std::sync::atomic::Ordering::Relaxed);
        };
        base(area::FS_BASE, regs.fs_base);
        base(area::GS_BASE, regs.gs_base);
    }

    /// Whether a kick got the thread out of the stub's own code, on its way back from a patched call.
    pub(crate) fn kicked_in_stub(&self) -> bool {
        let signal = self.memory.u32(self.area + area::SIGNAL).load(std::sync::atomic::Ordering::Relaxed);
        let rip = self.get(offset::REGISTERS + 8 * register::RIP);
        signal as i32 == KICK_SIGNAL && rip >= STUB_START
    }

    /// What stopped the thread, and with which registers. `None`: nothing that concerns the guest.
    pub(crate) fn stop(&self, regs: &mut Registers) -> Option<Exit> {
        let mut all = [0; 23];
        for (i, value) in all.iter_mut().enumerate() {
            *value = self.get(offset::REGISTERS + 8 * i);
        }
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags, ..] =
            all;
        *regs = Registers {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax: u64::MAX,
            rip,
            cs: USER_CS,
            eflags: eflags & EFLAGS_USER_MASK | EFLAGS_FIXED,
            rsp,
            ss: USER_SS,
            fs_base: self.memory.u64(self.area + area::FS_BASE).load(relaxed),
            gs_base: self.memory.u64(self.area + area::GS_BASE).load(relaxed),
        };
        let signal = self.memory.u32(self.area + area::SIGNAL).load(relaxed) as i32;
        let code = self.get(offset::SIGINFO + 8) as u32 as i32;
        let is_64_bit = all[index::SEGMENTS] & 0xffff == USER_CS;
        if signal == KICK_SIGNAL {
            return Some(Exit::Kicked);
        }
        if code <= 0 {
            // Sent by a process: an administrator's whim.
            return None;
        }
        let vsyscall = |addr: u64| {
            // The page is not there for guests.
            let error_code = 0x15;
            let (addr, access, cause) = (UserAddr(addr), Access::Execute, FaultCause::Unmapped);
            Exit::Fault(Fault { addr, access, cause, error_code })
        };
        if !is_64_bit {
            // Guests have no 32-bit code segment; the host's has been found.
            return Some(Exit::Trap(GENERAL_PROTECTION));
        }
        if signal == libc::SIGSYS {
            let caller = self.get(offset::SIGINFO + 16);
            let arch = (self.get(offset::SIGINFO + 24) >> 32) as u32;
            if arch != AUDIT_ARCH_X86_64 {
                // `int 0x80`. Guests have no such gate.
                regs.rip = rip.wrapping_sub(2);
                return Some(Exit::Trap(Trap { error_code: 0x80 << 3 | 2, ..GENERAL_PROTECTION }));
            }
            if VSYSCALL.contains(&caller) {
                // The kernel has done the return from there already.
                (regs.rip, regs.rsp) = (caller, rsp.wrapping_sub(8));
                return Some(vsyscall(caller));
            }
            regs.orig_rax = rax;
            return Some(Exit::Syscall);
        }
        if VSYSCALL.contains(&rip) {
            return Some(vsyscall(rip));
        }
        if signal == libc::SIGILL && code == SI_KERNEL && rax == u64::MAX {
            // The kernel lets this one pass all filters, and raises the signal; it is for code that the kernel itself has put
            // into a program.
            (regs.rax, regs.orig_rax) = (NR_URETPROBE, NR_URETPROBE);
            return Some(Exit::Syscall);
        }
        let error = all[index::ERROR];
        if all[index::TRAP] == 14 && (signal == libc::SIGSEGV || signal == libc::SIGBUS) {
            let access = match error {
                error if error & ERROR_FETCH != 0 => Access::Execute,
                error if error & ERROR_WRITE != 0 => Access::Write,
                _ => Access::Read,
            };
            let cause = if signal == libc::SIGBUS { FaultCause::Bus } else { FaultCause::Unmapped };
            let addr = UserAddr(all[index::CR2]);
            return Some(Exit::Fault(Fault { addr, access, cause, error_code: error as u32 }));
        }
        let vector = all[index::TRAP] as u8;
        let error_code = if matches!(vector, 8 | 10..=14 | 17) { error as u32 } else { 0 };
        const DR6_FIXED: u64 = 0xffff_0ff0;
        let dr6 = match vector {
            1 if code == TRAP_TRACE => DR6_FIXED | 0x4000,
            1 => DR6_FIXED,
            _ => 0,
        };
        Some(Exit::Trap(Trap { vector, error_code, dr6 }))
    }

    fn state_at(&self, cpu: &Cpu) -> Result<usize, Damaged> {
        inside(self.area, self.get(offset::FP_STATE), cpu.xsave_len, 64)
    }

    /// The thread's extended state.
    pub(crate) fn extended_state(&self, cpu: &Cpu) -> Result<State, Damaged> {
        let mut bytes = vec![0; cpu.xsave_len].into_boxed_slice();
        self.memory.read(self.state_at(cpu)?, &mut bytes);
        Ok(cpu.export(bytes))
    }

    /// Replaces it. What the kernel wrote into the part that is software's stays.
    pub(crate) fn set_extended_state(&self, cpu: &Cpu, state: &State) -> Result<(), Damaged> {
        let at = self.state_at(cpu)?;
        self.memory.write(at, &state.0[..fpu::SOFTWARE.start]);
        self.memory.write(at + fpu::SOFTWARE.end, &state.0[fpu::SOFTWARE.end..]);
        Ok(())
    }
}

/// The offset of what the stub has at `address`, if its `len` bytes lie on the signal stack of `area`.
fn inside(area: usize, address: u64, len: usize, align: u64) -> Result<usize, Damaged> {
    let first = AREAS + (area + STACK) as u64;
    let last = AREAS + (area + AREA_LEN - len) as u64;
    if (first..=last).contains(&address) && address.is_multiple_of(align) {
        Ok((address - AREAS) as usize)
    } else {
        Err(Damaged)
    }
}
