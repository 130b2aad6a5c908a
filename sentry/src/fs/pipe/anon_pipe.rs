//! The inode of a nameless pipe, on `pipefs`.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::Pipe;
use crate::fs::anon::NamelessInode;
use crate::task::CurrentTask;
use crate::vfs::{Attr, FileKind, Inode, InodeOps, SetAttr};

/// A pipe's inode: leads `/proc/PID/fd/N` back to the pipe.
pub(in crate::fs) struct PipeInode {
    pub(super) pipe: Arc<Pipe>,
    attr: NamelessInode,
}

impl PipeInode {
    /// A new pipe's inode, owned by `task`.
    pub(super) fn make(task: &CurrentTask, pipe: &Arc<Pipe>) -> Arc<Inode> {
        let creds = task.creds();
        let now = task.kernel().clocks.realtime();
        let attr = NamelessInode::new(FileKind::Fifo, 0o600, (creds.fsuid, creds.fsgid), now, true);
        let sb = &task.kernel().anon.pipefs;
        Inode::new(sb, sb.next_ino(), FileKind::Fifo, Box::new(PipeInode { pipe: pipe.clone(), attr }))
    }
}

impl InodeOps for PipeInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(self.attr.get())
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        self.attr.set(set)
    }
}

impl fmt::Debug for PipeInode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PipeInode")
    }
}
