//! The host's files: opening below an image's directory without leaving it, reading bounded parts, and making things
//! visible at once.
//!
//! Invariants: a path from an image is only ever resolved beneath its directory, without following symbolic links; what is
//! read is a regular file; a read allocates no more than the file has.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rkyv::util::AlignedVec;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};

use crate::error::Place;
use crate::{Digest, ImageError};

/// Bytes in private memory, aligned for records.
pub(crate) type Bytes = AlignedVec<{ crate::format::RECORD_ALIGN }>;

/// Names of unfinished and dying directories and files start with this. No image's name does.
pub(crate) const TEMPORARY: &str = ".quicksand-tmp-";

/// Opens a directory by a path of the caller's, who may use symbolic links.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory that lies directly in `dir`.
pub(crate) fn open_subdir(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve)?)
}

/// A regular file of an image and the size it has.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) file: File,
    pub(crate) size: u64,
}

impl Blob {
    /// Opens `path` beneath `dir`.
    pub(crate) fn open(dir: impl AsFd, path: &str, place: &Place) -> Result<Blob, ImageError> {
        // NONBLOCK: a FIFO in the file's place must not stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
            .map_err(|errno| place.io(errno.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| place.io(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(place.damaged(0, "it is not a regular file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Blob { file: File::from(fd), size })
    }

    /// As `open`, for a blob whose size is known.
    pub(crate) fn open_sized(
        dir: impl AsFd,
        path: &str,
        size: u64,
        place: &Place,
    ) -> Result<Blob, ImageError> {
        let blob = Blob::open(dir, path, place)?;
        if blob.size != size {
            let problem = format!("it has {} bytes and should have {size}", blob.size);
            return Err(place.damaged(blob.size.min(size), problem));
        }
        Ok(blob)
    }

    /// Reads a range, which must lie in the file.
    pub(crate) fn read(&self, offset: u64, len: u64, place: &Place) -> Result<Bytes, ImageError> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(place.damaged(self.size, "it lies beyond the end of its file"));
        }
        let len = usize::try_from(len).map_err(|_| place.damaged(0, "it is larger than memory"))?;
        let mut bytes = Bytes::with_capacity(len);
        bytes.resize(len, 0);
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| place.io(error))?;
        Ok(bytes)
    }

    /// Reads the whole file, of `max` bytes at most.
    pub(crate) fn read_all(&self, max: u64, place: &Place) -> Result<Bytes, ImageError> {
        if self.size > max {
            return Err(place.damaged(max, format!("it has {} bytes, {max} at most", self.size)));
        }
        self.read(0, self.size, place)
    }

    /// Bytes that the file takes on disk.
    pub(crate) fn allocated(&self, place: &Place) -> Result<u64, ImageError> {
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| place.io(errno.into()))?;
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }
}

/// Reads a whole blob by its digest and checks it.
pub(crate) fn read_blob(
    dir: impl AsFd,
    digest: Digest,
    size: u64,
    max: u64,
    place: &Place,
) -> Result<Bytes, ImageError> {
    let blob = Blob::open_sized(dir, &digest.blob_path(), size, place)?;
    let bytes = blob.read_all(max, place)?;
    if Digest::of(&bytes) != digest {
        return Err(place.damaged(0, format!("its digest is not {digest}")));
    }
    Ok(bytes)
}

/// A number that no other file of this name has; no secret.
fn unique() -> io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

/// A directory under construction, beside what it will be. Its creator holds a lock on it: where nobody does, the creator
/// is gone and anybody may remove it.
#[derive(Debug)]
pub(crate) struct TempDir {
    pub(crate) parent: Arc<OwnedFd>,
    pub(crate) fd: OwnedFd,
    name: String,
    keep: bool,
}

impl TempDir {
    pub(crate) fn create(parent: Arc<OwnedFd>) -> io::Result<TempDir> {
        // A cleaner may come between making the directory and locking it; then it is made anew.
        for _ in 0..16 {
            let name = format!("{TEMPORARY}{}", unique()?);
            rustix::fs::mkdirat(&*parent, &name, Mode::from_raw_mode(0o700))?;
            let Ok(fd) = open_subdir(&*parent, &name) else { continue };
            if lock_named(&*parent, &name, &fd)? {
                return Ok(TempDir { parent, fd, name, keep: false });
            }
        }
        Err(io::Error::other("temporary directories vanish as they are made"))
    }

    /// Gives the directory its name, which must be free.
    pub(crate) fn publish(mut self, name: &str) -> io::Result<()> {
        rustix::fs::fsync(&self.fd)?;
        let (store, flags) = (&*self.parent, RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(store, &self.name, store, name, flags) {
            // Some file systems do not know the flag. A directory that has something in it is not replaced without it either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                rustix::fs::renameat(store, &self.name, store, name)?;
            }
            other => other?,
        }
        self.keep = true;
        Ok(rustix::fs::fsync(&*self.parent)?)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is by the next one who cleans.
            let _ = remove_tree(&*self.parent, &self.name);
        }
    }
}

/// Locks `fd` without waiting; whether it did, and `name` is still what `fd` is.
fn lock_named(parent: impl AsFd, name: &str, fd: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    }
    let ours = rustix::fs::fstat(fd)?;
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what dead creators and removers left in `store`.
pub(crate) fn clean(store: &OwnedFd) -> io::Result<()> {
    for name in names(store)? {
        if !name.starts_with(TEMPORARY) {
            continue;
        }
        let Ok(fd) = open_subdir(store, &name) else { continue };
        if lock_named(store, &name, &fd).unwrap_or(false) {
            let _ = remove_tree(store, &name);
        }
    }
    Ok(())
}

/// Takes the directory `name` out of sight at once, then removes it. A death in between leaves it to `clean`.
pub(crate) fn remove_at_once(store: &OwnedFd, name: &str) -> io::Result<()> {
    let fd = open_subdir(store, name)?;
    rustix::fs::flock(&fd, FlockOperation::LockExclusive)?;
    let hidden = format!("{TEMPORARY}{}", unique()?);
    rustix::fs::renameat(store, name, store, &hidden)?;
    rustix::fs::fsync(store)?;
    remove_tree(store, &hidden)
}

/// The names in a directory, but for `.`, `..` and what is not UTF-8.
pub(crate) fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// How deep directories that we remove may lie in each other; images have three levels.
const MAX_DEPTH: u32 = 8;

fn remove_tree(parent: impl AsFd, name: &str) -> io::Result<()> {
    fn empty(dir: &OwnedFd, depth: u32) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::other("directories lie too deep in each other"));
        }
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) => {}
                Err(rustix::io::Errno::ISDIR) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let sub = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                    empty(&sub, depth - 1)?;
                    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
    let dir = open_subdir(&parent, name)?;
    empty(&dir, MAX_DEPTH)?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Creates a file for writing (and reading back) in `dir`.
pub(crate) fn create_file(dir: impl AsFd, path: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, path, flags, Mode::from_raw_mode(0o600))?;
    Ok(File::from(fd))
}

/// Writes `bytes` to `path` in `dir`, durably, replacing what is there at once.
pub(crate) fn replace_file(dir: &OwnedFd, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{TEMPORARY}{}", unique()?);
    let write = || -> io::Result<()> {
        let file = create_file(dir, &temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(dir, &temporary, dir, path)?)
    };
    write().inspect_err(|_| {
        let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
    })
}

/// Makes names in a directory beneath `dir` durable.
pub(crate) fn sync_dir(dir: &OwnedFd, path: &str) -> io::Result<()> {
    Ok(rustix::fs::fsync(open_subdir(dir, path)?)?)
}
