//! Extended (FPU, SSE, AVX) state in the standard XSAVE format, and as it lies in a signal frame.
//!
//! The kernel loads it from a frame in guest-writable memory, and copes with whatever is there; what comes from guests
//! through the Sentry is cleaned nevertheless, so that it means the same on every platform.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// The largest state that guests may have.
pub(crate) const MAX_LEN: usize = 4096;

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// The part of the legacy area that is software's: in a frame, the kernel's description of what follows.
pub(crate) const SOFTWARE: std::ops::Range<usize> = 464..512;
pub(crate) const XSTATE_BV: usize = 512;
const HEADER: std::ops::Range<usize> = 512..576;
/// x87, SSE, AVX, and the three of AVX-512: as the other platforms.
const OFFERED: u64 = 0xe7;

const FRAME_MAGIC_1: u32 = 0x4650_5853;
pub(crate) const FRAME_MAGIC_2: u32 = 0x4650_5845;

/// What this processor has and guests see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) xcr0: u64,
    pub(crate) xsave_len: usize,
    mxcsr_mask: u32,
}

/// `None` where the processor or the kernel knows no XSAVE.
pub(crate) fn cpu() -> Option<Cpu> {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return None;
    }
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: OSXSAVE is set, so the instruction is there for user code.
    let xcr0 = unsafe { xcr0() } & OFFERED;
    let end = |i: u32| {
        let component = __cpuid_count(0xd, i);
        component.ebx.saturating_add(component.eax) as usize
    };
    let ends = (2..63).filter(|i| xcr0 >> i & 1 != 0).map(end);
    let xsave_len = ends.max().unwrap_or(0).clamp(HEADER.end, MAX_LEN);
    Some(Cpu { xcr0, xsave_len, mxcsr_mask: mxcsr_mask() })
}

/// The MXCSR bits that this processor has.
fn mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Legacy([u8; 512]);
    let mut legacy = Legacy([0; 512]);
    // SAFETY: FXSAVE is part of every x86-64 and writes these 512 aligned bytes.
    unsafe { std::arch::x86_64::_fxsave64(legacy.0.as_mut_ptr()) };
    match get_u32(&legacy.0, MXCSR_MASK) {
        // As the manual says for processors that leave it zero.
        0 => 0xffbf,
        mask => mask,
    }
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(get_u32(bytes, at)) | u64::from(get_u32(bytes, at + 4)) << 32
}

/// A state of [`Cpu::xsave_len`] bytes.
#[derive(Clone, Debug)]
pub(crate) struct State(pub(crate) Box<[u8]>);

impl Cpu {
    /// As after `execve`: FCW 0x37f, MXCSR 0x1f80, all else initial.
    pub(crate) fn fresh(&self) -> State {
        let mut area = vec![0; self.xsave_len].into_boxed_slice();
        area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        // Present, so that the values above count.
        area[XSTATE_BV] = 3;
        State(area)
    }

    /// A state from bytes that anybody may have written: whatever they are, the result loads.
    pub(crate) fn sanitized(&self, bytes: &[u8]) -> State {
        let mut area = vec![0; self.xsave_len].into_boxed_slice();
        let len = bytes.len().min(area.len());
        area[..len].copy_from_slice(&bytes[..len]);
        if len < HEADER.end {
            // Only the legacy part: both of its components are there.
            area[XSTATE_BV..].fill(0);
            area[XSTATE_BV] = 3;
        }
        let present = get_u64(&area, XSTATE_BV) & self.xcr0;
        area[HEADER].fill(0);
        area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
        area[SOFTWARE].fill(0);
        let mxcsr = get_u32(&area, MXCSR) & self.mxcsr_mask;
        area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        State(area)
    }

    /// A state as the kernel left it in a frame. Components in their initial state are given their initial contents, as
    /// readers of signal frames expect.
    pub(crate) fn export(&self, mut bytes: Box<[u8]>) -> State {
        let present = get_u64(&bytes, XSTATE_BV);
        if present & 1 == 0 {
            bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        }
        if present & 0b110 == 0 {
            bytes[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        }
        self.sanitized(&bytes)
    }

    /// What the kernel wants to find in the software's part of a frame's state.
    pub(crate) fn software_bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        let len = self.xsave_len as u32;
        bytes[0..4].copy_from_slice(&FRAME_MAGIC_1.to_le_bytes());
        bytes[4..8].copy_from_slice(&(len + 4).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.xcr0.to_le_bytes());
        bytes[16..20].copy_from_slice(&len.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_are_cleaned() {
        let cpu = cpu().unwrap();
        let state = cpu.sanitized(&[0xff; 2696]).0;
        assert_eq!(get_u64(&state, XSTATE_BV), cpu.xcr0);
        assert!(state[520..576].iter().all(|b| *b == 0));
        assert_eq!(get_u32(&state, MXCSR) & !cpu.mxcsr_mask, 0);
        assert_eq!(get_u64(&cpu.sanitized(&[]).0, XSTATE_BV), 3);
    }
}
