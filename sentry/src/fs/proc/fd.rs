//! `/proc/PID/fd` and `fdinfo`, the links that lead to places rather than paths (`cwd`, `root`, `exe`), namespaces, and
//! `mem`.

use std::sync::{Arc, Weak};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};

use super::task::{Subject, ino};
use crate::fs::pseudo::{self, Directory, Link, Manner, Perm, Text};
use crate::mm::MemoryManager;
use crate::syscalls::Fd;
use crate::task::CurrentTask;
use crate::vfs::{
    Attr, FdTable, FileKind, FileName, FileOps, Inode, InodeOps, IoDst, IoSrc, LinkTarget, OpenFile,
    OpenFlags, SeekFrom, Superblock,
};

/// Which place a link leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Magic {
    Cwd,
    Root,
    Exe,
}

#[derive(Debug)]
pub(super) struct MagicLink {
    pub subject: Subject,
    pub magic: Magic,
}

impl Link for MagicLink {
    fn target(&self, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        let caller = task.ok_or(Errno::ENOENT)?;
        // A zombie has none of these.
        let subject = self.subject.task().map_err(|_| Errno::ENOENT)?;
        self.subject.check_access(caller)?;
        let path = match self.magic {
            Magic::Cwd => subject.fs_opt().ok_or(Errno::ENOENT)?.cwd(),
            Magic::Root => subject.fs_opt().ok_or(Errno::ENOENT)?.root(),
            Magic::Exe => subject.mm_opt().and_then(|mm| mm.exe()).ok_or(Errno::ENOENT)?.path.clone(),
        };
        Ok(LinkTarget::Jump(path))
    }
}

/// `fd` (links) or `fdinfo` (texts).
#[derive(Debug)]
pub(super) struct Fds {
    sb: Weak<Superblock>,
    subject: Subject,
    info: bool,
}

impl Fds {
    pub(super) fn new(sb: &Arc<Superblock>, subject: Subject, info: bool) -> Fds {
        Fds { sb: Arc::downgrade(sb), subject, info }
    }
    fn table(&self) -> Result<Arc<FdTable>, Errno> {
        self.subject.task()?.files_opt().ok_or(Errno::ENOENT)
    }
    fn ino(&self, fd: Fd) -> u64 {
        let base = if self.info { 1 << 21 } else { 1 << 22 };
        ino(self.subject.number, base | (fd.0 as u64 & 0xf_ffff))
    }
}

impl Directory for Fds {
    fn cookie(&self, position: u64, name: &FileName) -> u64 {
        pseudo::number_cookie(position, name)
    }
    fn lookup(&self, _: &Inode, name: &FileName, task: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        self.subject.check_access(task.ok_or(Errno::ENOENT)?)?;
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let number: i32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if number < 0 || number.to_string() != text {
            return Err(Errno::ENOENT);
        }
        let fd = Fd(number);
        let file = self.table()?.get(fd).map_err(|_| Errno::ENOENT)?;
        let sb = self.sb.upgrade().ok_or(Errno::ENOENT)?;
        let creds = self.subject.task()?.creds();
        let perm = |perm| Perm { perm, uid: creds.euid, gid: creds.egid };
        if self.info {
            let text = FdInfo { subject: self.subject.clone(), fd };
            return Ok(pseudo::file(&sb, self.ino(fd), perm(0o400), Arc::new(text)));
        }
        let flags = file.flags();
        let mut bits = 0;
        if flags.can_read() {
            bits |= 0o500;
        }
        if flags.can_write() {
            bits |= 0o300;
        }
        let link = FdLink { subject: self.subject.clone(), fd };
        Ok(pseudo::magic_link(&sb, self.ino(fd), perm(bits), Arc::new(link)))
    }
    fn entries(&self, _: &Inode, task: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        self.subject.check_access(task)?;
        let kind = if self.info { FileKind::Regular } else { FileKind::Symlink };
        // Whoever has ended has none.
        let open = self.table().map_or(Vec::new(), |table| table.open_fds());
        Ok(open.into_iter().map(|(fd, _, _)| (fd.0.to_string().into_bytes(), self.ino(fd), kind)).collect())
    }
}

#[derive(Debug)]
struct FdLink {
    subject: Subject,
    fd: Fd,
}

impl Link for FdLink {
    fn target(&self, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        self.subject.check_access(task.ok_or(Errno::ENOENT)?)?;
        let files = self.subject.task()?.files_opt().ok_or(Errno::ENOENT)?;
        let file = files.get(self.fd).map_err(|_| Errno::ENOENT)?;
        Ok(LinkTarget::Jump(file.path.clone()))
    }
}

#[derive(Debug)]
struct FdInfo {
    subject: Subject,
    fd: Fd,
}

impl Text for FdInfo {
    fn text(&self, caller: &CurrentTask) -> Result<Vec<u8>, Errno> {
        self.subject.check_access(caller)?;
        let files = self.subject.task()?.files_opt().ok_or(Errno::ENOENT)?;
        let (file, fd_flags) = files.get_with_flags(self.fd).map_err(|_| Errno::ENOENT)?;
        let mut flags = file.flags();
        if fd_flags.contains(crate::vfs::FdFlags::CLOEXEC) {
            flags |= OpenFlags::CLOEXEC;
        }
        let position = *file.offset.lock();
        let mut out = format!(
            "pos:\t{position}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n",
            flags.bits(),
            file.path.mount.id,
            file.inode.ino
        );
        out.push_str(&file.ops.fdinfo(&file));
        Ok(out.into_bytes())
    }
    fn manner(&self) -> Manner {
        Manner::Unspliced
    }
}

/// `ns`: links whose texts tell namespaces apart. The container is in one of each.
#[derive(Debug)]
pub(super) struct Namespaces {
    sb: Weak<Superblock>,
    subject: Subject,
}

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Namespaces {
    pub(super) fn new(sb: &Arc<Superblock>, subject: Subject) -> Namespaces {
        Namespaces { sb: Arc::downgrade(sb), subject }
    }
}

impl Directory for Namespaces {
    fn lookup(&self, _: &Inode, name: &FileName, task: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        self.subject.check_access(task.ok_or(Errno::ENOENT)?)?;
        let index = NAMESPACES.iter().position(|n| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let sb = self.sb.upgrade().ok_or(Errno::ENOENT)?;
        let number = ino(self.subject.number, (1 << 19) + index as u64);
        let text = format!("{}:[{}]", NAMESPACES[index], 4_026_531_834 + index as u64);
        Ok(pseudo::symlink(&sb, number, Perm::root(0o777), text.as_bytes()))
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        let entry = |(i, n): (usize, &&str)| {
            (n.as_bytes().to_vec(), ino(self.subject.number, (1 << 19) + i as u64), FileKind::Symlink)
        };
        Ok(NAMESPACES.iter().enumerate().map(entry).collect())
    }
}

/// `mem`: the address space as a file.
pub(super) fn mem(sb: &Arc<Superblock>, number: u64, perm: Perm, subject: Subject) -> Arc<Inode> {
    Inode::new(sb, number, FileKind::Regular, Box::new(MemInode { perm, subject }))
}

#[derive(Debug)]
struct MemInode {
    perm: Perm,
    subject: Subject,
}

impl InodeOps for MemInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(pseudo::attr(FileKind::Regular, self.perm, 1))
    }
    fn open(&self, _: &Arc<Inode>, _: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        self.subject.check_access(task)?;
        Ok(Box::new(MemFile { mm: self.subject.task()?.mm_opt().ok_or(Errno::ESRCH)? }))
    }
}

/// `pagemap`: eight bytes a page, of which only "present" (bit 63) is told: frames are the host's.
pub(super) fn pagemap(sb: &Arc<Superblock>, number: u64, perm: Perm, subject: Subject) -> Arc<Inode> {
    Inode::new(sb, number, FileKind::Regular, Box::new(PagemapInode { perm, subject }))
}

#[derive(Debug)]
struct PagemapInode {
    perm: Perm,
    subject: Subject,
}

impl InodeOps for PagemapInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(pseudo::attr(FileKind::Regular, self.perm, 1))
    }
    fn open(&self, _: &Arc<Inode>, _: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        self.subject.check_access(task)?;
        Ok(Box::new(PagemapFile { mm: self.subject.task()?.mm_opt().ok_or(Errno::ESRCH)? }))
    }
}

#[derive(Debug)]
struct PagemapFile {
    mm: Arc<MemoryManager>,
}

impl FileOps for PagemapFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        const PRESENT: u64 = 1 << 63;
        if !offset.is_multiple_of(8) || !dst.remaining().is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let start = dst.done();
        let mut page = offset / 8;
        let end = UserAddr::TASK_SIZE.0 / PAGE_SIZE;
        while dst.remaining() > 0 && page < end {
            let count = (dst.remaining() as u64 / 8).min(512).min(end - page);
            let range = UserRange::new(UserAddr(page * PAGE_SIZE), count * PAGE_SIZE).ok_or(Errno::EINVAL)?;
            let mut present = vec![false; count as usize];
            self.mm.space.resident(range, &mut present);
            let bytes: Vec<u8> =
                present.iter().flat_map(|p| (if *p { PRESENT } else { 0 }).to_ne_bytes()).collect();
            if dst.put(&bytes)? < bytes.len() {
                break;
            }
            page += count;
        }
        Ok(dst.done() - start)
    }
}

/// Holds the address space it was opened on, whatever its process executes later.
#[derive(Debug)]
struct MemFile {
    mm: Arc<MemoryManager>,
}

impl FileOps for MemFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let mut page = [0; 4096];
        let mut at = offset;
        let start = dst.done();
        while dst.remaining() > 0 {
            let want = dst.remaining().min(page.len());
            let got = match self.mm.read_bytes(UserAddr(at), &mut page[..want]) {
                Ok(()) => want,
                Err(fault) if fault.done == 0 && dst.done() == start => return Err(Errno::EIO),
                Err(fault) => fault.done,
            };
            let put = dst.put(&page[..got])?;
            if put < want {
                break;
            }
            at = at.wrapping_add(put as u64);
        }
        Ok(dst.done() - start)
    }
    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        let mut page = [0; 4096];
        let mut at = offset;
        let mut written = 0;
        while src.remaining() > 0 {
            let n = src.take(&mut page)?;
            let done = match self.mm.space.write_forced(UserAddr(at), &page[..n]) {
                Ok(()) => n,
                Err(fault) if fault.done == 0 && written == 0 => return Err(Errno::EIO),
                Err(fault) => fault.done,
            };
            written += done;
            if done < n {
                break;
            }
            at = at.wrapping_add(done as u64);
        }
        Ok(written)
    }
    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        match from {
            // Addresses are positions: any 64-bit value will do.
            SeekFrom::Start(at) => Ok(at as u64),
            SeekFrom::Current(by) => Ok((*file.offset.lock()).wrapping_add(by as u64)),
            _ => Err(Errno::EINVAL),
        }
    }
}
