use std::sync::Arc;

use quicksand_abi::Errno;

use super::*;
use crate::vfs::inode::Rename;
use crate::vfs::{NewNode, Owner, SetAttr};

const OWNER: Owner = Owner { uid: 0, gid: 0, perm: 0o755 };

/// A lower tree: `f` (contents "lower"), its hard link `g`, `d/`, `d/x`.
fn tree() -> (Arc<Inode>, Arc<Inode>) {
    let lower = tmpfs::new(&tmpfs::Options::unlimited()).inode.clone();
    let file = lower.ops.create(&lower, b"f", NewNode::Regular, OWNER).unwrap();
    tmpfs::fill(&file, 0, b"lower").unwrap();
    lower.ops.link(&lower, b"g", &file).unwrap();
    let dir = lower.ops.create(&lower, b"d", NewNode::Directory, OWNER).unwrap();
    dir.ops.create(&dir, b"x", NewNode::Regular, OWNER).unwrap();
    let root = new(lower.clone(), &tmpfs::Options::unlimited()).unwrap();
    (lower, root.inode.clone())
}

fn look(dir: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
    dir.ops.lookup(dir, name, None)
}

fn contents(inode: &Arc<Inode>) -> Vec<u8> {
    let node = Node::of(inode).unwrap();
    let layer = if node.is_changed() { node.state.lock().upper.clone() } else { node.lower.clone() };
    let layer = layer.unwrap();
    let mapping = layer.ops.host_file(&layer).unwrap();
    let mut buf = [0; 64];
    let n = rustix::io::pread(&*mapping.fd, &mut buf, 0).unwrap();
    buf[..n].to_vec()
}

#[test]
fn attributes_change_without_contents_and_contents_keep_their_number() {
    let (lower, root) = tree();
    let file = look(&root, b"f").unwrap();
    let ino = file.ino;
    file.ops.set_attr(&file, &SetAttr { perm: Some(0o600), ..SetAttr::default() }).unwrap();
    assert!(!Node::of(&file).unwrap().is_changed());
    assert_eq!((file.attr().unwrap().perm, file.attr().unwrap().size), (0o600, 5));
    let upper = Node::of(&file).unwrap().upper_contents().unwrap();
    tmpfs::fill(&upper, 0, b"UP").unwrap();
    assert_eq!(contents(&file), b"UPwer");
    // Both names of the lower file lead to the changed one; the lower one is as it was.
    let other = look(&root, b"g").unwrap();
    assert!(Arc::ptr_eq(&file, &other));
    assert_eq!((other.ino, other.attr().unwrap().nlink), (ino, 2));
    let below = look(&lower, b"f").unwrap();
    assert_eq!((below.attr().unwrap().perm, below.attr().unwrap().size), (0o755, 5));
}

#[test]
fn truncation_copies_what_is_kept() {
    let (_, root) = tree();
    let file = look(&root, b"f").unwrap();
    file.ops.set_attr(&file, &SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    assert_eq!(contents(&file), b"lo");
    file.ops.set_attr(&file, &SetAttr { size: Some(4), ..SetAttr::default() }).unwrap();
    assert_eq!(contents(&file), b"lo\0\0");
}

#[test]
fn a_removed_name_stays_removed_and_can_be_made_anew() {
    let (lower, root) = tree();
    let file = look(&root, b"f").unwrap();
    root.ops.unlink(&root, b"f", &file).unwrap();
    assert_eq!(look(&root, b"f").err(), Some(Errno::ENOENT));
    assert_eq!(file.attr().unwrap().nlink, 1);
    assert!(look(&lower, b"f").is_ok());
    let new = root.ops.create(&root, b"f", NewNode::Directory, OWNER).unwrap();
    assert_eq!(look(&new, b"x").err(), Some(Errno::ENOENT));
    root.ops.rmdir(&root, b"f", &new).unwrap();
    assert_eq!(look(&root, b"f").err(), Some(Errno::ENOENT));
}

#[test]
fn a_lower_directory_moves_with_what_is_in_it() {
    let (_, root) = tree();
    let dir = look(&root, b"d").unwrap();
    let rename =
        Rename { name: b"d", moved: &dir, new_dir: &root, new_name: b"e", replaced: None, exchange: false };
    assert_eq!(look(&root, b"e").err(), Some(Errno::ENOENT));
    root.ops.rename(&root, &rename).unwrap();
    assert_eq!(look(&root, b"d").err(), Some(Errno::ENOENT));
    let moved = look(&root, b"e").unwrap();
    assert!(look(&moved, b"x").is_ok());
    assert_eq!(root.attr().unwrap().nlink, 3);
    // Not empty, and not known to be: refused.
    assert_eq!(root.ops.rmdir(&root, b"e", &moved), Err(Errno::ENOTEMPTY));
}
