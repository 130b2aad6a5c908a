//! The address space of a process that has no program yet: one that the host starts, until its first `execve`. Nothing can be
//! in it, so that it needs nothing of the platform.

use std::any::Any;
use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Advice, Backing, MemFault, PlatformError, Prot};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Nowhere;

fn nothing(addr: UserAddr) -> MemFault {
    MemFault { addr, done: 0 }
}

impl AddressSpace for Nowhere {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn map(&self, _: UserRange, _: Prot, _: Backing<'_>) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    fn unmap(&self, _: UserRange) -> Result<(), Errno> {
        Ok(())
    }
    fn protect(&self, _: UserRange, _: Prot) -> Result<(), Errno> {
        Ok(())
    }
    fn relocate(&self, _: UserRange, _: UserAddr) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    fn advise(&self, _: UserRange, _: Advice) -> Result<(), Errno> {
        Ok(())
    }
    fn fork(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(Nowhere))
    }
    fn read(&self, addr: UserAddr, _: &mut [u8]) -> Result<(), MemFault> {
        Err(nothing(addr))
    }
    fn write(&self, addr: UserAddr, _: &[u8]) -> Result<(), MemFault> {
        Err(nothing(addr))
    }
    fn write_forced(&self, addr: UserAddr, _: &[u8]) -> Result<(), MemFault> {
        Err(nothing(addr))
    }
    fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        Err(nothing(addr))
    }
    fn compare_exchange_u32(&self, addr: UserAddr, _: u32, _: u32) -> Result<u32, MemFault> {
        Err(nothing(addr))
    }
    fn resident(&self, _: UserRange, out: &mut [bool]) {
        out.fill(false);
    }
    fn has_contents(&self, range: UserRange, out: &mut [bool]) {
        self.resident(range, out);
    }
    fn resident_bytes(&self) -> u64 {
        0
    }
}
