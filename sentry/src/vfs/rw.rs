//! Reading and writing open files: what is common to all of them.
//!
//! [`read_file`] and [`write_file`] are tries (EAGAIN where they would wait), for every caller in the Sentry; the calls
//! in `syscalls_rw` turn EAGAIN of a blocking file into a wait. Positions, O_APPEND, size limits, set-id bits and access
//! times are dealt with here, so that file systems need not.

use quicksand_abi::Errno;

use super::file::OpenFile;
use super::inode::{FileKind, SetAttr};
use super::{IoDst, IoSrc, OpenFlags, notify, perm, walk};
use crate::task::{CurrentTask, Resource};

/// Largest size of a file (`MAX_LFS_FILESIZE`).
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// Reads at `at`, or at the position, which moves.
pub fn read_file(
    task: &CurrentTask,
    file: &OpenFile,
    dst: &mut IoDst<'_>,
    at: Option<u64>,
) -> Result<usize, Errno> {
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    if file.inode.is_dir() {
        return Err(Errno::EISDIR);
    }
    if file.ops.is_stream() {
        return if at.is_some() { Err(Errno::ESPIPE) } else { file.ops.read(file, task, dst, 0) };
    }
    let n = match at {
        Some(at) => file.ops.read(file, task, dst, in_range(at, dst.remaining())?)?,
        None => {
            let _position = file.position_lock.lock();
            let at = in_range(*file.offset.lock(), dst.remaining())?;
            let n = file.ops.read(file, task, dst, at)?;
            *file.offset.lock() = at.saturating_add(n as u64);
            n
        }
    };
    if n > 0 && !file.flags().contains(OpenFlags::NOATIME) {
        walk::touch_atime(&file.path);
    }
    if n > 0 {
        notify::file(&file.path, notify::ACCESS);
    }
    Ok(n)
}

/// Writes at `at`, or at the position, which moves; at the end where the file is open with O_APPEND.
pub fn write_file(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut IoSrc<'_>,
    at: Option<u64>,
) -> Result<usize, Errno> {
    write_file_append(task, file, src, at, file.flags().contains(OpenFlags::APPEND))
}

/// As [`write_file`]; the caller says whether to append (RWF_APPEND, RWF_NOAPPEND).
pub fn write_file_append(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut IoSrc<'_>,
    at: Option<u64>,
    append: bool,
) -> Result<usize, Errno> {
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if file.ops.is_stream() {
        return if at.is_some() { Err(Errno::ESPIPE) } else { file.ops.write(file, task, src, 0) };
    }
    let n = match at {
        Some(at) => write_at(task, file, src, at, append)?.0,
        None => {
            let _position = file.position_lock.lock();
            let at = *file.offset.lock();
            let (n, end) = write_at(task, file, src, at, append)?;
            *file.offset.lock() = end;
            n
        }
    };
    let flags = file.flags();
    if n > 0 {
        notify::file(&file.path, notify::MODIFY);
    }
    if n > 0 && flags.contains(OpenFlags::DSYNC) {
        file.ops.sync(file, !flags.contains(OpenFlags::SYNC_BIT))?;
    }
    Ok(n)
}

/// Bytes written, and the position after them.
fn write_at(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut IoSrc<'_>,
    at: u64,
    append: bool,
) -> Result<(usize, u64), Errno> {
    let at = in_range(at, src.remaining())?;
    if file.inode.kind != FileKind::Regular {
        let n = file.ops.write(file, task, src, at)?;
        return Ok((n, at.saturating_add(n as u64)));
    }
    if src.remaining() == 0 {
        return Ok((0, at));
    }
    let limit = task.group().rlimit(Resource::Fsize).soft.min(MAX_FILE_SIZE);
    let creds = task.creds();
    let outcome = {
        let _io = file.inode.io_lock.lock();
        write_locked(task, file, src, at, append, limit, &creds)
    };
    if let Err(TooLarge) = outcome {
        return Err(too_large(task, limit));
    }
    outcome.unwrap_or(Err(Errno::EFBIG))
}

/// The write is past the limit of sizes.
struct TooLarge;

fn write_locked(
    task: &CurrentTask,
    file: &OpenFile,
    src: &mut IoSrc<'_>,
    at: u64,
    append: bool,
    limit: u64,
    creds: &crate::task::Credentials,
) -> Result<Result<(usize, u64), Errno>, TooLarge> {
    let mut start = at;
    // The attributes may cost a host call: asked for only where they matter.
    if (append && limit < MAX_FILE_SIZE) || !creds.has(crate::task::credentials::Caps::FSETID) {
        let attr = match file.inode.attr() {
            Ok(attr) => attr,
            Err(e) => return Ok(Err(e)),
        };
        if append {
            start = attr.size;
        }
        if let Some(perm) = perm::killed_set_ids(creds, &attr) {
            let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
            if let Err(e) = file.inode.ops.set_attr(&file.inode, &set) {
                return Ok(Err(e));
            }
        }
    }
    if start >= limit {
        return Err(TooLarge);
    }
    src.limit(usize::try_from(limit - start).unwrap_or(usize::MAX));
    if append {
        return Ok(file.ops.append(file, task, src));
    }
    let written = file.ops.write(file, task, src, at);
    Ok(written.map(|n| (n, at.saturating_add(n as u64))))
}

/// EFBIG, with SIGXFSZ where RLIMIT_FSIZE is the limit that was met.
pub fn too_large(task: &CurrentTask, limit: u64) -> Errno {
    if limit < MAX_FILE_SIZE {
        super::signal_file_size(task);
    }
    Errno::EFBIG
}

/// A position that a transfer of `len` bytes does not carry past the largest file.
fn in_range(at: u64, len: usize) -> Result<u64, Errno> {
    match at.checked_add(len as u64) {
        Some(end) if end <= MAX_FILE_SIZE => Ok(at),
        _ => Err(Errno::EINVAL),
    }
}
