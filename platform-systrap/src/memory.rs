//! Copies from and to a stub's memory. The host looks at the guest's own protection while it copies.

use quicksand_abi::{PAGE_SIZE, UserAddr};
use quicksand_platform::MemFault;

use crate::layout::STUB_START;
use crate::threads::Stub;

/// Copies guest memory into `buf`.
pub(crate) fn read(stub: &Stub, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
    let start = buf.as_mut_ptr();
    copy(addr, buf.len(), |done, remote| {
        let local = libc::iovec { iov_base: start.wrapping_add(done).cast(), iov_len: remote.iov_len };
        // SAFETY: the kernel writes to the part of `buf` behind what is done, and no more than it has.
        unsafe { libc::process_vm_readv(stub.process.pid(), &raw const local, 1, &raw const remote, 1, 0) }
    })
}

/// Copies `buf` into guest memory.
pub(crate) fn write(stub: &Stub, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
    let start = buf.as_ptr();
    copy(addr, buf.len(), |done, remote| {
        let local =
            libc::iovec { iov_base: start.wrapping_add(done).cast_mut().cast(), iov_len: remote.iov_len };
        // SAFETY: the kernel reads from the part of `buf` behind what is done, and no more than it has. It writes to
        // the memory of another process: of a stub, below what is the stub's own.
        unsafe { libc::process_vm_writev(stub.process.pid(), &raw const local, 1, &raw const remote, 1, 0) }
    })
}

/// Copies `bytes` to the stub's own memory at `addr`. Whether that is there is the guest's affair.
pub(crate) fn write_own(stub: &Stub, addr: u64, bytes: &[u8]) -> bool {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel reads `bytes`, and writes to the memory of another process.
    let copied =
        unsafe { libc::process_vm_writev(stub.process.pid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied) == Ok(bytes.len())
}

/// Calls `step` with how much is done, and with what remains, until nothing does. A page that cannot be reached ends it at
/// the first byte of that page.
fn copy(addr: UserAddr, len: usize, step: impl Fn(usize, libc::iovec) -> isize) -> Result<(), MemFault> {
    let mut done = 0;
    while done < len {
        let fault = MemFault { addr: UserAddr(addr.0.wrapping_add(done as u64)), done };
        let Some(at) = addr.checked_add(done as u64).filter(|at| at.0 < STUB_START) else {
            return Err(fault);
        };
        let most = (STUB_START - at.0).min((len - done) as u64) as usize;
        let copied = step(done, libc::iovec { iov_base: at.0 as *mut libc::c_void, iov_len: most });
        match usize::try_from(copied) {
            Ok(0) | Err(_) => {
                // A copy that was cut short within a page is tried again from there, so this is a page's beginning, or ours.
                debug_assert!(done == 0 || at.0.is_multiple_of(PAGE_SIZE));
                return Err(fault);
            }
            Ok(copied) => done += copied.min(most),
        }
    }
    Ok(())
}
