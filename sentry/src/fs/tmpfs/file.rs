//! Contents of regular files in memory.
//!
//! A small file is on the heap, with a bitmap of the pages that were ever written (so that holes are known). Past
//! [`HEAP_MAX`] bytes, or when it is mapped or preallocated, it moves for good to a host memfd, where holes, SEEK_DATA
//! and `fallocate` are the host's own shmem, which is what a guest's tmpfs would be.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom as HostSeek};

use super::Node;
use super::space::Space;
use crate::task::CurrentTask;
use crate::vfs::io::with_scratch;
use crate::vfs::{HostMapping, IoDst, IoSrc, OpenFile, SeekFrom, file};

/// Largest file on the heap: as many pages as `Heap::written` has bits.
const HEAP_MAX: u64 = 16 * PAGE;
const PAGE: u64 = 4096;

/// `F_SEAL_*`, as `fcntl(2)` has them.
pub(super) mod seal {
    pub(in super::super) const SEAL: u32 = 1;
    pub(in super::super) const SHRINK: u32 = 2;
    pub(in super::super) const GROW: u32 = 4;
    pub(in super::super) const WRITE: u32 = 8;
    pub(in super::super) const FUTURE_WRITE: u32 = 16;
    pub(in super::super) const EXEC: u32 = 32;
    pub(in super::super) const ALL: u32 = 63;
}

/// A regular file's contents.
#[derive(Debug)]
pub(super) struct Data {
    size: u64,
    store: Store,
    pub(super) seals: u32,
    /// Of a file that can be sealed: what its writable shared mappings hold, as long as there are any.
    writable_mappings: Weak<OwnedFd>,
}

#[derive(Debug)]
enum Store {
    Heap {
        /// Shorter than the size where the rest is a hole.
        bytes: Vec<u8>,
        /// Pages ever written.
        written: u16,
    },
    Host {
        fd: Arc<OwnedFd>,
        /// Pages counted against the file system's limit.
        counted: u64,
        /// Pages `0..dense` are known to be allocated.
        dense: u64,
    },
}

impl Default for Data {
    fn default() -> Data {
        // Ordinary files cannot be sealed.
        let store = Store::Heap { bytes: Vec::new(), written: 0 };
        Data { size: 0, store, seals: seal::SEAL, writable_mappings: Weak::new() }
    }
}

impl Data {
    /// Empty, and to be sealed as anybody likes.
    pub(super) fn unsealed() -> Data {
        Data { seals: 0, ..Data::default() }
    }
    pub(super) fn size(&self) -> u64 {
        self.size
    }
    /// Allocated pages.
    pub(super) fn pages(&self) -> Result<u64, Errno> {
        match &self.store {
            Store::Heap { written, .. } => Ok(u64::from(written.count_ones())),
            Store::Host { fd, .. } => host_pages(fd),
        }
    }
    /// Gives the pages back to the file system's limit.
    pub(super) fn release(&mut self, space: &Space) {
        match &self.store {
            Store::Heap { written, .. } => space.put_pages(u64::from(written.count_ones())),
            Store::Host { counted, .. } => space.put_pages(*counted),
        }
    }

    /// Copies what is at `offset` into `buf`; 0 at the end. Heap contents only: for a memfd, returns its descriptor and how
    /// much to read, so that the host call is made without a lock.
    fn read(&self, offset: u64, buf: &mut [u8]) -> ReadStep {
        let Some(left) = self.size.checked_sub(offset).filter(|n| *n > 0) else { return ReadStep::Copied(0) };
        let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match &self.store {
            Store::Host { fd, .. } => ReadStep::Host(fd.clone(), want),
            Store::Heap { bytes, .. } => {
                let start = (offset as usize).min(bytes.len());
                let have = want.min(bytes.len() - start);
                buf[..have].copy_from_slice(&bytes[start..start + have]);
                buf[have..want].fill(0);
                ReadStep::Copied(want)
            }
        }
    }

    /// Writes at `offset`; returns how much of `data` fitted (ENOSPC where nothing did).
    pub(super) fn write(&mut self, space: &Space, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        if self.seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        let mut data = data;
        if self.seals & seal::GROW != 0 && offset.saturating_add(data.len() as u64) > self.size {
            // As Linux writes: page by page, and the first page that would grow the file ends it.
            let fits = (self.size & !(PAGE - 1)).saturating_sub(offset);
            if fits == 0 {
                return Err(Errno::EPERM);
            }
            data = &data[..(fits as usize).min(data.len())];
        }
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if end > HEAP_MAX {
            self.move_to_host()?;
        }
        match &mut self.store {
            Store::Heap { bytes, written } => {
                let mut fits = 0;
                for page in offset / PAGE..end.div_ceil(PAGE) {
                    if *written & 1 << page == 0 {
                        if space.take_pages(1) == 0 {
                            break;
                        }
                        *written |= 1 << page;
                    }
                    fits = (((page + 1) * PAGE).min(end) - offset) as usize;
                }
                if fits == 0 && !data.is_empty() {
                    return Err(Errno::ENOSPC);
                }
                let (start, end) = (offset as usize, offset as usize + fits);
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(&data[..fits]);
                self.size = self.size.max(end as u64);
                Ok(fits)
            }
            Store::Host { fd, counted, dense } => {
                let fits = reserve(space, fd, counted, dense, offset, end)?;
                let done = rustix::io::pwrite(&**fd, &data[..fits], offset);
                settle(space, fd, counted, *dense)?;
                let done = done.map_err(host)?;
                self.size = self.size.max(offset + done as u64);
                Ok(done)
            }
        }
    }

    pub(super) fn set_size(&mut self, space: &Space, size: u64) -> Result<(), Errno> {
        if (size < self.size && self.seals & seal::SHRINK != 0)
            || (size > self.size && self.seals & seal::GROW != 0)
        {
            return Err(Errno::EPERM);
        }
        if size > HEAP_MAX {
            self.move_to_host()?;
        }
        match &mut self.store {
            Store::Heap { bytes, written } => {
                let keep = size.div_ceil(PAGE);
                let kept = if keep >= 16 { *written } else { *written & ((1u16 << keep) - 1) };
                space.put_pages(u64::from((*written & !kept).count_ones()));
                *written = kept;
                bytes.truncate(size as usize);
            }
            Store::Host { fd, counted, dense } => {
                rustix::fs::ftruncate(&**fd, size).map_err(host)?;
                *dense = (*dense).min(size / PAGE);
                settle(space, fd, counted, *dense)?;
            }
        }
        self.size = size;
        Ok(())
    }

    /// Moves the contents to a memfd, holes kept.
    pub(super) fn move_to_host(&mut self) -> Result<Arc<OwnedFd>, Errno> {
        let (bytes, written) = match &self.store {
            Store::Host { fd, .. } => return Ok(fd.clone()),
            Store::Heap { bytes, written } => (bytes, *written),
        };
        let fd = rustix::fs::memfd_create(c"tmpfs", MemfdFlags::CLOEXEC).map_err(host)?;
        rustix::fs::ftruncate(&fd, self.size).map_err(host)?;
        for page in (0..16u64).filter(|page| written & 1 << page != 0) {
            let start = ((page * PAGE) as usize).min(bytes.len());
            let end = (((page + 1) * PAGE) as usize).min(bytes.len());
            let mut at = start;
            while at < end {
                let n = rustix::io::pwrite(&fd, &bytes[at..end], at as u64).map_err(host)?;
                if n == 0 {
                    return Err(Errno::ENOSPC);
                }
                at += n;
            }
        }
        let fd = Arc::new(fd);
        let dense = u64::from(written.trailing_ones());
        self.store = Store::Host { fd: fd.clone(), counted: u64::from(written.count_ones()), dense };
        Ok(fd)
    }

    /// A descriptor of its own for writable shared mappings: whether there are any is whether it is held.
    fn writable_mapping(&mut self, fd: &Arc<OwnedFd>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(held) = self.writable_mappings.upgrade() {
            return Ok(held);
        }
        let new = rustix::io::fcntl_dupfd_cloexec(&**fd, 0).map_err(host)?;
        let new = Arc::new(new);
        self.writable_mappings = Arc::downgrade(&new);
        Ok(new)
    }

    fn fallocate(&mut self, space: &Space, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        const KNOWN: u32 = (libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE) as u32;
        if mode & !KNOWN != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let punch = mode & libc::FALLOC_FL_PUNCH_HOLE as u32 != 0;
        if punch && self.seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        if !punch && self.seals & seal::GROW != 0 && end > self.size {
            return Err(Errno::EPERM);
        }
        self.move_to_host()?;
        let Store::Host { fd, counted, dense } = &mut self.store else { return Err(Errno::EIO) };
        let flags = FallocateFlags::from_bits_truncate(mode);
        if punch {
            rustix::fs::fallocate(&**fd, flags, offset, len).map_err(host)?;
            *dense = (*dense).min(offset / PAGE);
            return settle(space, fd, counted, *dense);
        }
        let want = end.div_ceil(PAGE) - offset / PAGE;
        let have = allocated_pages(fd, offset / PAGE, end.div_ceil(PAGE))?;
        let missing = want.saturating_sub(have);
        let got = space.take_pages(missing);
        *counted += got;
        if got < missing {
            settle(space, fd, counted, *dense)?;
            return Err(Errno::ENOSPC);
        }
        let done = rustix::fs::fallocate(&**fd, flags, offset, len).map_err(host);
        settle(space, fd, counted, *dense)?;
        done?;
        if mode & libc::FALLOC_FL_KEEP_SIZE as u32 == 0 {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    /// SEEK_DATA and SEEK_HOLE.
    fn seek_extent(&self, at: u64, data: bool) -> Result<u64, Errno> {
        if at >= self.size {
            return Err(Errno::ENXIO);
        }
        match &self.store {
            Store::Host { fd, .. } => {
                let whence = if data { HostSeek::Data(at) } else { HostSeek::Hole(at) };
                rustix::fs::seek(&**fd, whence).map_err(host)
            }
            Store::Heap { written, .. } => {
                let pages = self.size.div_ceil(PAGE);
                let found = (at / PAGE..pages).find(|page| (*written & 1 << page != 0) == data);
                match found {
                    Some(page) => Ok(at.max(page * PAGE)),
                    None if data => Err(Errno::ENXIO),
                    None => Ok(self.size),
                }
            }
        }
    }
}

enum ReadStep {
    Copied(usize),
    Host(Arc<OwnedFd>, usize),
}

fn host(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

fn host_pages(fd: &OwnedFd) -> Result<u64, Errno> {
    let stat = rustix::fs::fstat(fd).map_err(host)?;
    Ok(stat.st_blocks as u64 / 8)
}

/// Pages of `first..end` that are allocated.
fn allocated_pages(fd: &OwnedFd, first: u64, end: u64) -> Result<u64, Errno> {
    let mut at = first * PAGE;
    let limit = end.saturating_mul(PAGE);
    let mut pages = 0;
    while at < limit {
        let data = match rustix::fs::seek(fd, HostSeek::Data(at)) {
            Ok(data) if data < limit => data,
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(host(e)),
        };
        let hole = rustix::fs::seek(fd, HostSeek::Hole(data)).map_err(host)?.min(limit);
        pages += (hole - data).div_ceil(PAGE);
        at = hole.next_multiple_of(PAGE);
    }
    Ok(pages)
}

/// Takes the pages that a write of `offset..end` needs; returns how many bytes of it then fit. ENOSPC for none.
fn reserve(
    space: &Space,
    fd: &OwnedFd,
    counted: &mut u64,
    dense: &mut u64,
    offset: u64,
    end: u64,
) -> Result<usize, Errno> {
    let (first, last) = (offset / PAGE, end.div_ceil(PAGE));
    if last <= *dense {
        return Ok((end - offset) as usize);
    }
    // A write that goes on where the dense part ends, in a file with nothing behind it, needs exactly this much.
    let exact = first <= *dense && *counted == *dense;
    let missing =
        if exact { last - *dense } else { (last - first).saturating_sub(allocated_pages(fd, first, last)?) };
    let got = space.take_pages(missing);
    *counted += got;
    if got == missing {
        if exact {
            *dense = last;
        }
        return Ok((end - offset) as usize);
    }
    // Not all fits: page by page, those first that are there already.
    let mut left = got;
    let mut fits = offset;
    for page in first..last {
        if page >= *dense && allocated_pages(fd, page, page + 1)? == 0 {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        fits = ((page + 1) * PAGE).min(end);
    }
    if fits <= offset {
        space.put_pages(got);
        *counted -= got;
        return Err(Errno::ENOSPC);
    }
    Ok((fits - offset) as usize)
}

/// Makes the count agree with what the host allocated. Skipped where all is dense, which is known without asking.
fn settle(space: &Space, fd: &OwnedFd, counted: &mut u64, dense: u64) -> Result<(), Errno> {
    if *counted == dense {
        return Ok(());
    }
    let pages = host_pages(fd)?;
    if pages > *counted {
        space.force_pages(pages - *counted);
    } else {
        space.put_pages(*counted - pages);
    }
    *counted = pages;
    Ok(())
}

/// An open regular file.
#[derive(Debug)]
pub(super) struct TmpfsFile;

impl file::FileOps for TmpfsFile {
    fn read(
        &self,
        file: &OpenFile,
        _task: &CurrentTask,
        dst: &mut IoDst<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let node = Node::of(&file.inode)?;
        with_scratch(dst.remaining(), |buf| {
            let mut done = 0;
            while dst.remaining() > 0 {
                let want = buf.len().min(dst.remaining());
                let at = offset.saturating_add(done as u64);
                let step = node.state.lock().file()?.read(at, &mut buf[..want]);
                let n = match step {
                    ReadStep::Copied(n) => n,
                    ReadStep::Host(fd, want) => {
                        rustix::io::pread(fd.as_fd(), &mut buf[..want], at).map_err(host)?
                    }
                };
                if n == 0 {
                    break;
                }
                match dst.put(&buf[..n]) {
                    Ok(put) => {
                        done += put;
                        if put < n {
                            break;
                        }
                    }
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    fn write(
        &self,
        file: &OpenFile,
        _task: &CurrentTask,
        src: &mut IoSrc<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let node = Node::of(&file.inode)?;
        with_scratch(src.remaining(), |buf| {
            let mut done = 0;
            while src.remaining() > 0 {
                let n = match src.take(buf) {
                    Ok(n) => n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                };
                let at = offset.checked_add(done as u64).ok_or(Errno::EFBIG)?;
                let mut state = node.state.lock();
                let written = state.file()?.write(&node.space, at, &buf[..n]);
                if written.is_ok() {
                    state.modified();
                }
                drop(state);
                match written {
                    Ok(written) => {
                        done += written;
                        if written < n {
                            src.unread(n - written);
                            if written == 0 {
                                break;
                            }
                        }
                    }
                    Err(e) => {
                        src.unread(n);
                        if done == 0 {
                            return Err(e);
                        }
                        break;
                    }
                }
            }
            Ok(done)
        })
    }

    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        let (at, data) = match from {
            SeekFrom::Data(at) => (at, true),
            SeekFrom::Hole(at) => (at, false),
            other => return file::default_seek(file, other),
        };
        let at = u64::try_from(at).map_err(|_| Errno::ENXIO)?;
        Node::of(&file.inode)?.state.lock().file()?.seek_extent(at, data)
    }

    fn mmap(&self, file: &OpenFile, offset: u64, _len: u64, shared: bool) -> Result<HostMapping, Errno> {
        let mut state = Node::of(&file.inode)?.state.lock();
        let data = state.file()?;
        let sealed = data.seals & (seal::WRITE | seal::FUTURE_WRITE) != 0;
        let mut fd = data.move_to_host()?;
        if shared && !sealed && data.seals & seal::SEAL == 0 && file.flags().can_write() {
            fd = data.writable_mapping(&fd)?;
        }
        Ok(HostMapping { fd, offset, writable: !(shared && sealed) })
    }

    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn fallocate(&self, file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let node = Node::of(&file.inode)?;
        let mut state = node.state.lock();
        state.file()?.fallocate(&node.space, mode, offset, len)?;
        state.modified();
        Ok(())
    }

    fn seals(&self, file: &OpenFile) -> Result<u32, Errno> {
        let mut state = Node::of(&file.inode)?.state.lock();
        Ok(state.file()?.seals)
    }

    fn add_seals(&self, file: &OpenFile, seals: u32) -> Result<(), Errno> {
        if seals & !seal::ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = Node::of(&file.inode)?.state.lock();
        let executable = state.perm & 0o111 != 0;
        let data = state.file()?;
        if data.seals & seal::SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if seals & seal::WRITE != 0
            && data.seals & seal::WRITE == 0
            && data.writable_mappings.strong_count() > 0
        {
            return Err(Errno::EBUSY);
        }
        let mut seals = seals;
        if seals & seal::EXEC != 0 && executable {
            seals |= seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE;
        }
        data.seals |= seals;
        Ok(())
    }
}
