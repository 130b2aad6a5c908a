//! Open files from their records: each is made when it is first asked for.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use quicksand_checkpoint::Image;

use super::records::{self as rec, FileBody, kind};
use super::restore::RestoreError;
use crate::fs::eventfd::EventFd;
use crate::fs::pipe::{self, Pipe};
use crate::kernel::Container;
use crate::syscalls::SyscallError;
use crate::task::CurrentTask;
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{FileKind, Inode, OpenFile, OpenFlags};

/// The open files of a container that is being restored.
pub(super) struct Files<'a> {
    container: &'a Arc<Container>,
    image: &'a Image,
    /// In whose name files are opened: what they may do was decided when they were first opened.
    task: &'a CurrentTask,
    stdio: [Arc<OpenFile>; 3],
    made: HashMap<u64, Arc<OpenFile>>,
    pipes: HashMap<u64, (Arc<Pipe>, Arc<Inode>)>,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        container: &'a Arc<Container>,
        image: &'a Image,
        stdio: [OwnedFd; 3],
        task: &'a CurrentTask,
    ) -> Result<Files<'a>, RestoreError> {
        let import = |fd| crate::fs::host::import(&container.kernel, fd).map_err(RestoreError::Stdio);
        let [input, output, error] = stdio;
        let stdio = [import(input)?, import(output)?, import(error)?];
        container.set_stdio([stdio[0].id, stdio[1].id, stdio[2].id]);
        Ok(Files { container, image, task, stdio, made: HashMap::new(), pipes: HashMap::new() })
    }

    /// The open file that had the number `id`.
    pub(super) fn get(&mut self, id: u64) -> Result<Arc<OpenFile>, RestoreError> {
        if let Some(file) = self.made.get(&id) {
            return Ok(file.clone());
        }
        let record: rec::File = self.image.records(kind::FILE)?.read(id)?;
        let file = self.make(id, &record)?;
        self.made.insert(id, file.clone());
        Ok(file)
    }

    fn make(&mut self, id: u64, record: &rec::File) -> Result<Arc<OpenFile>, RestoreError> {
        let wrong = |what: &str| RestoreError::Record(format!("open file {id}: {what}"));
        let flags = OpenFlags::from_bits_truncate(record.flags);
        match &record.body {
            FileBody::Stdio { number } => {
                self.stdio.get(usize::from(*number)).cloned().ok_or_else(|| wrong("a standard stream"))
            }
            FileBody::Path { path, deny_write } => {
                let file = self.reopen(path, flags, *deny_write)?;
                *file.offset.lock() = record.offset;
                Ok(file)
            }
            FileBody::Pipe { pipe, read, write } => {
                let (pipe, inode) = self.pipe(*pipe)?;
                Ok(pipe::syscalls::restored_end(&pipe, &inode, (*read, *write), flags))
            }
            FileBody::EventFd { count, semaphore } => {
                let kernel = &self.container.kernel;
                let ops = Box::new(EventFd::restored(kernel, *count, *semaphore));
                Ok(kernel.anon.file("eventfd", ops, flags))
            }
        }
    }

    fn reopen(&self, path: &[u8], flags: OpenFlags, deny_write: bool) -> Result<Arc<OpenFile>, RestoreError> {
        let shown = String::from_utf8_lossy(path);
        let root = self.container.initial_fs().root();
        let place = lookup_in(&root, path, WalkFlags::empty())
            .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
        let kind = place.dentry.inode.kind;
        let openable = matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::CharDevice);
        if !openable && !flags.contains(OpenFlags::PATH) {
            return Err(RestoreError::Gone(format!("{shown} (another kind of file is there now)")));
        }
        crate::vfs::reopen(self.task, place, flags, deny_write).map_err(|error| match error {
            SyscallError::Errno(errno) => RestoreError::Gone(format!("{shown} ({errno})")),
            _ => RestoreError::Gone(format!("{shown} (it cannot be opened at once)")),
        })
    }

    fn pipe(&mut self, id: u64) -> Result<(Arc<Pipe>, Arc<Inode>), RestoreError> {
        if let Some(known) = self.pipes.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Pipe = self.image.records(kind::PIPE)?.read(id)?;
        let pipe = Pipe::restored(record.slots as usize, record.buffers)
            .map_err(|_| RestoreError::Record(format!("pipe {id}")))?;
        let inode = pipe::syscalls::restored_inode(self.task, &pipe);
        self.pipes.insert(id, (pipe.clone(), inode.clone()));
        Ok((pipe, inode))
    }
}
