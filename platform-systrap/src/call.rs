//! The registers of a thread that has made a patched call, in the thread's area. The counterpart of `frame.rs` where there was no
//! signal: the extended state is still in the processor.
//!
//! Guest-writable, as everything there.

use std::sync::atomic::Ordering;

use quicksand_platform::{EFLAGS_USER_MASK, Registers};

use crate::frame::{EFLAGS_FIXED, USER_CS, USER_SS, canonical};
use crate::layout::{AREA_LEN, area, register};
use crate::sys::SharedMemory;

const EFLAGS_TF: u64 = 1 << 8;

/// Of the thread whose area begins at `area` in `memory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    memory: &'a SharedMemory,
    area: usize,
}

impl<'a> Call<'a> {
    pub(crate) fn of(memory: &'a SharedMemory, index: usize) -> Call<'a> {
        Call { memory, area: index * AREA_LEN }
    }

    fn get(&self, at: usize) -> u64 {
        self.memory.u64(self.area + at).load(Ordering::Relaxed)
    }
    /// Most do not change, and what is not written stays in the other processor's cache.
    fn set(&self, at: usize, value: u64) {
        let word = self.memory.u64(self.area + at);
        if word.load(Ordering::Relaxed) != value {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// With what the guest has made the call.
    pub(crate) fn registers(&self) -> Registers {
        let get = |i: usize| self.get(area::REGISTERS + 8 * i);
        let (rip, rax) = (get(register::RIP), get(register::RAX));
        let eflags = get(register::EFLAGS) & EFLAGS_USER_MASK | EFLAGS_FIXED;
        Registers {
            r15: get(register::R15),
            r14: get(register::R14),
            r13: get(register::R13),
            r12: get(register::R12),
            rbp: get(register::RBP),
            rbx: get(register::RBX),
            r11: eflags,
            r10: get(register::R10),
            r9: get(register::R9),
            r8: get(register::R8),
            rax,
            rcx: rip,
            rdx: get(register::RDX),
            rsi: get(register::RSI),
            rdi: get(register::RDI),
            orig_rax: rax,
            rip,
            cs: USER_CS,
            eflags,
            rsp: get(register::RSP),
            ss: USER_SS,
            fs_base: self.get(area::FS_BASE),
            gs_base: self.get(area::GS_BASE),
        }
    }

    /// Whether the thread can go on with these without a frame: as after a system call, and not step by step.
    pub(crate) fn can_return(regs: &Registers) -> bool {
        let eflags = regs.eflags & EFLAGS_USER_MASK | EFLAGS_FIXED;
        regs.rcx == regs.rip && regs.r11 == eflags && eflags & EFLAGS_TF == 0
    }

    /// Puts in what the thread is to go on with.
    pub(crate) fn set_registers(&self, regs: &Registers) {
        for (i, value) in [
            (register::R15, regs.r15),
            (register::R14, regs.r14),
            (register::R13, regs.r13),
            (register::R12, regs.r12),
            (register::RBP, regs.rbp),
            (register::RBX, regs.rbx),
            (register::R10, regs.r10),
            (register::R9, regs.r9),
            (register::R8, regs.r8),
            (register::RAX, regs.rax),
            (register::RDX, regs.rdx),
            (register::RSI, regs.rsi),
            (register::RDI, regs.rdi),
            (register::RIP, regs.rip),
            (register::EFLAGS, regs.eflags & EFLAGS_USER_MASK | EFLAGS_FIXED),
            (register::RSP, regs.rsp),
        ] {
            self.set(area::REGISTERS + 8 * i, value);
        }
        self.set(area::FS_BASE, canonical(regs.fs_base));
        self.set(area::GS_BASE, canonical(regs.gs_base));
    }
}
