//! What `/proc/PID/maps`, `smaps`, `statm` and `status` say, and the keys of futexes.

use std::fmt::Write;
use std::sync::Arc;

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::Prot;

use super::vma::{VmFlags, Vma, VmaBacking};
use super::{Inner, MemoryManager};
use crate::vfs::{DeviceId, OpenFile};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub struct MapsEntry {
    pub range: UserRange,
    pub prot: Prot,
    pub flags: VmFlags,
    pub offset: u64,
    pub dev: DeviceId,
    pub ino: u64,
    pub name: MapsName,
    /// For `smaps`: whether it has a file or shared memory behind it.
    pub anonymous: bool,
}

/// The last column.
#[derive(Clone, Debug)]
pub enum MapsName {
    None,
    /// To be shown as the reader's root sees it.
    File(Arc<OpenFile>),
    Text(Vec<u8>),
}

impl MapsEntry {
    /// The line up to the name: addresses, permissions, offset, device, inode.
    pub fn prefix(&self) -> String {
        let bit = |yes: bool, c: char| if yes { c } else { '-' };
        let mut out = String::with_capacity(74);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            self.range.start.0,
            self.range.end.0,
            bit(self.prot.read, 'r'),
            bit(self.prot.write, 'w'),
            bit(self.prot.execute, 'x'),
            if self.flags.contains(VmFlags::SHARED) { 's' } else { 'p' },
            self.offset,
            self.dev.major,
            self.dev.minor,
            self.ino
        );
        out
    }

    /// The whole line with its newline. `name` is the last column: [`MapsEntry::name`] with a file's path resolved.
    pub fn line(&self, name: &[u8]) -> Vec<u8> {
        let mut line = self.prefix();
        if !name.is_empty() {
            while line.len() < 73 {
                line.push(' ');
            }
        }
        let mut line = line.into_bytes();
        for byte in name {
            // A newline would be taken for the end of the line.
            if *byte == b'\n' { line.extend_from_slice(b"\\012") } else { line.push(*byte) }
        }
        line.push(b'\n');
        line
    }

    /// The `VmFlags:` line of `smaps`, without its newline.
    pub fn vm_flags(&self, max_prot: Prot) -> String {
        let mut out = String::from("VmFlags: ");
        let flags = [
            (self.prot.read, "rd"),
            (self.prot.write, "wr"),
            (self.prot.execute, "ex"),
            (self.flags.contains(VmFlags::SHARED), "sh"),
            (max_prot.read, "mr"),
            (max_prot.write, "mw"),
            (max_prot.execute, "me"),
            (self.flags.contains(VmFlags::SHARED), "ms"),
            (self.flags.contains(VmFlags::GROWSDOWN), "gd"),
            (self.flags.contains(VmFlags::LOCKED), "lo"),
            (self.flags.contains(VmFlags::SEQ_READ), "sr"),
            (self.flags.contains(VmFlags::RAND_READ), "rr"),
            (self.flags.contains(VmFlags::DONTFORK), "dc"),
            (self.flags.contains(VmFlags::SPECIAL), "de"),
            (self.prot.write && !self.flags.contains(VmFlags::SHARED), "ac"),
            (self.flags.contains(VmFlags::NORESERVE), "nr"),
            (self.flags.contains(VmFlags::WIPEONFORK), "wf"),
            (self.flags.contains(VmFlags::DONTDUMP), "dd"),
            (self.flags.contains(VmFlags::HUGEPAGE), "hg"),
            (self.flags.contains(VmFlags::NOHUGEPAGE), "nh"),
            (self.flags.contains(VmFlags::SEALED), "sl"),
        ];
        for (_, name) in flags.into_iter().filter(|(set, _)| *set) {
            out.push_str(name);
            out.push(' ');
        }
        out
    }
}

/// The numbers of `/proc/PID/statm` and of the `Vm…` lines of `status`, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// VmSize, and its peak.
    pub total: u64,
    pub peak_total: u64,
    /// VmRSS, and its peak (VmHWM).
    pub resident: u64,
    pub peak_resident: u64,
    /// VmData: data without stacks; VmStk; VmExe (the program's code); VmLib (other code); VmLck.
    pub data: u64,
    pub stack: u64,
    pub text: u64,
    pub lib: u64,
    pub locked: u64,
}

/// What identifies a futex (`union futex_key`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexKey {
    /// A word that only one address space can reach. `shared_op`: the call did not say FUTEX_PRIVATE_FLAG; such waiters
    /// and private ones do not meet, as in Linux.
    Private {
        mm: u64,
        addr: UserAddr,
        shared_op: bool,
    },
    /// A word of a file, by its inode's id, or of shared memory, by its id.
    File {
        inode: u64,
        offset: u64,
    },
    Memory {
        id: u64,
        offset: u64,
    },
}

impl MemoryManager {
    /// All mappings, as `/proc/PID/maps` shows them.
    pub fn maps(&self) -> Vec<MapsEntry> {
        let inner = self.read();
        inner.tree.iter().map(|v| inner.entry(v)).collect()
    }

    /// The same with what `mprotect` may set, for `smaps`.
    pub fn maps_with_max_prot(&self) -> Vec<(MapsEntry, Prot)> {
        let inner = self.read();
        inner.tree.iter().map(|v| (inner.entry(v), v.max_prot)).collect()
    }

    pub fn usage(&self) -> Usage {
        let (resident, peak_resident) = self.resident_bytes();
        let inner = self.read();
        let counters = inner.tree.counters();
        let code = inner.marks.end_code.page_ceil().unwrap_or_default().0;
        let text = code.saturating_sub(inner.marks.start_code.page_floor().0) / PAGE_SIZE;
        let resident = (resident / PAGE_SIZE).min(counters.total);
        Usage {
            total: counters.total,
            peak_total: inner.peak_total,
            resident,
            peak_resident: (peak_resident / PAGE_SIZE).max(resident),
            data: counters.data,
            stack: counters.stack,
            text: text.min(counters.exec),
            lib: counters.exec.saturating_sub(text),
            locked: counters.locked,
        }
    }

    /// Names the anonymous memory of a range (`prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`); `None` takes names away.
    /// EBADF where a file is mapped there, ENOMEM for holes.
    pub fn set_anon_name(&self, addr: UserAddr, len: u64, name: Option<&[u8]>) -> Result<(), Errno> {
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let len = UserAddr(len).page_ceil().ok_or(Errno::EINVAL)?;
        let range = UserRange::new(addr, len.0).ok_or(Errno::EINVAL)?;
        let name: Option<Arc<[u8]>> = name.map(Into::into);
        let mut inner = self.write();
        let mut at = range.start;
        let mut hole = false;
        while at < range.end {
            let Some(vma) = inner.tree.find_from(at).filter(|v| v.start() < range.end) else {
                return Err(Errno::ENOMEM);
            };
            hole |= vma.start() > at;
            if !matches!(vma.backing, VmaBacking::Anon | VmaBacking::SharedAnon { .. }) {
                return Err(Errno::EBADF);
            }
            let part = UserRange { start: vma.start().max(at), end: vma.end().min(range.end) };
            at = part.end;
            inner.tree.update(part, |v| v.anon_name = name.clone());
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// The key of the futex at `addr`. `private` is FUTEX_PRIVATE_FLAG. EINVAL where it is not aligned, EFAULT where a
    /// futex that may be shared is not mapped.
    pub fn futex_key(&self, addr: UserAddr, private: bool) -> Result<FutexKey, Errno> {
        if !addr.0.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if addr >= UserAddr::TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        if private {
            return Ok(FutexKey::Private { mm: self.id, addr, shared_op: false });
        }
        let inner = self.read();
        let vma = inner.tree.find(addr).filter(|v| v.prot.any()).ok_or(Errno::EFAULT)?;
        let by = addr.0 - vma.start().0;
        Ok(match &vma.backing {
            VmaBacking::SharedAnon { memory, offset } => {
                FutexKey::Memory { id: memory.id, offset: offset + by }
            }
            // A private page that can be written is a copy by the time anybody waits on it.
            VmaBacking::File { file, offset, .. } if vma.is_shared() || !vma.prot.write => {
                FutexKey::File { inode: file.inode.id, offset: offset + by }
            }
            _ => FutexKey::Private { mm: self.id, addr, shared_op: true },
        })
    }
}

impl Inner {
    fn entry(&self, vma: &Vma) -> MapsEntry {
        let mut entry = MapsEntry {
            range: vma.range,
            prot: vma.prot,
            flags: vma.flags,
            offset: 0,
            dev: DeviceId::default(),
            ino: 0,
            name: MapsName::None,
            anonymous: vma.is_anonymous(),
        };
        let text = |s: &str| MapsName::Text(s.as_bytes().to_vec());
        let named = |kind: &str, name: &[u8]| [b"[", kind.as_bytes(), b":", name, b"]"].concat();
        match &vma.backing {
            VmaBacking::File { file, offset, .. } => {
                entry.offset = *offset;
                entry.dev = file.inode.sb.dev;
                entry.ino = file.inode.ino;
                entry.name = MapsName::File(file.clone());
            }
            VmaBacking::SharedAnon { memory, offset } => {
                entry.offset = *offset;
                entry.dev = DeviceId::new(0, 1);
                entry.ino = memory.id;
                entry.name = match (&vma.anon_name, memory.key) {
                    (Some(name), _) => MapsName::Text(named("anon_shmem", name)),
                    (None, Some(key)) => text(&format!("/SYSV{key:08x} (deleted)")),
                    (None, None) => text("/dev/zero (deleted)"),
                };
            }
            VmaBacking::Special { name, .. } => entry.name = text(name),
            VmaBacking::Anon => {
                let marks = &self.marks;
                let stack = marks.start_stack;
                entry.name = if vma.start() < marks.brk && vma.end() > marks.start_brk {
                    text("[heap]")
                } else if vma.start() <= stack && stack <= vma.end() {
                    text("[stack]")
                } else {
                    vma.anon_name.as_ref().map_or(MapsName::None, |name| MapsName::Text(named("anon", name)))
                };
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let entry = MapsEntry {
            range: UserRange { start: UserAddr(0x400000), end: UserAddr(0x401000) },
            prot: Prot::RX,
            flags: VmFlags::empty(),
            offset: 0x2000,
            dev: DeviceId::new(0xfe, 0),
            ino: 247030,
            name: MapsName::None,
            anonymous: false,
        };
        let line = |name: &[u8]| String::from_utf8(entry.line(name)).unwrap();
        let expected =
            "00400000-00401000 r-xp 00002000 fe:00 247030                             /usr/bin/cat\n";
        assert_eq!(line(b"/usr/bin/cat"), expected);
        assert_eq!(line(b""), "00400000-00401000 r-xp 00002000 fe:00 247030 \n");
    }
}
