//! Directories of tmpfs. Each entry has a cookie that grows and is never used again: reading goes on from a cookie, so an
//! entry that stays is seen exactly once whatever comes and goes meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use quicksand_abi::Errno;

use super::Node;
use crate::task::CurrentTask;
use crate::vfs::{DirEntry, DirSink, FileKind, FileName, FileOps, Inode, OpenFile};

/// The cookies of `.` and `..` are 0 and 1.
const FIRST_COOKIE: u64 = 2;

/// What a directory holds.
#[derive(Debug)]
pub(super) struct Entries {
    by_name: HashMap<Box<FileName>, u64>,
    by_cookie: BTreeMap<u64, (Box<FileName>, Arc<Inode>)>,
    next: u64,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries { by_name: HashMap::new(), by_cookie: BTreeMap::new(), next: FIRST_COOKIE }
    }
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }
    pub(super) fn get(&self, name: &FileName) -> Option<Arc<Inode>> {
        let cookie = self.by_name.get(name)?;
        self.by_cookie.get(cookie).map(|(_, inode)| inode.clone())
    }
    pub(super) fn insert(&mut self, name: &FileName, inode: Arc<Inode>) {
        let cookie = self.next;
        self.next += 1;
        self.by_name.insert(name.into(), cookie);
        self.by_cookie.insert(cookie, (name.into(), inode));
    }
    pub(super) fn remove(&mut self, name: &FileName) -> Option<Arc<Inode>> {
        let cookie = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie).map(|(_, inode)| inode)
    }
    pub(super) fn replace(&mut self, name: &FileName, inode: Arc<Inode>) -> Option<Arc<Inode>> {
        let cookie = self.by_name.get(name)?;
        let entry = self.by_cookie.get_mut(cookie)?;
        Some(std::mem::replace(&mut entry.1, inode))
    }
    /// All, in their order.
    pub(super) fn list(&self) -> Vec<(Box<FileName>, Arc<Inode>)> {
        self.by_cookie.values().cloned().collect()
    }
    pub(super) fn take_all(&mut self) -> Vec<Arc<Inode>> {
        self.by_name.clear();
        std::mem::take(&mut self.by_cookie).into_values().map(|(_, inode)| inode).collect()
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct TmpfsDir;

impl FileOps for TmpfsDir {
    fn read_dir(
        &self,
        file: &OpenFile,
        _task: &CurrentTask,
        from: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), Errno> {
        if !emit_dots(file, from, sink) {
            return Ok(());
        }
        let mut state = Node::of(&file.inode)?.state.lock();
        for (cookie, (name, inode)) in state.dir()?.by_cookie.range(from.max(FIRST_COOKIE)..) {
            let entry = DirEntry { ino: inode.ino, kind: inode.kind, name, next: cookie + 1 };
            if !sink.emit(entry) {
                break;
            }
        }
        Ok(())
    }
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}

/// Emits `.` (cookie 0) and `..` (cookie 1) where `from` comes before them; false where the sink is full.
pub(crate) fn emit_dots(file: &OpenFile, from: u64, sink: &mut dyn DirSink) -> bool {
    let dots = [(0, &b"."[..], file.inode.ino), (1, b"..", parent_ino(file))];
    for (cookie, name, ino) in dots {
        if from <= cookie && !sink.emit(DirEntry { ino, kind: FileKind::Directory, name, next: cookie + 1 }) {
            return false;
        }
    }
    true
}

fn parent_ino(file: &OpenFile) -> u64 {
    file.path.dentry.parent().map_or(file.inode.ino, |p| p.inode.ino)
}
