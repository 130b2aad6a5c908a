//! Mapping, protection, files, and the Sentry's access.

use quicksand_platform::{Access, FaultCause, Platform, Prot};

use crate::support::{DATA, Guest, PAGE, reader, writer};

/// Faults name the exact address and access; a mapped page then works.
pub fn fault_addresses(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    guest.regs.rbx = DATA + 123;
    let fault = guest.fault(DATA + 123, Access::Read, FaultCause::Unmapped);
    assert_eq!(fault.error_code, 4);
    assert_eq!(guest.regs.rip, crate::support::TEXT);
    guest.map(DATA, PAGE, Prot::RW);
    guest.poke(DATA + 123, 0x1122_3344_5566_7788);
    assert_eq!(guest.syscall(), 1);
    assert_eq!(guest.regs.rdx, 0x1122_3344_5566_7788);
    let mut guest = Guest::new(platform, &writer());
    guest.regs.rbx = DATA + PAGE - 4;
    guest.map(DATA, PAGE, Prot::RW);
    let fault = guest.fault(DATA + PAGE, Access::Write, FaultCause::Unmapped);
    assert_eq!(fault.error_code, 6);
}
