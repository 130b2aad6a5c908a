//! `/proc/net` (`/proc/self/net`): what the network stack tells about itself. There is one network namespace, so that the
//! files are the same for all processes.

use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::task::ino;
use crate::fs::pseudo::{self, Directory, Perm, Text};
use crate::net::proc_net;
use crate::task::CurrentTask;
use crate::vfs::{FileKind, FileName, Inode, Superblock};

#[derive(Debug)]
struct NetDir(Weak<Superblock>);

pub(super) fn dir(sb: &Arc<Superblock>) -> Arc<dyn Directory> {
    Arc::new(NetDir(Arc::downgrade(sb)))
}

/// The number of a file: no process is number 0.
fn number(index: usize) -> u64 {
    ino(0, index as u64)
}

impl Directory for NetDir {
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        let index = proc_net::files().position(|file| file.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let sb = self.0.upgrade().ok_or(Errno::ENOENT)?;
        Ok(pseudo::file(&sb, number(index), Perm::root(0o444), Arc::new(NetText(index))))
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        let files = proc_net::files().enumerate();
        Ok(files.map(|(i, name)| (name.as_bytes().to_vec(), number(i), FileKind::Regular)).collect())
    }
    fn fixed(&self) -> bool {
        true
    }
}

/// The text of one file.
#[derive(Debug)]
struct NetText(usize);

impl Text for NetText {
    fn text(&self, task: &CurrentTask) -> Result<Vec<u8>, Errno> {
        Ok(proc_net::read(&task.kernel().net, self.0).into_bytes())
    }
}
