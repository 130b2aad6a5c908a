//! Changing the protection of mappings: `mprotect(2)`.

use quicksand_abi::{Errno, UserAddr, UserRange};
use quicksand_platform::Prot;

use super::vma::{VmFlags, Vma};
use super::{Inner, Limits, MAX_MAP_COUNT, MemoryManager};

/// PROT_GROWSDOWN, PROT_GROWSUP and PROT_SEM, which `libc` does not all name.
pub(super) const PROT_SEM: u32 = 0x8;
pub(super) const PROT_GROWSDOWN: u32 = 0x0100_0000;
pub(super) const PROT_GROWSUP: u32 = 0x0200_0000;

impl MemoryManager {
    /// `mprotect(2)`. As Linux's, it works mapping by mapping: what comes before the first error stays changed.
    /// `read_implies_exec` is the personality's.
    pub fn protect(
        &self,
        limits: &Limits,
        addr: UserAddr,
        len: u64,
        bits: u32,
        read_implies_exec: bool,
    ) -> Result<(), Errno> {
        let grows = bits & (PROT_GROWSDOWN | PROT_GROWSUP);
        if grows == PROT_GROWSDOWN | PROT_GROWSUP || !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        // Linux's arithmetic wraps around here, and asks afterwards.
        let end = UserAddr(len).page_ceil().and_then(|len| addr.checked_add(len.0));
        let end = end.filter(|e| *e > addr).ok_or(Errno::ENOMEM)?;
        let bits = bits & !grows;
        if bits & !(PROT_SEM | (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u32) != 0 {
            return Err(Errno::EINVAL);
        }
        let prot = super::tree::prot_from_bits(bits);
        let mut inner = self.write();
        let first = inner.tree.find_from(addr).ok_or(Errno::ENOMEM)?;
        let mut range = UserRange { start: addr, end };
        if grows == PROT_GROWSDOWN {
            if first.start() >= end || !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            range.start = first.start();
        } else {
            if first.start() > addr {
                return Err(Errno::ENOMEM);
            }
            if grows == PROT_GROWSUP {
                // No mapping grows up on x86.
                return Err(Errno::EINVAL);
            }
        }
        inner.protect(limits, range, prot, read_implies_exec)
    }

    /// `mseal(2)`: nothing in the range can be unmapped, moved or given another protection from now on. All or nothing.
    pub fn seal(&self, addr: UserAddr, len: u64) -> Result<(), Errno> {
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let end = UserAddr(len).page_ceil().and_then(|len| addr.checked_add(len.0)).ok_or(Errno::EINVAL)?;
        let range = UserRange { start: addr, end };
        let mut inner = self.write();
        if !inner.tree.covers(range) {
            return Err(Errno::ENOMEM);
        }
        inner.tree.update(range, |v| v.flags |= VmFlags::SEALED);
        Ok(())
    }
}

impl Inner {
    fn protect(
        &mut self,
        limits: &Limits,
        range: UserRange,
        prot: Prot,
        read_exec: bool,
    ) -> Result<(), Errno> {
        if self.tree.overlapping(range).any(|v| v.flags.contains(VmFlags::SEALED)) {
            return Err(Errno::EPERM);
        }
        let mut at = range.start;
        let mut result = Ok(());
        // Mappings that get one protection are told to the platform together.
        let mut run: Option<(UserRange, Prot)> = None;
        while at < range.end {
            let Some(vma) = self.tree.find(at) else {
                result = Err(Errno::ENOMEM);
                break;
            };
            let part = UserRange { start: at, end: vma.end().min(range.end) };
            let mut wanted = prot;
            wanted.execute |= read_exec && prot.read && vma.max_prot.execute;
            if let Err(error) = self.may_protect(limits, vma, part, wanted) {
                result = Err(error);
                break;
            }
            at = part.end;
            if vma.prot != wanted {
                self.tree.update(part, |v| v.prot = wanted);
            }
            run = match run {
                Some((so_far, prot)) if prot == wanted => Some((UserRange { end: part.end, ..so_far }, prot)),
                Some((so_far, prot)) => {
                    self.space.protect(so_far, prot)?;
                    Some((part, wanted))
                }
                None => Some((part, wanted)),
            };
        }
        if let Some((range, prot)) = run {
            self.space.protect(range, prot)?;
        }
        result
    }

    fn may_protect(&self, limits: &Limits, vma: &Vma, part: UserRange, prot: Prot) -> Result<(), Errno> {
        let max = vma.max_prot;
        if prot.read && !max.read || prot.write && !max.write || prot.execute && !max.execute {
            return Err(Errno::EACCES);
        }
        let cut = vma.prot != prot && part != vma.range;
        if cut && self.tree.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        if prot.write && !vma.prot.write {
            // It becomes data, and is charged.
            let mut changed = vma.clone();
            changed.range = part;
            changed.prot = prot;
            self.may_expand(&changed, 0, &Limits { address_space: u64::MAX, ..*limits })?;
        }
        Ok(())
    }
}
