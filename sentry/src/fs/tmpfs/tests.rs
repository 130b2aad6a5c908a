use std::sync::Arc;

use quicksand_abi::Errno;

use super::*;
use crate::vfs::inode::Rename;

const OWNER: Owner = Owner { uid: 0, gid: 0, perm: 0o755 };

fn root(data: &[u8]) -> Arc<Inode> {
    new(&Options::parse(data).unwrap()).inode.clone()
}

fn make(dir: &Arc<Inode>, name: &[u8], node: NewNode<'_>) -> Arc<Inode> {
    dir.ops.create(dir, name, node, OWNER).unwrap()
}

fn nlink(inode: &Arc<Inode>) -> u32 {
    inode.attr().unwrap().nlink
}

#[test]
fn links_are_counted() {
    let root = root(b"");
    let dir = make(&root, b"d", NewNode::Directory);
    let file = make(&root, b"f", NewNode::Regular);
    assert_eq!((nlink(&root), nlink(&dir), nlink(&file)), (3, 2, 1));
    dir.ops.link(&dir, b"g", &file).unwrap();
    assert_eq!(nlink(&file), 2);
    assert_eq!(root.ops.rmdir(&root, b"d", &dir), Err(Errno::ENOTEMPTY));
    dir.ops.unlink(&dir, b"g", &file).unwrap();
    root.ops.rmdir(&root, b"d", &dir).unwrap();
    assert_eq!((nlink(&root), nlink(&dir), nlink(&file)), (2, 0, 1));
}

#[test]
fn a_directory_moves_with_its_count() {
    let root = root(b"");
    let a = make(&root, b"a", NewNode::Directory);
    let b = make(&root, b"b", NewNode::Directory);
    let c = make(&a, b"c", NewNode::Directory);
    let file = make(&b, b"f", NewNode::Regular);
    let rename =
        Rename { name: b"c", moved: &c, new_dir: &b, new_name: b"f", replaced: Some(&file), exchange: true };
    a.ops.rename(&a, &rename).unwrap();
    assert_eq!((nlink(&a), nlink(&b)), (2, 3));
    assert!(Arc::ptr_eq(&b.ops.lookup(&b, b"f", None).unwrap(), &c));
    assert!(Arc::ptr_eq(&a.ops.lookup(&a, b"c", None).unwrap(), &file));
}

#[test]
fn contents_move_to_a_memfd_with_their_holes() {
    let root = root(b"");
    let file = make(&root, b"f", NewNode::Regular);
    fill(&file, 8192, b"hello").unwrap();
    assert_eq!(file.attr().unwrap().blocks, 8);
    let mapping = file.ops.host_file(&file).unwrap();
    let mut buf = [1; 8197];
    assert_eq!(rustix::io::pread(&*mapping.fd, &mut buf, 0).unwrap(), 8197);
    assert!(buf[..8192].iter().all(|b| *b == 0));
    assert_eq!(&buf[8192..], b"hello");
    assert_eq!(file.attr().unwrap().blocks, 8);
    let set = SetAttr { size: Some(100), ..SetAttr::default() };
    file.ops.set_attr(&file, &set).unwrap();
    assert_eq!((file.attr().unwrap().size, file.attr().unwrap().blocks), (100, 0));
}

#[test]
fn a_size_limit_is_kept_on_heap_and_memfd() {
    let root = root(b"size=128k,nr_inodes=3");
    let stat = || root.sb.statfs.statfs().unwrap();
    let file = make(&root, b"f", NewNode::Regular);
    fill(&file, 0, &[1; 16 << 10]).unwrap();
    assert_eq!(stat().free, 28);
    fill(&file, 16 << 10, &[2; 80 << 10]).unwrap();
    assert_eq!(stat().free, 8);
    let other = make(&root, b"g", NewNode::Regular);
    assert_eq!(fill(&other, 0, &[3; 40 << 10]), Err(Errno::ENOSPC));
    // What fitted is there, and writing over it needs nothing.
    assert_eq!(other.attr().unwrap().size, 32 << 10);
    fill(&other, 0, &[4; 32 << 10]).unwrap();
    fill(&file, 0, &[5; 96 << 10]).unwrap();
    assert_eq!(stat().free, 0);
    root.ops.unlink(&root, b"f", &file).unwrap();
    drop(file);
    assert_eq!(stat().free, 24);
    make(&root, b"h", NewNode::Fifo);
    assert_eq!(root.ops.create(&root, b"i", NewNode::Fifo, OWNER).err(), Some(Errno::ENOSPC));
}

#[test]
fn a_deep_tree_is_let_go_without_recursion() {
    let root = root(b"nr_inodes=0");
    let mut at = root.clone();
    for _ in 0..20_000 {
        at = make(&at, b"d", NewNode::Directory);
    }
    drop(at);
    drop(root);
}

#[test]
fn options_are_read_and_shown() {
    let options = Options::parse(b"size=64m,mode=700,uid=5").unwrap();
    assert_eq!((options.max_pages, options.mode, options.uid), (16384, 0o700, 5));
    assert_eq!(options.shown(), "size=65536k,mode=700,uid=5");
    assert_eq!(Options::parse(b"sise=1"), Err(Errno::EINVAL));
    assert_eq!(Options::parse(b"size=-1"), Err(Errno::EINVAL));
}
