//! The same operations through both backends, and a gofer that lies.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::{Access, Change, NewFile};
use quicksand_gofer::protocol::MAX_PACKET;
use quicksand_gofer::server::{Served, serve};
use quicksand_gofer::wire;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::backend::{Backend, Direct};
use super::remote::Remote;
use super::{Options, open};
use crate::vfs::inode::{Rename, SetAttr};
use crate::vfs::{FileKind, NewNode, Owner};

/// A fresh directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quicksand-gofer-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
    fn root(&self) -> OwnedFd {
        rustix::fs::open(&self.0, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Runs a test with each backend over an empty directory.
fn with_both(test: fn(Arc<dyn Backend>, &Scratch)) {
    let scratch = Scratch::new();
    test(Arc::new(Direct::new(scratch.root())), &scratch);

    let scratch = Scratch::new();
    let (near, far) = sockets();
    let root = scratch.root();
    let server = std::thread::spawn(move || serve(vec![Served { root, socket: far }]));
    test(Arc::new(Remote::new(near)), &scratch);
    server.join().unwrap(); // the socket was closed with the backend
}

fn owner() -> Owner {
    let uid = rustix::process::geteuid().as_raw();
    Owner { uid, gid: rustix::process::getegid().as_raw(), perm: 0o640 }
}

#[test]
fn names_are_made_moved_linked_and_removed() {
    with_both(|backend, scratch| {
        let root = open(backend, 0, Options { exclusive: true }).unwrap();
        let dir = root.ops.create(&root, b"dir", NewNode::Directory, owner()).unwrap();
        let file = dir.ops.create(&dir, b"file", NewNode::Regular, owner()).unwrap();
        assert_eq!(file.attr().unwrap().perm, 0o640);
        assert!(Arc::ptr_eq(&dir.ops.lookup(&dir, b"file", None).unwrap(), &file));
        assert_eq!(root.ops.lookup(&root, b"file", None).unwrap_err(), Errno::ENOENT);

        dir.ops.link(&dir, b"link", &file).unwrap();
        assert_eq!(file.attr().unwrap().nlink, 2);
        assert!(Arc::ptr_eq(&dir.ops.lookup(&dir, b"link", None).unwrap(), &file));

        let rename = Rename {
            name: b"file",
            moved: &file,
            new_dir: &root,
            new_name: b"moved",
            replaced: None,
            exchange: false,
        };
        dir.ops.rename(&dir, &rename).unwrap();
        assert!(scratch.0.join("moved").exists());
        assert_eq!(dir.ops.rmdir(&dir, b"link", &file).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.ops.rmdir(&root, b"dir", &dir).unwrap_err(), Errno::ENOTEMPTY);
        dir.ops.unlink(&dir, b"link", &file).unwrap();
        root.ops.rmdir(&root, b"dir", &dir).unwrap();

        // A file without a name can still be looked at and changed.
        root.ops.unlink(&root, b"moved", &file).unwrap();
        assert_eq!(file.attr().unwrap().nlink, 0);
        let set = SetAttr { size: Some(5), perm: Some(0o600), ..SetAttr::default() };
        file.ops.set_attr(&file, &set).unwrap();
        let attr = file.attr().unwrap();
        assert_eq!((attr.size, attr.perm), (5, 0o600));
    });
}

#[test]
fn a_directory_that_moves_takes_its_files_along() {
    with_both(|backend, _| {
        let root = open(backend, 0, Options { exclusive: true }).unwrap();
        let a = root.ops.create(&root, b"a", NewNode::Directory, owner()).unwrap();
        let b = root.ops.create(&root, b"b", NewNode::Directory, owner()).unwrap();
        let inner = a.ops.create(&a, b"inner", NewNode::Directory, owner()).unwrap();
        let file = inner.ops.create(&inner, b"file", NewNode::Regular, owner()).unwrap();
        let rename = Rename {
            name: b"inner",
            moved: &inner,
            new_dir: &b,
            new_name: b"x",
            replaced: None,
            exchange: false,
        };
        a.ops.rename(&a, &rename).unwrap();
        let set = SetAttr { perm: Some(0o444), ..SetAttr::default() };
        file.ops.set_attr(&file, &set).unwrap();
        assert_eq!(file.attr().unwrap().perm, 0o444);
        assert!(Arc::ptr_eq(&inner.ops.lookup(&inner, b"file", None).unwrap(), &file));
    });
}

#[test]
fn links_devices_and_attributes() {
    with_both(|backend, scratch| {
        let root = open(backend.clone(), 0, Options::default()).unwrap();
        let link = root.ops.create(&root, b"link", NewNode::Symlink(b"/etc/passwd"), owner()).unwrap();
        assert_eq!(link.kind, FileKind::Symlink);
        match link.ops.read_link(&link, None).unwrap() {
            crate::vfs::LinkTarget::Path(path) => assert_eq!(path, b"/etc/passwd"),
            other => panic!("{other:?}"),
        }
        // A link is never followed, whatever is asked of it.
        let at = super::node::At {
            dir: super::node::Node::root(backend_stat(&*backend)),
            name: b"link"[..].into(),
        };
        assert_eq!(backend.open_file(&at, Access::Read).unwrap_err(), Errno::ELOOP);
        let fifo = root.ops.create(&root, b"fifo", NewNode::Fifo, owner()).unwrap();
        assert_eq!(fifo.kind, FileKind::Fifo);
        let fifo = super::node::At { name: b"fifo"[..].into(), ..at.clone() };
        assert_eq!(backend.open_file(&fifo, Access::Read).unwrap_err(), Errno::ENXIO);
        for name in [&b".."[..], b"a/b", b"../..", b"link/x", b""] {
            let at = super::node::At { name: name.into(), ..at.clone() };
            let new = NewFile { mode: libc::S_IFREG | 0o600, ..NewFile::default() };
            assert!(backend.create(&at, &new, b"").is_err(), "{name:?}");
        }
        assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 2);

        let change = Change { set: Change::PERM, perm: 0o611, ..Change::default() };
        backend.change(&fifo, &change).unwrap();
        assert_eq!(backend.stat(&fifo).unwrap().0.mode & 0o7777, 0o611);
        assert_eq!(backend.get_xattr(&fifo, b"user.x").unwrap_err(), Errno::EOPNOTSUPP);
    });
}

fn backend_stat(backend: &dyn Backend) -> quicksand_gofer::hostfs::Stat {
    let root = super::node::Node::root(quicksand_gofer::hostfs::Stat::default());
    backend.stat(&super::node::At { dir: root, name: Box::default() }).unwrap().0
}

#[test]
fn directories_are_read_in_pieces() {
    with_both(|backend, scratch| {
        for i in 0..700 {
            std::fs::write(scratch.0.join(format!("a-rather-long-name-for-a-file-{i:04}")), "").unwrap();
        }
        let root = super::node::Node::root(backend_stat(&*backend));
        let dir = backend.open_dir(&root).unwrap();
        let (mut names, mut from) = (Vec::new(), 0);
        loop {
            let mut taken = 0;
            let start = from;
            let mut emit = |entry: quicksand_gofer::hostfs::Entry<'_>| {
                if taken == 13 {
                    return false;
                }
                taken += 1;
                names.push(entry.name.to_vec());
                from = entry.next;
                true
            };
            dir.read(start, &mut emit).unwrap();
            if taken == 0 {
                break;
            }
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 702);
    });
}

#[test]
fn many_directories_hold_few_descriptors() {
    let scratch = Scratch::new();
    let root = open(Arc::new(Direct::new(scratch.root())), 0, Options { exclusive: true }).unwrap();
    let mut dirs = Vec::new();
    for i in 0..600 {
        let dir = root.ops.create(&root, format!("d{i}").as_bytes(), NewNode::Directory, owner()).unwrap();
        dir.ops.create(&dir, b"f", NewNode::Regular, owner()).unwrap();
        dirs.push(dir);
    }
    let open_now = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open_now < 400, "{open_now} descriptors are open");
    // Those that were closed are opened again when they are needed.
    for dir in &dirs {
        dir.ops.lookup(dir, b"f", None).unwrap();
    }
}

#[test]
fn a_gofer_that_lies_or_dies_gives_errors() {
    // Answers of every length made of a simple generator's bytes, then none.
    let (near, far) = sockets();
    let liar = std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_PACKET];
        let mut state = 1u64;
        for len in 1..400usize {
            let Ok(Some(_)) = wire::receive(far.as_fd(), &mut buffer) else { return };
            let answer: Vec<u8> = (0..len)
                .map(|i| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Half of them say that all is well.
                    if i < 4 && len % 2 == 0 { 0 } else { (state >> 33) as u8 }
                })
                .collect();
            wire::send(far.as_fd(), &answer, None).unwrap();
        }
    });
    let remote = Remote::new(near);
    let root = super::node::Node::root(quicksand_gofer::hostfs::Stat::default());
    let at = super::node::At { dir: root.clone(), name: b"x"[..].into() };
    let new = NewFile { mode: libc::S_IFREG, ..NewFile::default() };
    for _ in 0..90 {
        assert!(remote.open_file(&at, Access::Read).is_err());
        assert!(remote.create(&at, &new, b"").is_err());
        let _ = remote.stat(&at);
        let _ = remote.open_dir(&root).unwrap().read(0, &mut |_| true);
    }
    while remote.read_link(&at) != Err(Errno::EIO) || !liar.is_finished() {}
    liar.join().unwrap();
    assert_eq!(remote.stat(&at).unwrap_err(), Errno::EIO);
}
