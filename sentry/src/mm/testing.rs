//! An address space in memory, for unit tests: what a platform promises, page by page and slowly.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Advice, Backing, MemFault, PlatformError, Prot};

#[derive(Clone, Debug)]
enum Source {
    Anonymous,
    Private(Arc<OwnedFd>, u64),
    Shared(Arc<OwnedFd>, u64),
}

impl Source {
    fn advanced(&self, by: u64) -> Source {
        match self {
            Source::Anonymous => Source::Anonymous,
            Source::Private(fd, at) => Source::Private(fd.clone(), at + by),
            Source::Shared(fd, at) => Source::Shared(fd.clone(), at + by),
        }
    }
}

#[derive(Clone, Debug)]
struct Mapping {
    end: u64,
    prot: Prot,
    source: Source,
}

#[derive(Clone, Debug, Default)]
struct State {
    mappings: BTreeMap<u64, Mapping>,
    /// Private pages, by address.
    pages: HashMap<u64, Vec<u8>>,
}

/// The fake.
#[derive(Debug, Default)]
pub(crate) struct FakeSpace {
    state: Mutex<State>,
}

impl FakeSpace {
    pub(crate) fn new() -> Arc<FakeSpace> {
        Arc::new(FakeSpace::default())
    }
    /// What is mapped at `addr`.
    pub(crate) fn prot_at(&self, addr: UserAddr) -> Option<Prot> {
        self.state.lock().find(addr.0).map(|(_, m)| m.prot)
    }
    /// Bytes mapped in all.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.state.lock().mappings.iter().map(|(start, m)| m.end - start).sum()
    }
}

impl State {
    fn find(&self, addr: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.mappings.range(..=addr).next_back()?;
        (addr < mapping.end).then_some((*start, mapping))
    }
    fn split(&mut self, at: u64) {
        let Some((&start, mapping)) = self.mappings.range_mut(..at).next_back() else { return };
        if at < mapping.end {
            let source = mapping.source.advanced(at - start);
            let upper = Mapping { end: mapping.end, prot: mapping.prot, source };
            mapping.end = at;
            self.mappings.insert(at, upper);
        }
    }
    fn cut(&mut self, range: UserRange) -> Vec<(u64, Mapping)> {
        self.split(range.start.0);
        self.split(range.end.0);
        let keys: Vec<u64> = self.mappings.range(range.start.0..range.end.0).map(|(k, _)| *k).collect();
        keys.into_iter().filter_map(|k| self.mappings.remove(&k).map(|m| (k, m))).collect()
    }
    fn drop_pages(&mut self, range: UserRange) {
        self.pages.retain(|at, _| !range.contains(UserAddr(*at)));
    }
    /// The bytes of a page as the guest would see them, or `None` beyond the end of a file.
    fn page(&self, at: u64, start: u64, mapping: &Mapping) -> Option<Vec<u8>> {
        if let Some(page) = self.pages.get(&at) {
            return Some(page.clone());
        }
        let mut bytes = vec![0; PAGE_SIZE as usize];
        if let Source::Private(fd, offset) | Source::Shared(fd, offset) = &mapping.source {
            let n = rustix::io::pread(&**fd, &mut bytes[..], offset + (at - start)).expect("a test's file");
            if n == 0 {
                return None;
            }
        }
        Some(bytes)
    }
    /// Walks the pages of `len` bytes at `addr`; `step` gets page address, offset in it, and the range of the buffer.
    fn walk(
        &mut self,
        addr: UserAddr,
        len: usize,
        allowed: impl Fn(Prot) -> bool,
        mut step: impl FnMut(&mut Vec<u8>, usize, std::ops::Range<usize>),
        write: bool,
    ) -> Result<(), MemFault> {
        let mut done = 0;
        while done < len {
            let at = addr.0 + done as u64;
            let page_at = at & !(PAGE_SIZE - 1);
            let offset = (at - page_at) as usize;
            let n = (PAGE_SIZE as usize - offset).min(len - done);
            let fault = MemFault { addr: UserAddr(at), done };
            let (start, mapping) = self.find(page_at).filter(|(_, m)| allowed(m.prot)).ok_or(fault)?;
            let mapping = mapping.clone();
            let mut page = self.page(page_at, start, &mapping).ok_or(fault)?;
            step(&mut page, offset, done..done + n);
            if write {
                match &mapping.source {
                    Source::Shared(fd, file) => {
                        rustix::io::pwrite(&**fd, &page, file + (page_at - start)).expect("a test's file");
                    }
                    _ => {
                        self.pages.insert(page_at, page);
                    }
                }
            }
            done += n;
        }
        Ok(())
    }
}

fn own(fd: std::os::fd::BorrowedFd<'_>) -> Arc<OwnedFd> {
    Arc::new(fd.try_clone_to_owned().expect("a descriptor"))
}

impl AddressSpace for FakeSpace {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn map(&self, range: UserRange, prot: Prot, backing: Backing<'_>) -> Result<(), Errno> {
        assert!(range.is_page_aligned() && !range.is_empty() && range.end <= UserAddr::MAP_END);
        let source = match backing {
            Backing::Anonymous => Source::Anonymous,
            Backing::PrivateFile { fd, offset } => Source::Private(own(fd.as_fd()), offset),
            Backing::SharedFile { fd, offset, .. } => Source::Shared(own(fd.as_fd()), offset),
        };
        let mut state = self.state.lock();
        state.cut(range);
        state.drop_pages(range);
        state.mappings.insert(range.start.0, Mapping { end: range.end.0, prot, source });
        Ok(())
    }
    fn unmap(&self, range: UserRange) -> Result<(), Errno> {
        assert!(range.is_page_aligned() && !range.is_empty() && range.end <= UserAddr::MAP_END);
        let mut state = self.state.lock();
        state.cut(range);
        state.drop_pages(range);
        Ok(())
    }
    fn protect(&self, range: UserRange, prot: Prot) -> Result<(), Errno> {
        assert!(range.is_page_aligned() && !range.is_empty() && range.end <= UserAddr::MAP_END);
        let mut state = self.state.lock();
        for (start, mapping) in state.cut(range) {
            state.mappings.insert(start, Mapping { prot, ..mapping });
        }
        Ok(())
    }
    fn relocate(&self, old: UserRange, new_start: UserAddr) -> Result<(), Errno> {
        let new = UserRange::new(new_start, old.len()).expect("in range");
        assert!(!old.overlaps(new) && !old.is_empty());
        let mut state = self.state.lock();
        state.cut(new);
        state.drop_pages(new);
        let shift = |at: u64| at - old.start.0 + new_start.0;
        for (start, mapping) in state.cut(old) {
            state.mappings.insert(shift(start), Mapping { end: shift(mapping.end), ..mapping });
        }
        let moved: Vec<u64> = state.pages.keys().copied().filter(|at| old.contains(UserAddr(*at))).collect();
        for at in moved {
            let page = state.pages.remove(&at).expect("just seen");
            state.pages.insert(shift(at), page);
        }
        Ok(())
    }
    fn advise(&self, range: UserRange, advice: Advice) -> Result<(), Errno> {
        if matches!(advice, Advice::DontNeed | Advice::Free) {
            self.state.lock().drop_pages(range);
        }
        Ok(())
    }
    fn fork(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(FakeSpace { state: Mutex::new(self.state.lock().clone()) }))
    }
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        let len = buf.len();
        let step = |page: &mut Vec<u8>, offset: usize, range: std::ops::Range<usize>| {
            let n = range.len();
            buf[range].copy_from_slice(&page[offset..offset + n]);
        };
        self.state.lock().walk(addr, len, Prot::any, step, false)
    }
    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        let step = |page: &mut Vec<u8>, offset: usize, range: std::ops::Range<usize>| {
            let n = range.len();
            page[offset..offset + n].copy_from_slice(&buf[range]);
        };
        self.state.lock().walk(addr, buf.len(), |p| p.write, step, true)
    }
    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        let step = |page: &mut Vec<u8>, offset: usize, range: std::ops::Range<usize>| {
            let n = range.len();
            page[offset..offset + n].copy_from_slice(&buf[range]);
        };
        self.state.lock().walk(addr, buf.len(), |_| true, step, true)
    }
    fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }
    fn compare_exchange_u32(&self, addr: UserAddr, current: u32, new: u32) -> Result<u32, MemFault> {
        let found = self.load_u32(addr)?;
        if found == current {
            self.write(addr, &new.to_ne_bytes())?;
        }
        Ok(found)
    }
    fn resident(&self, range: UserRange, out: &mut [bool]) {
        let state = self.state.lock();
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = state.pages.contains_key(&(range.start.0 + i as u64 * PAGE_SIZE));
        }
    }
    fn has_contents(&self, range: UserRange, out: &mut [bool]) {
        self.resident(range, out);
    }
    fn resident_bytes(&self) -> u64 {
        self.state.lock().pages.len() as u64 * PAGE_SIZE
    }
}
