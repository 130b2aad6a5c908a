//! `memfd_create(2)`'s files: tmpfs files without a name, which can be sealed.

use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;

use super::file::{self, seal};
use super::space::{Space, SpaceStat, UNLIMITED};
use super::{Body, MAGIC, Node, new_inode};
use crate::vfs::{FileKind, OpenFile, OpenFlags, Owner, Superblock};

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
    // The kernel-internal mount of shmem: one for the sandbox, without limits.
    static INTERNAL: OnceLock<(Arc<Superblock>, Arc<Space>)> = OnceLock::new();
    let (sb, space) = INTERNAL.get_or_init(|| {
        let space = Arc::new(Space::new(UNLIMITED, UNLIMITED));
        (Superblock::new("tmpfs", MAGIC, Box::new(SpaceStat(space.clone()))), space)
    });
    space.force_inode();
    let mut data = file::Data::default();
    if sealing.allowed || sealing.noexec {
        data.seals = 0;
    }
    if sealing.noexec {
        data.seals |= seal::EXEC;
    }
    let perm = if sealing.noexec { 0o666 } else { 0o777 };
    let owner = Owner { uid, gid, perm };
    let inode = new_inode(sb, space.clone(), FileKind::Regular, Body::File(data), owner);
    if let Ok(node) = Node::of(&inode) {
        node.state.lock().nlink = 0;
    }
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    let shown = String::from_utf8_lossy(&shown).into_owned() + " (deleted)";
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    // As in Linux it does not count as a writer: a memfd can be executed while it is open.
    Ok(OpenFile::new_anonymous(inode, &shown, Box::new(file::TmpfsFile), flags))
}
