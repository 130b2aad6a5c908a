//! Open regular files of an overlay: hands on to an open file of the layer that has the contents.

use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;

use super::inode::Node;
use crate::task::CurrentTask;
use crate::vfs::{FileOps, HostMapping, Inode, IoDst, IoSrc, OpenFile, OpenFlags, SeekFrom, file};

/// An open file.
#[derive(Debug)]
pub(super) struct OverlayFile {
    /// The lower file, open for reading; empty where the contents were changed before this was opened.
    lower: Option<Arc<OpenFile>>,
    /// The upper file, once the contents are there.
    upper: OnceLock<Arc<OpenFile>>,
}

impl OverlayFile {
    pub(super) fn open(node: &Node, flags: OpenFlags, task: &CurrentTask) -> Result<OverlayFile, Errno> {
        let file = OverlayFile { lower: None, upper: OnceLock::new() };
        if node.is_changed() || flags.contains(OpenFlags::TRUNC) {
            return Ok(file);
        }
        let Some(lower) = &node.lower else { return Err(Errno::EIO) };
        let lower = node.fs.open_inner(lower, OpenFlags::LARGEFILE, task)?;
        Ok(OverlayFile { lower: Some(lower), ..file })
    }

    /// The file that has the contents now.
    fn current(&self, file: &OpenFile) -> Result<&OpenFile, Errno> {
        let node = Node::of(&file.inode)?;
        match &self.lower {
            Some(lower) if !node.is_changed() => Ok(lower),
            _ => self.upper(node),
        }
    }

    /// The upper file, with the contents in it.
    fn changed(&self, file: &OpenFile) -> Result<&OpenFile, Errno> {
        let node = Node::of(&file.inode)?;
        if !node.is_changed() {
            node.upper_contents()?;
        }
        self.upper(node)
    }

    fn upper(&self, node: &Node) -> Result<&OpenFile, Errno> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let inode: Arc<Inode> = node.upper_contents()?;
        let opened = node.fs.open_upper(&inode);
        Ok(self.upper.get_or_init(|| opened))
    }
}

impl FileOps for OverlayFile {
    fn read(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        dst: &mut IoDst<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let inner = self.current(file)?;
        inner.ops.read(inner, task, dst, offset)
    }
    fn write(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let inner = self.changed(file)?;
        inner.ops.write(inner, task, src, offset)
    }
    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        match from {
            SeekFrom::Data(_) | SeekFrom::Hole(_) => {
                let inner = self.current(file)?;
                inner.ops.seek(inner, from)
            }
            _ => file::default_seek(file, from),
        }
    }
    /// A shared mapping of a file that may be written to is one of the upper file.
    fn mmap(&self, file: &OpenFile, offset: u64, len: u64, shared: bool) -> Result<HostMapping, Errno> {
        let inner =
            if shared && file.flags().can_write() { self.changed(file)? } else { self.current(file)? };
        inner.ops.mmap(inner, offset, len, shared)
    }
    /// Memory is never written out, and the lower file never changes.
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn fallocate(&self, file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let inner = self.changed(file)?;
        inner.ops.fallocate(inner, mode, offset, len)
    }
}
