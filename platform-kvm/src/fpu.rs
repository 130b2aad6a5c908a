//! Extended (FPU, SSE, AVX) state in the standard XSAVE format: defaults, and cleaning of what comes from guests.

use crate::sys::XsaveArea;

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// The part of the legacy area that is software's.
const SOFTWARE: std::ops::Range<usize> = 464..512;
const XSTATE_BV: usize = 512;
const HEADER: std::ops::Range<usize> = 512..576;

fn get_u64(area: &XsaveArea, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&area.0[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn get_u32(area: &XsaveArea, at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&area.0[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// The MXCSR bits that this processor has.
fn mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Legacy([u8; 512]);
    let mut legacy = Legacy([0; 512]);
    // SAFETY: FXSAVE is part of every x86-64 and writes these 512 aligned bytes.
    unsafe { std::arch::x86_64::_fxsave64(legacy.0.as_mut_ptr()) };
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&legacy.0[MXCSR_MASK..MXCSR_MASK + 4]);
    match u32::from_le_bytes(bytes) {
        // As the manual says for processors that leave it zero.
        0 => 0xffbf,
        mask => mask,
    }
}

/// As after `execve`: FCW 0x37f, MXCSR 0x1f80, all else initial.
pub(crate) fn fresh() -> Box<XsaveArea> {
    let mut area = Box::new(XsaveArea([0; 4096]));
    area.0[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    area.0[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
    // Present, so that the values above count.
    area.0[XSTATE_BV] = 3;
    area
}

/// An area from bytes that anybody may have written: whatever they are, the result loads.
pub(crate) fn sanitized(bytes: &[u8], xcr0: u64) -> Box<XsaveArea> {
    let mut area = Box::new(XsaveArea([0; 4096]));
    let len = bytes.len().min(area.0.len());
    area.0[..len].copy_from_slice(&bytes[..len]);
    if len < HEADER.end {
        // Only the legacy part: both of its components are there.
        area.0[XSTATE_BV..].fill(0);
        area.0[XSTATE_BV] = 3;
    }
    let present = get_u64(&area, XSTATE_BV) & xcr0;
    area.0[HEADER].fill(0);
    area.0[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
    area.0[SOFTWARE].fill(0);
    let mxcsr = get_u32(&area, MXCSR) & mxcsr_mask();
    area.0[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    area
}

/// An area as KVM returned it, reduced to the components that the guest has. Components in their initial state are
/// given their initial contents, as readers of signal frames expect.
pub(crate) fn export(area: &mut XsaveArea, xcr0: u64) {
    let present = get_u64(area, XSTATE_BV) & xcr0;
    area.0[HEADER].fill(0);
    area.0[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&present.to_le_bytes());
    area.0[SOFTWARE].fill(0);
    if present & 1 == 0 {
        area.0[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    }
    if present & 0b110 == 0 {
        area.0[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_are_cleaned() {
        let area = sanitized(&[0xff; 2696], 0b111);
        assert_eq!(get_u64(&area, XSTATE_BV), 0b111);
        assert!(area.0[520..576].iter().all(|b| *b == 0));
        assert_eq!(get_u32(&area, MXCSR) & !mxcsr_mask(), 0);
        assert_eq!(get_u64(&sanitized(&[], 0b111), XSTATE_BV), 3);
    }
}
