//! The frame of a signal handler, laid out as x86-64 Linux does, and `rt_sigreturn`.
//!
//! From the top of the stack down: the red zone is skipped, then the extended state (64-byte aligned, in XSAVE's standard
//! format, with the software-reserved bytes that say how long it is), then `rt_sigframe`, so that the stack is
//! aligned at the handler's entry as after a call.
//!
//! Everything read back is an allegation by the guest: flags are masked, selectors fixed, the extended state is
//! sanitised by the platform.

use quicksand_abi::signal::{
    FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, FPX_SW_BYTES_OFFSET, FpxSwBytes, RtSigFrame, SA_ONSTACK, SA_RESTORER,
    SS_AUTODISARM, SS_DISABLE, SigAction, SigContext, SigInfo, StackT, UC_FP_XSTATE, UC_SIGCONTEXT_SS,
    UC_STRICT_RESTORE_SS, UContext,
};
use quicksand_abi::{Errno, UserAddr};
use zerocopy::{FromBytes, IntoBytes};

use super::SignalSet;
use crate::syscalls::{SyscallError, SyscallResult};
use crate::task::CurrentTask;

const RED_ZONE: u64 = 128;
/// Legacy area of an XSAVE image.
const FXSAVE_LEN: usize = 512;
/// XSTATE_BV, right after the legacy area.
const XSTATE_BV: usize = 512;
/// Legacy area and XSAVE header.
const XSAVE_MIN_LEN: usize = 576;
/// x87 and SSE.
const XFEATURES_LEGACY: u8 = 3;

const EFLAGS_DF: u64 = 1 << 10;
const EFLAGS_TF: u64 = 1 << 8;
const EFLAGS_RF: u64 = 1 << 16;
/// What `rt_sigreturn` takes from the frame (FIX_EFLAGS): AC OF DF TF SF ZF AF PF CF RF.
const EFLAGS_RESTORED: u64 = 0x0005_0dd5;

impl CurrentTask {
    /// Whether `sp` is on the alternate stack.
    pub(crate) fn on_altstack(&self, sp: u64) -> bool {
        let stack = self.altstack.get();
        stack.flags & SS_AUTODISARM == 0 && sp > stack.sp && sp - stack.sp <= stack.size
    }

    /// Builds the frame for a handler and points the registers at it. `mask` is what `rt_sigreturn` puts back.
    pub(super) fn push_frame(
        &self,
        info: &SigInfo,
        action: &SigAction,
        mask: SignalSet,
    ) -> Result<(), Errno> {
        // x86-64 has no other way back.
        if action.flags & SA_RESTORER == 0 {
            return Err(Errno::EFAULT);
        }
        let regs = *self.regs.borrow();
        let altstack = self.altstack.get();
        let nested = self.on_altstack(regs.rsp);
        let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
        let mut entering = false;
        if action.flags & SA_ONSTACK != 0 && !nested && altstack.size != 0 {
            sp = altstack.sp.wrapping_add(altstack.size);
            entering = true;
        }
        let (state, extended) = self.saved_xstate()?;
        let fp = sp.wrapping_sub(state.len() as u64) & !63;
        let frame_at = (fp.wrapping_sub(size_of::<RtSigFrame>() as u64) & !15).wrapping_sub(8);
        // Running over the end of the alternate stack must not spill into whatever lies below it.
        if (nested || entering) && !(frame_at > altstack.sp && frame_at - altstack.sp <= altstack.size) {
            return Err(Errno::EFAULT);
        }
        if UserAddr(frame_at) >= UserAddr::TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        let trap = self.trap.get();
        let frame = RtSigFrame {
            return_address: action.restorer,
            uc: UContext {
                flags: UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | if extended { UC_FP_XSTATE } else { 0 },
                link: 0,
                stack: altstack,
                mcontext: SigContext {
                    r8: regs.r8,
                    r9: regs.r9,
                    r10: regs.r10,
                    r11: regs.r11,
                    r12: regs.r12,
                    r13: regs.r13,
                    r14: regs.r14,
                    r15: regs.r15,
                    rdi: regs.rdi,
                    rsi: regs.rsi,
                    rbp: regs.rbp,
                    rbx: regs.rbx,
                    rdx: regs.rdx,
                    rax: regs.rax,
                    rcx: regs.rcx,
                    rsp: regs.rsp,
                    rip: regs.rip,
                    eflags: regs.eflags,
                    cs: 0x33,
                    gs: 0,
                    fs: 0,
                    ss: 0x2b,
                    err: trap.error_code,
                    trapno: trap.number,
                    oldmask: mask.0,
                    cr2: trap.cr2,
                    fpstate: fp,
                    reserved: [0; 8],
                },
                sigmask: mask.0,
            },
            info: *info,
        };
        self.write_user(UserAddr(fp), &state)?;
        self.write_user(UserAddr(frame_at), frame.as_bytes())?;
        if altstack.flags & SS_AUTODISARM != 0 {
            self.altstack.set(StackT { flags: SS_DISABLE, ..StackT::default() });
        }
        let mut regs = self.regs.borrow_mut();
        regs.rdi = info.signo as u64;
        regs.rsi = frame_at + std::mem::offset_of!(RtSigFrame, info) as u64;
        regs.rdx = frame_at + std::mem::offset_of!(RtSigFrame, uc) as u64;
        regs.rax = 0;
        regs.rip = action.handler;
        regs.rsp = frame_at;
        regs.eflags &= !(EFLAGS_DF | EFLAGS_TF | EFLAGS_RF);
        regs.orig_rax = u64::MAX;
        self.context.borrow_mut().reset_extended_state().map_err(|e| self.platform_failed(&e))
    }

    /// Writes to the stack, growing it where it may grow.
    fn write_user(&self, addr: UserAddr, bytes: &[u8]) -> Result<(), Errno> {
        Ok(self.write_bytes(addr, bytes)?)
    }

    /// The extended state as a frame holds it, and whether it is more than the legacy area.
    fn saved_xstate(&self) -> Result<(Vec<u8>, bool), Errno> {
        let len = self.kernel().platform.extended_state_len();
        let mut state = vec![0; len.max(FXSAVE_LEN)];
        self.context
            .borrow_mut()
            .get_extended_state(&mut state[..len])
            .map_err(|e| self.platform_failed(&e))?;
        let extended = len >= XSAVE_MIN_LEN;
        let mut sw = FpxSwBytes::default();
        if extended {
            sw.magic1 = FP_XSTATE_MAGIC1;
            sw.extended_size = (len + 4) as u32;
            sw.xfeatures = self.kernel().platform.xcr0();
            sw.xstate_size = len as u32;
            // The legacy area is always valid in a frame, even where the processor had it in its initial state.
            state[XSTATE_BV] |= XFEATURES_LEGACY;
            state.extend_from_slice(&FP_XSTATE_MAGIC2.to_ne_bytes());
        }
        state[FPX_SW_BYTES_OFFSET..FXSAVE_LEN].copy_from_slice(sw.as_bytes());
        Ok((state, extended))
    }

    /// Takes the extended state back from a frame (`fpu__restore_sig`).
    fn restore_xstate(&self, at: UserAddr) -> Result<(), Errno> {
        let failed = |e: quicksand_platform::PlatformError| self.platform_failed(&e);
        if at.is_null() {
            return self.context.borrow_mut().reset_extended_state().map_err(failed);
        }
        let len = self.kernel().platform.extended_state_len();
        let mut state = vec![0; len.max(XSAVE_MIN_LEN)];
        self.read_bytes(at, &mut state[..FXSAVE_LEN])?;
        let sw = FpxSwBytes::read_from_bytes(&state[FPX_SW_BYTES_OFFSET..FXSAVE_LEN]).unwrap_or_default();
        let size = sw.xstate_size as usize;
        let mut extended = sw.magic1 == FP_XSTATE_MAGIC1
            && (XSAVE_MIN_LEN..=len).contains(&size)
            && sw.extended_size as usize >= size + 4;
        if extended {
            let mut magic2 = [0; 4];
            let end = at.checked_add(size as u64).ok_or(Errno::EFAULT)?;
            self.read_bytes(end, &mut magic2)?;
            extended = u32::from_ne_bytes(magic2) == FP_XSTATE_MAGIC2;
        }
        if extended {
            self.read_bytes(at, &mut state[..size])?;
        } else {
            state[XSTATE_BV] = XFEATURES_LEGACY;
        }
        self.context.borrow_mut().set_extended_state(&state[..len]).map_err(failed)
    }
}

/// `rt_sigreturn(2)`: back to what the frame says.
pub fn sys_rt_sigreturn(task: &CurrentTask) -> SyscallResult {
    if restore_frame(task).is_err() {
        task.force_signal(SigInfo::kernel(libc::SIGSEGV));
    }
    *task.restart_block.borrow_mut() = None;
    Err(SyscallError::NoReturn)
}

fn restore_frame(task: &CurrentTask) -> Result<(), Errno> {
    let sp = task.regs.borrow().rsp;
    // The handler's `ret` has taken the return address off.
    let uc: UContext = task.read_object(UserAddr(sp))?;
    task.set_blocked(SignalSet(uc.sigmask));
    let sc = &uc.mcontext;
    {
        let mut regs = task.regs.borrow_mut();
        regs.r8 = sc.r8;
        regs.r9 = sc.r9;
        regs.r10 = sc.r10;
        regs.r11 = sc.r11;
        regs.r12 = sc.r12;
        regs.r13 = sc.r13;
        regs.r14 = sc.r14;
        regs.r15 = sc.r15;
        regs.rdi = sc.rdi;
        regs.rsi = sc.rsi;
        regs.rbp = sc.rbp;
        regs.rbx = sc.rbx;
        regs.rdx = sc.rdx;
        regs.rax = sc.rax;
        regs.rcx = sc.rcx;
        regs.rsp = sc.rsp;
        regs.rip = sc.rip;
        regs.eflags = (regs.eflags & !EFLAGS_RESTORED) | (sc.eflags & EFLAGS_RESTORED);
        regs.orig_rax = u64::MAX;
    }
    task.restore_xstate(UserAddr(sc.fpstate))?;
    // As Linux: what is wrong with the alternate stack is not this call's affair.
    let _ = super::syscalls::set_altstack(task, &uc.stack, sc.rsp, false);
    Ok(())
}
