//! A guest thread with some memory, for this crate's own tests.

use std::sync::Arc;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Backing, Context, Exit, Platform, PlatformError, Prot, Registers};
use quicksand_platform_conformance::code::Code;

use crate::SystrapPlatform;
use crate::space::SystrapSpace;

pub(crate) const TEXT: u64 = 0x40_0000;
pub(crate) const DATA: u64 = 0x10_0000_0000;
pub(crate) const PAGE: u64 = 4096;

pub(crate) fn platform() -> SystrapPlatform {
    SystrapPlatform::new().expect("this host can do it")
}

pub(crate) fn range(start: u64, len: u64) -> UserRange {
    UserRange { start: UserAddr(start), end: UserAddr(start + len) }
}

pub(crate) struct Guest {
    pub(crate) space: Arc<dyn AddressSpace>,
    pub(crate) context: Box<dyn Context>,
    pub(crate) regs: Registers,
}

impl Guest {
    /// About to run `code`, with a page of data and of stack below it.
    pub(crate) fn new(platform: &dyn Platform, code: &Code) -> Guest {
        let space = platform.address_space().expect("space");
        space.map(range(TEXT, PAGE), Prot::RX, Backing::Anonymous).expect("map");
        space.write_forced(UserAddr(TEXT), code.bytes()).expect("write");
        space.map(range(DATA - PAGE, 2 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
        Guest::in_space(platform, &space)
    }
    pub(crate) fn in_space(platform: &dyn Platform, space: &Arc<dyn AddressSpace>) -> Guest {
        let context = platform.context().expect("context");
        let regs = Registers { rip: TEXT, rbx: DATA, rsp: DATA, ..Registers::default() };
        Guest { space: Arc::clone(space), context, regs }
    }
    pub(crate) fn run(&mut self) -> Result<Exit, PlatformError> {
        self.context.run(&self.space, &mut self.regs)
    }
    pub(crate) fn own(&self) -> &SystrapSpace {
        self.space.as_any().downcast_ref().expect("ours")
    }
}

/// The platform still does what it should.
pub(crate) fn assert_well(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().syscall().jump(0));
    guest.regs.rax = 39;
    for _ in 0..3 {
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        assert_eq!(guest.regs.rax, 39);
    }
    let child = guest.space.fork().expect("fork");
    child.write(UserAddr(DATA), &[1]).expect("write");
}
