//! Names of Unix sockets: paths, abstract names, and the tables that find a socket by either.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::UnixSocket;
use crate::net::address::{Address, family};
use crate::sync::{Level, Mutex};
use crate::syscalls::Fd;
use crate::task::CurrentTask;
use crate::vfs::inode::{FileKind, NewNode};
use crate::vfs::namei::{self, NewEntry};
use crate::vfs::perm::{self, Access};
use crate::vfs::walk::{self, WalkFlags};
use crate::vfs::{Inode, Path};

/// Bytes of `sockaddr_un`.
const SOCKADDR_UN: usize = 110;

/// A socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The path as given to `bind`, without its NUL.
    Path(Vec<u8>),
    /// The bytes after the leading NUL.
    Abstract(Vec<u8>),
}

impl Name {
    /// `unix_validate_addr` and `unix_mkname_bsd`. `None` for an address that is only a family (autobind).
    pub(super) fn parse(address: &[u8]) -> Result<Option<Name>, Errno> {
        if address.len() > SOCKADDR_UN || family(address) != Some(libc::AF_UNIX) {
            return Err(Errno::EINVAL);
        }
        match address.get(2..) {
            None | Some([]) => Ok(None),
            Some([0, rest @ ..]) => Ok(Some(Name::Abstract(rest.to_vec()))),
            Some(path) => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                Ok(Some(Name::Path(path[..end].to_vec())))
            }
        }
    }

    /// As `getsockname` gives it; a socket without a name has only a family.
    pub(super) fn to_address(name: Option<&Name>) -> Address {
        let mut out = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        match name {
            None => {}
            Some(Name::Path(path)) => {
                out.extend_from_slice(path);
                out.push(0);
            }
            Some(Name::Abstract(rest)) => {
                out.push(0);
                out.extend_from_slice(rest);
            }
        }
        out
    }
}

/// A name that is in use.
pub(super) enum Binding {
    /// The node in the file system; holds it, so that its id stays the inode's.
    Node(Path),
    Abstract(Vec<u8>),
}

/// The names of a network namespace, and all its sockets.
pub struct UnixTable {
    by_inode: Mutex<HashMap<u64, Weak<UnixSocket>>>,
    by_name: Mutex<HashMap<Vec<u8>, Weak<UnixSocket>>>,
    pub(super) all: Mutex<Vec<Weak<UnixSocket>>>,
    next_auto: AtomicU32,
    /// Descriptors of Unix sockets that are on their way between sockets.
    pub(super) in_flight: AtomicUsize,
}

impl Default for UnixTable {
    fn default() -> UnixTable {
        UnixTable {
            by_inode: Mutex::new(Level::Leaf, HashMap::new()),
            by_name: Mutex::new(Level::Leaf, HashMap::new()),
            all: Mutex::new(Level::Leaf, Vec::new()),
            next_auto: AtomicU32::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }
}

impl UnixTable {
    pub(super) fn add(&self, socket: &Arc<UnixSocket>) {
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            all.retain(|s| s.strong_count() > 0);
        }
        all.push(Arc::downgrade(socket));
    }
    /// All sockets that exist.
    pub(super) fn sockets(&self) -> Vec<Arc<UnixSocket>> {
        let all = self.all.lock().clone();
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sockets().iter().filter(|s| !s.state.lock().dead).count()
    }

    /// `/proc/net/unix`.
    pub fn proc_text(&self) -> String {
        let mut out = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
        for socket in self.sockets() {
            let (state, flags, name) = {
                let state = socket.state.lock();
                if state.dead {
                    continue;
                }
                // SS_UNCONNECTED or SS_CONNECTED; __SO_ACCEPTCON.
                let connected = if state.peer.is_some() { 3 } else { 1 };
                (connected, if state.listener.is_some() { 0x10000 } else { 0 }, state.name.clone())
            };
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "{:016x}: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
                0,
                2,
                0,
                socket.kind,
                socket.ino.load(Ordering::Relaxed)
            );
            match name {
                Some(Name::Path(path)) => out.push_str(&format!(" {}", String::from_utf8_lossy(&path))),
                Some(Name::Abstract(rest)) => {
                    let shown: Vec<u8> = rest.iter().map(|b| if *b == 0 { b'@' } else { *b }).collect();
                    out.push_str(&format!(" @{}", String::from_utf8_lossy(&shown)));
                }
                None => {}
            }
            out.push('\n');
        }
        out
    }

    pub(super) fn bind_inode(&self, inode: &Inode, socket: &Arc<UnixSocket>) {
        let mut table = self.by_inode.lock();
        table.retain(|_, s| s.strong_count() > 0);
        table.insert(inode.id, Arc::downgrade(socket));
    }
    pub(super) fn bind_abstract(&self, name: &[u8], socket: &Arc<UnixSocket>) -> Result<(), Errno> {
        let mut table = self.by_name.lock();
        if table.get(name).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        table.insert(name.to_vec(), Arc::downgrade(socket));
        Ok(())
    }
    pub(super) fn unbind(&self, binding: &Binding) {
        match binding {
            Binding::Node(path) => drop(self.by_inode.lock().remove(&path.dentry.inode.id)),
            Binding::Abstract(name) => drop(self.by_name.lock().remove(name)),
        }
    }

    /// The socket that an address names (`unix_find_other`). ECONNREFUSED where nobody is bound to it.
    pub(super) fn find(&self, task: &CurrentTask, name: &Name) -> Result<Arc<UnixSocket>, Errno> {
        let found = match name {
            Name::Path(path) => {
                let place = walk::lookup(task, Fd::CWD, path, WalkFlags::FOLLOW)?;
                let inode = &place.dentry.inode;
                perm::check(&task.creds(), inode, Access::WRITE)?;
                if inode.kind != FileKind::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                self.by_inode.lock().get(&inode.id).and_then(Weak::upgrade)
            }
            Name::Abstract(name) => self.by_name.lock().get(name).and_then(Weak::upgrade),
        };
        found.ok_or(Errno::ECONNREFUSED)
    }
}

impl fmt::Debug for UnixTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixTable")
    }
}

impl UnixSocket {
    /// `bind(2)`
    pub(super) fn bind_name(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        let own = self.own()?;
        let Some(name) = Name::parse(address)? else { return self.autobind() };
        if self.state.lock().binding.is_some() {
            return Err(Errno::EINVAL);
        }
        let table = &self.net.unix;
        let binding = match &name {
            Name::Path(path) => {
                let node = NewEntry { node: &NewNode::Socket, mode: 0o777 };
                let place = namei::create(task, Fd::CWD, path, node).map_err(|e| match e {
                    Errno::EEXIST => Errno::EADDRINUSE,
                    e => e,
                })?;
                table.bind_inode(&place.dentry.inode, &own);
                Binding::Node(place)
            }
            Name::Abstract(bytes) => {
                table.bind_abstract(bytes, &own)?;
                Binding::Abstract(bytes.clone())
            }
        };
        self.set_name(name, binding)
    }

    /// Gives the socket a free abstract name of five hexadecimal digits, where it has none.
    pub(super) fn autobind(&self) -> Result<(), Errno> {
        let own = self.own()?;
        if self.state.lock().binding.is_some() {
            return Ok(());
        }
        let table = &self.net.unix;
        for _ in 0..1 << 20 {
            let number = table.next_auto.fetch_add(1, std::sync::atomic::Ordering::Relaxed) & 0xf_ffff;
            let name = format!("{number:05x}").into_bytes();
            if table.bind_abstract(&name, &own).is_ok() {
                return self.set_name(Name::Abstract(name.clone()), Binding::Abstract(name));
            }
        }
        Err(Errno::ENOSPC)
    }

    pub(super) fn set_name(&self, name: Name, binding: Binding) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.binding.is_some() || state.dead {
            // Another thread was faster.
            drop(state);
            self.net.unix.unbind(&binding);
            return Err(Errno::EINVAL);
        }
        state.name = Some(name);
        state.binding = Some(binding);
        Ok(())
    }

    /// The shared reference to this socket.
    pub(crate) fn own(&self) -> Result<Arc<UnixSocket>, Errno> {
        self.me.upgrade().ok_or(Errno::EBADF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names() {
        let path = b"\x01\x00/tmp/x\x00junk";
        let name = Name::parse(path).unwrap();
        assert_eq!(name, Some(Name::Path(b"/tmp/x".to_vec())));
        assert_eq!(Name::to_address(name.as_ref()), b"\x01\x00/tmp/x\x00");
        assert_eq!(Name::parse(b"\x01\x00").unwrap(), None);
        let name = Name::parse(b"\x01\x00\x00ab\x00").unwrap();
        assert_eq!(name, Some(Name::Abstract(b"ab\x00".to_vec())));
        assert_eq!(Name::to_address(None), b"\x01\x00");
        assert_eq!(Name::parse(b"\x02\x00x"), Err(Errno::EINVAL));
        assert_eq!(Name::parse(&[1; 111]), Err(Errno::EINVAL));
        assert_eq!(Name::parse(b"\x01"), Err(Errno::EINVAL));
    }
}
