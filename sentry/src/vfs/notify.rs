//! Telling watchers what happens to files (Linux's `fsnotify`). `inotify` is the only one who watches.
//!
//! An inode knows its watches; an event goes to those of the file, and with its name to those of its directory. As long as
//! nobody in the sandbox watches anything, an event costs one load.
//!
//! Events come from anywhere, files that are closed included, so that nothing but `Leaf` locks is taken here, one at a time.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::Dentry;
use super::inode::Inode;
use super::mount::Path;
use crate::sync::{Level, Mutex};

/// Events, by inotify's numbers.
pub const ACCESS: u32 = 0x1;
pub const MODIFY: u32 = 0x2;
pub const ATTRIB: u32 = 0x4;
pub const CLOSE_WRITE: u32 = 0x8;
pub const CLOSE_NOWRITE: u32 = 0x10;
pub const OPEN: u32 = 0x20;
pub const MOVED_FROM: u32 = 0x40;
pub const MOVED_TO: u32 = 0x80;
pub const CREATE: u32 = 0x100;
pub const DELETE: u32 = 0x200;
pub const DELETE_SELF: u32 = 0x400;
pub const MOVE_SELF: u32 = 0x800;
pub const ISDIR: u32 = 0x4000_0000;

/// Somebody who wants to hear of a file.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// `mask` is one event, with ISDIR where it is about a directory; `name` where it is about an entry of the file.
    fn event(&self, mask: u32, cookie: u32, name: &[u8]);
    /// The file has gone: there will be no more events.
    fn gone(&self);
}

/// The watches of an inode.
#[derive(Default)]
pub struct Watches(OnceLock<Box<List>>);

type List = Mutex<Vec<Arc<dyn Watcher>>>;

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watches")
    }
}

/// How many watches there are in the sandbox.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn anybody() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

impl Watches {
    pub fn add(&self, watcher: Arc<dyn Watcher>) {
        let list = self.0.get_or_init(|| Box::new(Mutex::new(Level::Leaf, Vec::new())));
        list.lock().push(watcher);
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    pub fn remove(&self, watcher: &Arc<dyn Watcher>) {
        let Some(list) = self.0.get() else { return };
        let taken = {
            let mut list = list.lock();
            let found = list.iter().position(|w| std::ptr::addr_eq(Arc::as_ptr(w), Arc::as_ptr(watcher)));
            found.map(|i| list.remove(i))
        };
        if taken.is_some() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }
    fn all(&self) -> Vec<Arc<dyn Watcher>> {
        self.0.get().map_or(Vec::new(), |list| list.lock().clone())
    }
}

fn send(inode: &Inode, mask: u32, cookie: u32, name: &[u8]) {
    for watcher in inode.watches.all() {
        watcher.event(mask, cookie, name);
    }
}

fn of_kind(inode: &Inode, event: u32) -> u32 {
    event | if inode.is_dir() { ISDIR } else { 0 }
}

/// Something happened to the file at a place: its directory hears of it by name, then its own watches.
pub fn file(path: &Path, event: u32) {
    if !anybody() {
        return;
    }
    let (dentry, inode) = (&path.dentry, &path.dentry.inode);
    let mask = of_kind(inode, event);
    if let Some(parent) = dentry.parent()
        && !dentry.is_unlinked()
    {
        send(&parent.inode, mask, 0, &dentry.name());
    }
    send(inode, mask, 0, b"");
}

/// Something happened to the file itself.
pub fn inode(inode: &Inode, event: u32) {
    if anybody() {
        send(inode, of_kind(inode, event), 0, b"");
    }
}

/// An entry of a directory was made or taken away.
pub fn entry(dir: &Inode, name: &[u8], event: u32, target: &Inode) {
    if anybody() {
        send(dir, of_kind(target, event), 0, name);
    }
}

/// `moved` got from one place to another; `replaced` had that place.
pub fn moved(old_dir: &Inode, old: &[u8], new_dir: &Inode, new: &[u8], moved: &Inode) {
    static COOKIE: AtomicU32 = AtomicU32::new(1);
    if anybody() {
        let cookie = COOKIE.fetch_add(1, Ordering::Relaxed);
        send(old_dir, of_kind(moved, MOVED_FROM), cookie, old);
        send(new_dir, of_kind(moved, MOVED_TO), cookie, new);
        send(moved, of_kind(moved, MOVE_SELF), 0, b"");
    }
}

/// A file lost a name. With its last one it is gone for its watches, though it may still be open.
pub fn unlinked(dentry: &Dentry) {
    if !anybody() {
        return;
    }
    let inode = &dentry.inode;
    let gone = inode.is_dir() || inode.attr().is_ok_and(|a| a.nlink == 0);
    if gone {
        send(inode, DELETE_SELF, 0, b"");
        for watcher in inode.watches.all() {
            watcher.gone();
            inode.watches.remove(&watcher);
        }
    }
}
