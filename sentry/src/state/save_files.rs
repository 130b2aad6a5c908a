//! What descriptors lead to, as records.

use std::sync::Arc;

use super::records::{self as rec, FileBody, kind};
use super::save::{SaveError, Saver, unsupported};
use crate::fs::eventfd::EventFd;
use crate::fs::pipe::PipeFile;
use crate::vfs::{FileKind, OpenFile, OpenFlags};

/// Major numbers of character devices that are memory (`/dev/null` and its like): they have no state.
const MEM_MAJOR: u32 = 1;

impl Saver<'_> {
    /// An open file, where it is met for the first time. `what` names it in an error.
    pub(super) fn file(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<(), SaveError> {
        if !self.meets(kind::FILE, file.id) {
            return Ok(());
        }
        if file.has_signal_owner() {
            return unsupported(format!("{what} sends signals (O_ASYNC, F_SETOWN)"));
        }
        if file.inode.locks.get().is_some_and(|locks| locks.are_held()) {
            return unsupported(format!("{what} is locked (flock(2), fcntl(2))"));
        }
        let body = self.file_body(file, what)?;
        let record = rec::File { flags: file.flags().bits(), offset: *file.offset.lock(), body };
        self.add(kind::FILE, file.id, &record)
    }

    fn file_body(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<FileBody, SaveError> {
        if let Some(number) = self.stdio_number(file) {
            return Ok(FileBody::Stdio { number });
        }
        if let Some(end) = file.ops_as::<PipeFile>() {
            return self.pipe(file, end, what);
        }
        if let Some(event) = file.ops_as::<EventFd>() {
            let (count, semaphore) = event.state();
            return Ok(FileBody::EventFd { count, semaphore });
        }
        let device = |wanted| matches!(file.inode.attr(), Ok(attr) if attr.rdev.major == wanted);
        match file.inode.kind {
            FileKind::Regular | FileKind::Directory => {}
            FileKind::CharDevice if device(MEM_MAJOR) => {}
            FileKind::Symlink if file.flags().contains(OpenFlags::PATH) => {}
            _ => {
                let name = file.path.display(&self.container.initial_fs().root());
                let name = String::from_utf8_lossy(&name).into_owned();
                return unsupported(format!("{what} is of a kind that images cannot hold yet: {name}"));
            }
        }
        let path = self.path(&file.path, what)?;
        Ok(FileBody::Path { path, deny_write: file.denies_write() })
    }

    fn pipe(&mut self, file: &OpenFile, end: &PipeFile, what: &str) -> Result<FileBody, SaveError> {
        if !crate::fs::pipe::is_nameless(&file.inode) {
            return unsupported(format!("{what} is a FIFO"));
        }
        // A pipe has one inode, whose number is unique.
        let id = file.inode.ino;
        if self.meets(kind::PIPE, id) {
            let (slots, buffers) = end.pipe.contents();
            let slots = u32::try_from(slots).unwrap_or(u32::MAX);
            self.add(kind::PIPE, id, &rec::Pipe { slots, buffers })?;
        }
        Ok(FileBody::Pipe { pipe: id, read: end.is_reader(), write: end.is_writer() })
    }
}
