//! `memfd_create(2)`'s files: tmpfs files without a name, which can be sealed.

use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;

use super::file::{self, seal};
use super::space::{Space, SpaceStat, UNLIMITED};
use super::{Body, MAGIC, Node, new_inode};
use crate::vfs::{FileKind, Inode, OpenFile, OpenFlags, Owner, Path, Superblock};

/// The kernel-internal mount of shmem: one for the sandbox, without limits.
fn internal() -> &'static (Arc<Superblock>, Arc<Space>) {
    static INTERNAL: OnceLock<(Arc<Superblock>, Arc<Space>)> = OnceLock::new();
    INTERNAL.get_or_init(|| {
        let space = Arc::new(Space::new(UNLIMITED, UNLIMITED));
        (Superblock::new("tmpfs", MAGIC, Box::new(SpaceStat(space.clone()))), space)
    })
}

/// How a memfd may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// MFD_ALLOW_SEALING.
    pub allowed: bool,
    /// MFD_NOEXEC_SEAL: not executable, and sealed so.
    pub noexec: bool,
}

/// A new memfd, open for reading and writing. `name` is shown as `/memfd:NAME`.
pub fn create(name: &[u8], sealing: Sealing, uid: u32, gid: u32) -> Result<Arc<OpenFile>, Errno> {
    let mut data = file::Data::default();
    if sealing.allowed || sealing.noexec {
        data.seals = 0;
    }
    if sealing.noexec {
        data.seals |= seal::EXEC;
    }
    let perm = if sealing.noexec { 0o666 } else { 0o777 };
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    let shown = String::from_utf8_lossy(&shown).into_owned() + " (deleted)";
    Ok(open_new(data, Owner { uid, gid, perm }, &shown))
}

fn open_new(data: file::Data, owner: Owner, shown: &str) -> Arc<OpenFile> {
    let (sb, space) = internal();
    space.force_inode();
    let inode = new_inode(sb, space.clone(), FileKind::Regular, Body::File(data), owner);
    if let Ok(node) = Node::of(&inode) {
        node.state.lock().nlink = 0;
    }
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    // As in Linux it does not count as a writer: a memfd can be executed while it is open.
    OpenFile::new_anonymous(inode, shown, Box::new(file::TmpfsFile), flags)
}

/// The seals of a memfd; `None` where the file is none.
pub(crate) fn seals_of(inode: &Inode) -> Option<u32> {
    if !Arc::ptr_eq(&inode.sb, &internal().0) {
        return None;
    }
    let mut state = Node::of(inode).ok()?.state.lock();
    state.file().ok().map(|data| data.seals)
}

/// An empty memfd that is restored. It has no seals until [`set_seals`]: they would be in the way of its contents and
/// mappings. `shown` is its name with all that is shown around it.
pub(crate) fn restored(shown: &str, owner: Owner) -> Path {
    open_new(file::Data::unsealed(), owner, shown).path.clone()
}

/// An open file on a restored memfd that does not count as a writer.
pub(crate) fn reopen(place: Path, flags: OpenFlags) -> Arc<OpenFile> {
    OpenFile::new(place, Box::new(file::TmpfsFile), flags)
}

/// Gives a restored memfd its seals.
pub(crate) fn set_seals(inode: &Inode, seals: u32) {
    if let Ok(node) = Node::of(inode)
        && let Ok(data) = node.state.lock().file()
    {
        data.seals = seals & seal::ALL;
    }
}
