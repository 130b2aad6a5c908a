//! `/dev/null`, `zero`, `full`, `random`, `urandom` (Linux's `drivers/char/mem.c` and `random.c`; `null(4)`, `full(4)`,
//! `random(4)`).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::vfs::{FileOps, HostMapping, IoDst, IoSrc, OpenFile, SeekFrom};

/// Zeroes are put in pieces of this size.
const ZEROES: [u8; 4096] = [0; 4096];

fn discard(src: &mut IoSrc<'_>) -> usize {
    // As Linux's write_null: the bytes are not even looked at.
    let n = src.remaining();
    src.limit(0);
    n
}

fn put_zeroes(dst: &mut IoDst<'_>) -> Result<usize, Errno> {
    let start = dst.done();
    while dst.remaining() > 0 {
        let want = dst.remaining().min(ZEROES.len());
        match dst.put(&ZEROES[..want]) {
            Ok(n) if n == want => {}
            Ok(_) => break,
            Err(e) if dst.done() == start => return Err(e),
            Err(_) => break,
        }
    }
    Ok(dst.done() - start)
}

/// Any seek succeeds and leaves the position at 0 (`null_lseek`).
fn no_position(_: SeekFrom) -> Result<u64, Errno> {
    Ok(0)
}

fn zero_mapping(len: u64) -> Result<HostMapping, Errno> {
    let fd: OwnedFd = rustix::fs::memfd_create("zero", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    rustix::fs::ftruncate(&fd, len).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    Ok(HostMapping { fd: Arc::new(fd), offset: 0, writable: true })
}

#[derive(Debug)]
pub(super) struct Null;

impl FileOps for Null {
    fn read(&self, _: &OpenFile, _: &CurrentTask, _: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        Ok(0)
    }
    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        Ok(discard(src))
    }
    fn append(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        Ok((discard(src), 0))
    }
    fn seek(&self, _: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        no_position(from)
    }
    fn can_splice(&self, write: bool) -> bool {
        write
    }
}

#[derive(Debug)]
pub(super) struct Zero;

impl FileOps for Zero {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        put_zeroes(dst)
    }
    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        Ok(discard(src))
    }
    fn append(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        Ok((discard(src), 0))
    }
    fn seek(&self, _: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        no_position(from)
    }
    /// Zero pages: each mapping gets its own, as with `MAP_ANONYMOUS`.
    fn mmap(&self, _: &OpenFile, _: u64, len: u64, _: bool) -> Result<HostMapping, Errno> {
        zero_mapping(len)
    }
}

#[derive(Debug)]
pub(super) struct Full;

impl FileOps for Full {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        put_zeroes(dst)
    }
    fn write(&self, _: &OpenFile, _: &CurrentTask, _: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        Err(Errno::ENOSPC)
    }
    fn append(&self, _: &OpenFile, _: &CurrentTask, _: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        Err(Errno::ENOSPC)
    }
    fn seek(&self, _: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        no_position(from)
    }
}

/// `/dev/random` and `/dev/urandom`: the same since Linux 5.18, once seeded.
#[derive(Debug)]
pub(super) struct Random;

// <linux/random.h>
const RNDGETENTCNT: u32 = 0x8004_5200;
const RNDADDTOENTCNT: u32 = 0x4004_5201;
const RNDADDENTROPY: u32 = 0x4008_5203;
const RNDZAPENTCNT: u32 = 0x5204;
const RNDCLEARPOOL: u32 = 0x5206;
const RNDRESEEDCRNG: u32 = 0x5207;

impl FileOps for Random {
    fn read(&self, _: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        let start = dst.done();
        let mut piece = [0; 1024];
        while dst.remaining() > 0 {
            let want = dst.remaining().min(piece.len());
            task.kernel().random(&mut piece[..want]);
            match dst.put(&piece[..want]) {
                Ok(n) if n == want => {}
                Ok(_) => break,
                Err(e) if dst.done() == start => return Err(e),
                Err(_) => break,
            }
        }
        Ok(dst.done() - start)
    }
    /// Anybody may stir the pool; nothing that a guest writes makes the host's generator any worse.
    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        Ok(discard(src))
    }
    fn append(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        Ok((discard(src), 0))
    }
    fn seek(&self, _: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        no_position(from)
    }
    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            RNDGETENTCNT => {
                // The size of the pool in bits: full, as on any seeded Linux since 5.18.
                task.write_object(UserAddr(arg), &256i32)?;
                Ok(0)
            }
            RNDADDTOENTCNT | RNDADDENTROPY | RNDZAPENTCNT | RNDCLEARPOOL | RNDRESEEDCRNG => {
                if !task.creds().has(Caps::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
