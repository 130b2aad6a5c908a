//! What proc, sys and their like are made of: directories whose entries are known to the kernel, and files whose text is
//! made when they are read (Linux's kernfs and `seq_file`).
//!
//! A pseudo inode is cheap and made anew by each lookup where its directory does not cache; its number is chosen by its
//! maker, so that the same file keeps the same number.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::sync::{Level, Mutex};
use crate::task::{CurrentTask, ThreadGroup};
use crate::time::Realtime;
use crate::vfs::file::default_seek;
use crate::vfs::{
    Attr, DeviceId, DirEntry, DirSink, FileKind, FileName, FileOps, Inode, InodeOps, IoDst, IoSrc,
    LinkTarget, NewNode, OpenFile, OpenFlags, Owner, SeekFrom, SetAttr, Superblock,
};

/// Owner and permissions of a pseudo inode.
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Perm {
    /// Owned by root.
    pub const fn root(perm: u32) -> Perm {
        Perm { perm, uid: 0, gid: 0 }
    }
}

/// When the kernel's pseudo file systems came to be: all their times.
fn boot_time() -> Realtime {
    static BOOT: std::sync::OnceLock<Realtime> = std::sync::OnceLock::new();
    *BOOT.get_or_init(crate::time::Clocks::host_realtime)
}

/// Attributes of a pseudo file.
pub fn attr(kind: FileKind, perm: Perm, nlink: u32) -> Attr {
    let t = boot_time();
    Attr {
        kind,
        perm: perm.perm,
        nlink,
        uid: perm.uid,
        gid: perm.gid,
        rdev: DeviceId::default(),
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: t,
        mtime: t,
        ctime: t,
        btime: None,
    }
}

/// `chmod`, `chown` and times are refused by Linux on most pseudo files; truncation (`> /proc/sys/…`) is ignored.
fn set_attr(set: &SetAttr) -> Result<(), Errno> {
    match set {
        SetAttr { perm: None, uid: None, gid: None, .. } => Ok(()),
        _ => Err(Errno::EPERM),
    }
}

/// A change of attributes that are kept in memory.
pub fn change(attr: &mut Attr, set: &SetAttr) {
    attr.perm = set.perm.unwrap_or(attr.perm);
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr.atime = set.atime.unwrap_or(attr.atime);
    attr.mtime = set.mtime.unwrap_or(attr.mtime);
}

/// How a file of text behaves beyond its text, which on Linux depends on how it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// sysfs, `/proc/sys`: a file as any other.
    Plain,
    /// A `seq_file` of procfs proper: no `pwrite`, no seeking from its end.
    Sequence,
    /// The files of `/proc/PID`: a `seq_file` (or like one) that cannot be spliced either.
    Unspliced,
}

/// A file's text.
pub trait Text: Send + Sync + Debug + 'static {
    /// Made when the file is read from its beginning, and kept for that open file until it is read from there again.
    fn text(&self, task: &CurrentTask) -> Result<Vec<u8>, Errno>;
    /// The file is being opened.
    fn open(&self, _task: &CurrentTask) -> Result<(), Errno> {
        Ok(())
    }
    /// A write, whole: `data` is what one `write(2)` gave, at most a page.
    fn store(&self, _task: &CurrentTask, _data: &[u8]) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
    /// `st_size`: zero for proc, 4096 for sysfs.
    fn size(&self) -> u64 {
        0
    }
    fn manner(&self) -> Manner {
        Manner::Plain
    }
}

/// A text that never changes.
impl Text for &'static str {
    fn text(&self, _: &CurrentTask) -> Result<Vec<u8>, Errno> {
        Ok(self.as_bytes().to_vec())
    }
}

/// A text made by a plain function.
impl Text for fn(&CurrentTask) -> Result<Vec<u8>, Errno> {
    fn text(&self, task: &CurrentTask) -> Result<Vec<u8>, Errno> {
        self(task)
    }
    fn manner(&self) -> Manner {
        Manner::Sequence
    }
}

/// A regular file with a [`Text`].
pub fn file(sb: &Arc<Superblock>, ino: u64, perm: Perm, text: Arc<dyn Text>) -> Arc<Inode> {
    Inode::new(sb, ino, FileKind::Regular, Box::new(TextInode { perm, text }))
}

#[derive(Debug)]
struct TextInode {
    perm: Perm,
    text: Arc<dyn Text>,
}

impl InodeOps for TextInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        let mut attr = attr(FileKind::Regular, self.perm, 1);
        attr.size = self.text.size();
        Ok(attr)
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        set_attr(set)
    }
    fn open(&self, _: &Arc<Inode>, _: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        self.text.open(task)?;
        Ok(Box::new(TextFile { text: self.text.clone(), cached: Mutex::new(Level::Object, None) }))
    }
}

#[derive(Debug)]
struct TextFile {
    text: Arc<dyn Text>,
    cached: Mutex<Option<Arc<Vec<u8>>>>,
}

impl FileOps for TextFile {
    fn read(
        &self,
        _: &OpenFile,
        task: &CurrentTask,
        dst: &mut IoDst<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let cached = if offset == 0 { None } else { self.cached.lock().clone() };
        let text = match cached {
            Some(text) => text,
            None => {
                // Made without the lock: it may look at any kernel object.
                let text = Arc::new(self.text.text(task)?);
                *self.cached.lock() = Some(text.clone());
                text
            }
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        dst.put(&text[from..])
    }
    fn write(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        let mut data = vec![0; src.remaining().min(4096)];
        let n = src.take(&mut data)?;
        data.truncate(n);
        self.text.store(task, &data)?;
        Ok(n)
    }
    fn can_pwrite(&self) -> bool {
        self.text.manner() == Manner::Plain
    }
    fn can_splice(&self, write: bool) -> bool {
        match self.text.manner() {
            Manner::Plain => true,
            Manner::Sequence => !write,
            Manner::Unspliced => false,
        }
    }
    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        match from {
            // `seq_lseek`
            SeekFrom::End(_) | SeekFrom::Data(_) | SeekFrom::Hole(_)
                if self.text.manner() != Manner::Plain =>
            {
                Err(Errno::EINVAL)
            }
            from => default_seek(file, from),
        }
    }
}

/// A symbolic link with a fixed target.
pub fn symlink(sb: &Arc<Superblock>, ino: u64, perm: Perm, target: &[u8]) -> Arc<Inode> {
    let link: Arc<dyn Link> = Arc::new(target.to_vec());
    magic_link(sb, ino, perm, link)
}

/// Where a link leads, decided when it is followed.
pub trait Link: Send + Sync + Debug + 'static {
    fn target(&self, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno>;
}

impl Link for Vec<u8> {
    fn target(&self, _: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        Ok(LinkTarget::Path(self.clone()))
    }
}

/// A link that is followed by a decision of the kernel (`/proc/self`, `/proc/PID/exe`).
pub fn magic_link(sb: &Arc<Superblock>, ino: u64, perm: Perm, link: Arc<dyn Link>) -> Arc<Inode> {
    Inode::new(sb, ino, FileKind::Symlink, Box::new(LinkInode { perm, link }))
}

#[derive(Debug)]
struct LinkInode {
    perm: Perm,
    link: Arc<dyn Link>,
}

impl InodeOps for LinkInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(attr(FileKind::Symlink, self.perm, 1))
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        set_attr(set)
    }
    fn read_link(&self, _: &Inode, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        self.link.target(task)
    }
}

/// A directory whose entries the kernel knows.
pub trait Directory: Send + Sync + Debug + 'static {
    /// ENOENT where there is none. Without a task (while a container is set up) there is nobody to ask about.
    fn lookup(&self, dir: &Inode, name: &FileName, task: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno>;
    /// All entries but `.` and `..`, in an order that stays the same from call to call.
    fn entries(&self, dir: &Inode, task: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno>;
    /// Where a reader goes on after the entry at `position`, so that it misses none and sees none twice while others come
    /// and go. Ascending over the entries. Directories of numbers use the number.
    fn cookie(&self, position: u64, _name: &FileName) -> u64 {
        position
    }
    /// Whether names may be cached: only where the set of entries never changes.
    fn fixed(&self) -> bool {
        false
    }
    /// Whether what this directory stands for still exists.
    fn alive(&self) -> bool {
        true
    }
    fn nlink(&self) -> u32 {
        2
    }
    /// The process that it stands for (`/proc/PID`): such a directory's descriptor works as a pidfd.
    fn process(&self) -> Option<Arc<ThreadGroup>> {
        None
    }
}

/// The process whose `/proc/PID` this inode is.
pub fn process_of(inode: &Inode) -> Option<Arc<ThreadGroup>> {
    inode.ops_as::<DirInode>()?.dir.process()
}

/// A directory inode.
pub fn directory(sb: &Arc<Superblock>, ino: u64, perm: Perm, dir: Arc<dyn Directory>) -> Arc<Inode> {
    Inode::new(sb, ino, FileKind::Directory, Box::new(DirInode { perm, dir }))
}

#[derive(Debug)]
struct DirInode {
    perm: Perm,
    dir: Arc<dyn Directory>,
}

impl InodeOps for DirInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(attr(FileKind::Directory, self.perm, self.dir.nlink()))
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        set_attr(set)
    }
    fn lookup(&self, dir: &Inode, name: &FileName, task: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        self.dir.lookup(dir, name, task)
    }
    /// Names that are not there cannot be made: to a program it looks as if the directory was gone.
    fn create(&self, _: &Inode, _: &FileName, _: NewNode<'_>, _: Owner) -> Result<Arc<Inode>, Errno> {
        Err(Errno::ENOENT)
    }
    fn open(&self, _: &Arc<Inode>, _: OpenFlags, _: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        Ok(Box::new(DirFile { dir: self.dir.clone() }))
    }
    fn revalidate(&self, _: &Inode) -> bool {
        self.dir.alive()
    }
    fn cache_children(&self) -> bool {
        self.dir.fixed()
    }
}

#[derive(Debug)]
struct DirFile {
    dir: Arc<dyn Directory>,
}

impl FileOps for DirFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, _: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }
    fn read_dir(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        from: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), Errno> {
        let entries = self.dir.entries(&file.inode, task)?;
        emit_entries(&*self.dir, file, from, &entries, sink);
        Ok(())
    }
    fn sync(&self, _: &OpenFile, _: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}

/// The cookie of a numbered entry: after all named ones.
pub fn number_cookie(position: u64, name: &FileName) -> u64 {
    let number = std::str::from_utf8(name).ok().and_then(|n| n.parse::<u32>().ok());
    number.map_or(position, |n| 1024 + u64::from(n))
}

/// Emits `.`, `..` and `entries`.
fn emit_entries(
    dir: &dyn Directory,
    file: &OpenFile,
    from: u64,
    entries: &[(Vec<u8>, u64, FileKind)],
    sink: &mut dyn DirSink,
) {
    let parent_ino = file.path.dentry.parent().map_or(file.inode.ino, |p| p.inode.ino);
    let dots = [(&b"."[..], file.inode.ino), (&b".."[..], parent_ino)];
    let dots = dots.into_iter().map(|(name, ino)| (name, ino, FileKind::Directory));
    let all = dots.chain(entries.iter().map(|(name, ino, kind)| (name.as_slice(), *ino, *kind)));
    for (position, (name, ino, kind)) in (1..).zip(all) {
        let next = if position <= 2 { position } else { dir.cookie(position, name) };
        if next > from && !sink.emit(DirEntry { ino, kind, name, next }) {
            break;
        }
    }
}

/// A directory that is filled once.
#[derive(Debug, Default)]
pub struct StaticDir {
    entries: BTreeMap<Vec<u8>, Arc<Inode>>,
}

impl StaticDir {
    pub fn new() -> StaticDir {
        StaticDir::default()
    }
    pub fn add(&mut self, name: &str, inode: Arc<Inode>) -> &mut StaticDir {
        self.entries.insert(name.as_bytes().to_vec(), inode);
        self
    }
    /// Adds a root-owned file.
    pub fn file(&mut self, sb: &Arc<Superblock>, name: &str, perm: u32, text: impl Text) -> &mut StaticDir {
        let inode = file(sb, sb.next_ino(), Perm::root(perm), Arc::new(text));
        self.add(name, inode)
    }
    /// Adds a root-owned file made by a function.
    pub fn made(
        &mut self,
        sb: &Arc<Superblock>,
        name: &str,
        text: fn(&CurrentTask) -> Result<Vec<u8>, Errno>,
    ) -> &mut StaticDir {
        self.file(sb, name, 0o444, text)
    }
    /// Adds a directory.
    pub fn dir(&mut self, sb: &Arc<Superblock>, name: &str, dir: StaticDir) -> &mut StaticDir {
        let inode = dir.into_inode(sb);
        self.add(name, inode)
    }
    pub fn link(&mut self, sb: &Arc<Superblock>, name: &str, target: &str) -> &mut StaticDir {
        let inode = symlink(sb, sb.next_ino(), Perm::root(0o777), target.as_bytes());
        self.add(name, inode)
    }
    /// Root-owned, mode 0555.
    pub fn into_inode(self, sb: &Arc<Superblock>) -> Arc<Inode> {
        directory(sb, sb.next_ino(), Perm::root(0o555), Arc::new(self))
    }
    pub fn get(&self, name: &FileName) -> Option<&Arc<Inode>> {
        self.entries.get(name)
    }
    pub fn list(&self) -> Vec<(Vec<u8>, u64, FileKind)> {
        self.entries.iter().map(|(name, inode)| (name.clone(), inode.ino, inode.kind)).collect()
    }
}

impl Directory for StaticDir {
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        self.entries.get(name).cloned().ok_or(Errno::ENOENT)
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        Ok(self.list())
    }
    fn fixed(&self) -> bool {
        true
    }
    fn nlink(&self) -> u32 {
        2 + self.entries.values().filter(|i| i.is_dir()).count() as u32
    }
}
