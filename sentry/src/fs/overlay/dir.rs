//! Directories of an overlay: what differs from the lower directory, and what is known of it.
//!
//! The order of reading: the lower directory's entries in its own order (cookies from 2), then those that were added
//! (cookies from [`FIRST_ADDED`], never used again). A name that the lower directory has keeps its place in the order,
//! whatever it leads to now.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use quicksand_abi::Errno;

use super::Overlay;
use super::inode::Node;
use crate::fs::tmpfs::emit_dots;
use crate::task::CurrentTask;
use crate::vfs::{DirEntry, DirSink, FileKind, FileName, FileOps, Inode, OpenFile, OpenFlags};

/// Cookies of `.` and `..` are 0 and 1.
const FIRST_LOWER: u64 = 2;
const FIRST_ADDED: u64 = 1 << 32;
/// After so many names that were not there, the lower directory is read as a whole.
const MISSES: u32 = 8;
/// So many names that are not there are remembered at most.
const MAX_ABSENT: usize = 1024;

/// What a name leads to, where that is known.
#[derive(Debug)]
pub(super) enum Entry {
    Child {
        inode: Arc<Inode>,
        /// The place in the order of reading; 0 where the lower directory has the name, too.
        cookie: u64,
    },
    /// The lower directory has it, but it was removed.
    Whiteout,
    /// The lower directory does not have it.
    Absent,
}

/// A name, and what it leads to: `None` where it was removed.
pub(crate) type Known = (Box<FileName>, Option<Arc<Inode>>);

/// An entry of the lower directory, as it was read.
#[derive(Debug)]
struct Listed {
    name: Box<FileName>,
    ino: u64,
    kind: FileKind,
}

/// The lower directory's entries, in its order; and by name, as indices.
#[derive(Debug)]
struct Listing {
    entries: Vec<Listed>,
    by_name: Vec<u32>,
}

impl Listing {
    fn has(&self, name: &FileName) -> bool {
        let at = |i: &u32| self.entries.get(*i as usize).map_or(&[][..], |e| &e.name);
        self.by_name.binary_search_by(|i| at(i).cmp(name)).is_ok()
    }
}

/// A directory's own state.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: HashMap<Box<FileName>, Entry>,
    /// Names of children that the lower directory does not have, in their order.
    added: BTreeMap<u64, Box<FileName>>,
    next_added: u64,
    listing: Option<Box<Listing>>,
    misses: u32,
    absent: usize,
}

impl Directory {
    pub(super) fn get(&self, name: &FileName) -> Option<&Entry> {
        self.entries.get(name)
    }
    /// Whether the lower directory is known not to have the name.
    pub(super) fn lacks(&self, name: &FileName) -> bool {
        self.listing.as_ref().is_some_and(|l| !l.has(name))
    }
    /// The name was found below.
    pub(super) fn found(&mut self, name: &FileName, inode: Arc<Inode>) {
        self.entries.insert(name.into(), Entry::Child { inode, cookie: 0 });
    }
    /// The name was not found below; true where the whole directory should be read.
    pub(super) fn missed(&mut self, name: &FileName) -> bool {
        if self.absent >= MAX_ABSENT {
            self.entries.retain(|_, e| !matches!(e, Entry::Absent));
            self.absent = 0;
        }
        self.entries.insert(name.into(), Entry::Absent);
        self.absent += 1;
        self.misses += 1;
        self.misses == MISSES
    }

    /// Whether the lower directory has the name, where that is known.
    pub(super) fn shadows(&self, name: &FileName) -> Option<bool> {
        match self.entries.get(name) {
            Some(Entry::Child { cookie, .. }) => Some(*cookie == 0),
            Some(Entry::Whiteout) => Some(true),
            Some(Entry::Absent) => Some(false),
            None => self.listing.as_ref().map(|l| l.has(name)),
        }
    }

    /// Adds or replaces an entry. `shadows`: the lower directory has the name, too.
    pub(super) fn insert(&mut self, name: &FileName, inode: Arc<Inode>, shadows: bool) {
        let cookie = match self.entries.get(name) {
            Some(Entry::Child { cookie, .. }) => *cookie,
            Some(Entry::Absent) => {
                self.absent = self.absent.saturating_sub(1);
                self.next_cookie()
            }
            _ if shadows => 0,
            _ => self.next_cookie(),
        };
        if cookie != 0 {
            self.added.insert(cookie, name.into());
        }
        self.entries.insert(name.into(), Entry::Child { inode, cookie });
    }

    fn next_cookie(&mut self) -> u64 {
        self.next_added += 1;
        FIRST_ADDED + self.next_added
    }

    /// Takes an entry away.
    pub(super) fn remove(&mut self, name: &FileName) -> Option<Arc<Inode>> {
        match self.entries.remove(name) {
            Some(Entry::Child { inode, cookie: 0 }) => {
                self.entries.insert(name.into(), Entry::Whiteout);
                Some(inode)
            }
            Some(Entry::Child { inode, cookie }) => {
                self.added.remove(&cookie);
                Some(inode)
            }
            _ => None,
        }
    }

    /// The name leads to another inode now.
    pub(super) fn replace(&mut self, name: &FileName, new: Arc<Inode>) -> Option<Arc<Inode>> {
        match self.entries.get_mut(name) {
            Some(Entry::Child { inode, .. }) => Some(std::mem::replace(inode, new)),
            _ => None,
        }
    }

    /// Whether nothing is known that the lower directory would not tell again.
    pub(super) fn is_clean(&self) -> bool {
        self.added.is_empty() && self.entries.values().all(|e| matches!(e, Entry::Absent))
    }

    /// Forgets a child that the lower directory has.
    pub(super) fn forget(&mut self, name: &FileName) -> Option<Entry> {
        match self.entries.get(name) {
            Some(Entry::Child { cookie: 0, .. }) => self.entries.remove(name),
            _ => None,
        }
    }

    /// What is known to be there or removed, by name: whiteouts are `None`.
    pub(super) fn known(&self) -> Vec<Known> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(name, entry)| match entry {
                Entry::Child { inode, .. } => Some((name.clone(), Some(inode.clone()))),
                Entry::Whiteout => Some((name.clone(), None)),
                Entry::Absent => None,
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
    /// The name that the lower directory has is removed, whatever it leads to.
    pub(super) fn white_out(&mut self, name: &FileName) {
        self.entries.insert(name.into(), Entry::Whiteout);
    }
    pub(super) fn take_all(&mut self) -> Vec<Arc<Inode>> {
        let entries = std::mem::take(&mut self.entries).into_values();
        entries
            .filter_map(|e| match e {
                Entry::Child { inode, .. } => Some(inode),
                _ => None,
            })
            .collect()
    }

    /// Reads the lower directory, once.
    pub(super) fn load(&mut self, fs: &Overlay, lower: &Arc<Inode>, task: &CurrentTask) -> Result<(), Errno> {
        if self.listing.is_some() {
            return Ok(());
        }
        let mut sink = Collect::default();
        let file = fs.open_inner(lower, OpenFlags::DIRECTORY, task)?;
        loop {
            let before = sink.next;
            file.ops.read_dir(&file, task, before, &mut sink)?;
            if sink.next == before {
                break;
            }
        }
        let entries = sink.entries;
        let mut by_name: Vec<u32> = (0..u32::try_from(entries.len()).map_err(|_| Errno::ENOMEM)?).collect();
        by_name.sort_by(|a, b| entries[*a as usize].name.cmp(&entries[*b as usize].name));
        self.listing = Some(Box::new(Listing { entries, by_name }));
        // The listing knows better, and for all names.
        self.entries.retain(|_, e| !matches!(e, Entry::Absent));
        self.absent = 0;
        Ok(())
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.listing.is_some()
    }

    /// Whether nothing is left, where the lower directory was read or there is none.
    pub(super) fn is_empty(&self) -> bool {
        if self.entries.values().any(|e| matches!(e, Entry::Child { .. })) {
            return false;
        }
        let listed = self.listing.iter().flat_map(|l| &l.entries);
        listed.into_iter().all(|e| matches!(self.entries.get(&e.name), Some(Entry::Whiteout)))
    }

    /// The size that tmpfs would show.
    pub(super) fn size(&self) -> u64 {
        20 * (2 + self.added.len() as u64)
    }

    fn emit(&self, from: u64, sink: &mut dyn DirSink) {
        if from < FIRST_ADDED {
            let listed = self.listing.iter().flat_map(|l| &l.entries);
            let skip = from.saturating_sub(FIRST_LOWER);
            for (i, listed) in listed.enumerate().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
                let (ino, kind) = match self.entries.get(&listed.name) {
                    Some(Entry::Child { inode, .. }) => (inode.ino, inode.kind),
                    Some(Entry::Whiteout) => continue,
                    Some(Entry::Absent) | None => (listed.ino, listed.kind),
                };
                let next = FIRST_LOWER + i as u64 + 1;
                if !sink.emit(DirEntry { ino, kind, name: &listed.name, next }) {
                    return;
                }
            }
        }
        for (cookie, name) in self.added.range(from.max(FIRST_ADDED)..) {
            let Some(Entry::Child { inode, .. }) = self.entries.get(name) else { continue };
            let entry = DirEntry { ino: inode.ino, kind: inode.kind, name, next: cookie + 1 };
            if !sink.emit(entry) {
                return;
            }
        }
    }
}

/// Takes in a lower directory.
#[derive(Default)]
struct Collect {
    entries: Vec<Listed>,
    next: u64,
}

impl DirSink for Collect {
    fn emit(&mut self, entry: DirEntry<'_>) -> bool {
        self.next = entry.next;
        if entry.name != b"." && entry.name != b".." {
            self.entries.push(Listed { name: entry.name.into(), ino: entry.ino, kind: entry.kind });
        }
        true
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct OverlayDir;

impl FileOps for OverlayDir {
    fn read_dir(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        from: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), Errno> {
        if !emit_dots(file, from, sink) {
            return Ok(());
        }
        let node = Node::of(&file.inode)?;
        let mut state = node.state.lock();
        if let Some(lower) = &node.lower {
            state.dir.load(&node.fs, lower, task)?;
        }
        state.dir.emit(from, sink);
        Ok(())
    }
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}
