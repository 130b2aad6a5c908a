//! Copy-up: a lower file gets an upper node when its attributes change, and its contents when they do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::Errno;

use super::inode::{Node, State};
use crate::fs::tmpfs;
use crate::vfs::{FileKind, HostMapping, Inode, LinkTarget, NewNode, Owner, SetAttr};

/// Bytes copied in one step.
const CHUNK: usize = 1 << 20;

impl Node {
    /// The upper node; made now, with the lower file's attributes, where there is none.
    pub(super) fn upper(&self, state: &mut State) -> Result<Arc<Inode>, Errno> {
        if let Some(upper) = &state.upper {
            return Ok(upper.clone());
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let attr = state.lower_attr.clone().ok_or(Errno::EIO)?;
        let owner = Owner { uid: attr.uid, gid: attr.gid, perm: attr.perm };
        let target;
        let node = match lower.kind {
            FileKind::Regular | FileKind::Anonymous => NewNode::Regular,
            FileKind::Directory => NewNode::Directory,
            FileKind::Fifo => NewNode::Fifo,
            FileKind::Socket => NewNode::Socket,
            FileKind::CharDevice => NewNode::CharDevice(attr.rdev),
            FileKind::BlockDevice => NewNode::BlockDevice(attr.rdev),
            FileKind::Symlink => {
                target = match lower.ops.read_link(lower, None)? {
                    LinkTarget::Path(text) => text,
                    LinkTarget::Jump(_) => return Err(Errno::EPERM),
                };
                NewNode::Symlink(&target)
            }
        };
        let upper = self.fs.layer.make(&node, owner)?;
        let times = SetAttr { atime: Some(attr.atime), mtime: Some(attr.mtime), ..SetAttr::default() };
        upper.ops.set_attr(&upper, &times)?;
        let names = match lower.ops.list_xattr(lower) {
            Err(Errno::EOPNOTSUPP) => Vec::new(),
            other => other?,
        };
        for name in names {
            match lower.ops.get_xattr(lower, &name) {
                Ok(value) => upper.ops.set_xattr(&upper, &name, &value, 0)?,
                Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        state.upper = Some(upper.clone());
        Ok(upper)
    }

    /// The upper node, with the contents in it.
    pub(super) fn upper_contents(&self) -> Result<Arc<Inode>, Errno> {
        let mut state = self.state.lock();
        let upper = self.upper(&mut state)?;
        self.copy_contents(&mut state, u64::MAX)?;
        Ok(upper)
    }

    /// Makes the contents the upper node's, up to `size` (a truncation keeps no more). The upper node is there.
    pub(super) fn copy_contents(&self, state: &mut State, size: u64) -> Result<(), Errno> {
        if self.is_changed() {
            return Ok(());
        }
        if size == 0 {
            self.changed.store(true, Ordering::Release);
            return Ok(());
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        self.copy_from(state, &lower.ops.host_file(lower)?, size)
    }

    fn copy_from(&self, state: &mut State, mapping: &HostMapping, limit: u64) -> Result<(), Errno> {
        use rustix::fs::SeekFrom;
        let upper = state.upper.clone().ok_or(Errno::EIO)?;
        let size = state.lower_attr.as_ref().map_or(0, |a| a.size).min(limit);
        let host = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        let mtime = upper.attr()?.mtime;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut at = 0;
        while at < size {
            // Holes stay holes. A host that knows none reports data everywhere.
            let data = match rustix::fs::seek(&*mapping.fd, SeekFrom::Data(mapping.offset + at)) {
                Ok(data) => data.saturating_sub(mapping.offset).max(at),
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => at,
            };
            if data >= size {
                break;
            }
            at = data;
            let want = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let n =
                rustix::io::pread(&*mapping.fd, &mut buffer[..want], mapping.offset + at).map_err(host)?;
            if n == 0 {
                break;
            }
            tmpfs::fill(&upper, at, &buffer[..n])?;
            at += n as u64;
        }
        // The size says what trailing hole there is; the time of the copy is nobody's business.
        let set = SetAttr { size: Some(size), mtime: Some(mtime), ..SetAttr::default() };
        upper.ops.set_attr(&upper, &set)?;
        self.changed.store(true, Ordering::Release);
        Ok(())
    }
}
