//! What the Sentry and a gofer say to each other: one packet asks, one answers.
//!
//! A packet is a fixed structure and then up to three byte strings, sent over a `SOCK_SEQPACKET` socket, so that a packet is
//! never cut or joined. A file is named by its path from the root each time; the gofer keeps no state of its own between
//! packets, which makes a killed one replaceable and a restored Sentry's questions valid. An opened file comes as a
//! descriptor beside its answer.
//!
//! Invariants: both sides check every length before they use it. Nothing that either side sends makes the other panic; an
//! answer that does not fit its question is EIO.

use quicksand_abi::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::hostfs::{Change, NewFile, Stat};

/// The longest packet: an extended attribute of 64 KiB with two paths.
pub const MAX_PACKET: usize = 96 * 1024;
/// Bytes of directory entries in one answer.
pub const MAX_ENTRIES: usize = 32 * 1024;
/// PATH_MAX: how long a path may be.
pub const MAX_PATH: usize = 4096;

/// What is asked for. Values are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Attributes of `path`.
    Stat = 1,
    /// A descriptor of the regular file `path`, for `flags` (0 read, 1 write, 2 both).
    OpenFile,
    /// Entries of the directory `path` from cookie `offset` on.
    ReadDir,
    /// Makes `path` as `new` says; `data` is a symbolic link's target. A regular file's descriptor comes with the answer.
    Create,
    /// Changes attributes of `path`.
    Change,
    ReadLink,
    /// Removes `path`; `flags` 1: a directory.
    Unlink,
    /// Gives `path` the further name `other`.
    Link,
    /// Renames `path` to `other`; `flags` 1: exchanges them.
    Rename,
    /// `other` is the attribute's name.
    GetXattr,
    SetXattr,
    ListXattr,
    RemoveXattr,
    StatFs,
}

impl Operation {
    pub fn from_raw(raw: u32) -> Option<Operation> {
        use Operation::*;
        const ALL: [Operation; 14] = [
            Stat,
            OpenFile,
            ReadDir,
            Create,
            Change,
            ReadLink,
            Unlink,
            Link,
            Rename,
            GetXattr,
            SetXattr,
            ListXattr,
            RemoveXattr,
            StatFs,
        ];
        ALL.into_iter().find(|op| *op as u32 == raw)
    }
}

/// The fixed part of a question.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestHead {
    pub operation: u32,
    pub flags: u32,
    pub offset: u64,
    pub path_len: u32,
    pub other_len: u32,
    pub data_len: u32,
    pub reserved: u32,
    pub change: Change,
    pub new: NewFile,
    pub padding: u32,
}

/// The fixed part of an answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReplyHead {
    /// 0, or an errno; then nothing else counts.
    pub errno: u32,
    /// 1: the place is sealed (`hostfs::is_kernel_interface`).
    pub flags: u32,
    pub data_len: u32,
    pub reserved: u32,
    pub stat: Stat,
}

/// Sizes of the file system, as `data` of a `StatFs` answer.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sizes {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// A question, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub operation: Operation,
    pub flags: u32,
    pub offset: u64,
    pub change: Change,
    pub new: NewFile,
    pub path: &'a [u8],
    pub other: &'a [u8],
    pub data: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn new(operation: Operation, path: &'a [u8]) -> Request<'a> {
        Request {
            operation,
            flags: 0,
            offset: 0,
            change: Change::default(),
            new: NewFile::default(),
            path,
            other: b"",
            data: b"",
        }
    }

    /// ENAMETOOLONG where it does not fit a packet.
    pub fn encode(&self) -> Result<Vec<u8>, Errno> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Errno::ENAMETOOLONG);
        let mut head = RequestHead::new_zeroed();
        head.operation = self.operation as u32;
        head.flags = self.flags;
        head.offset = self.offset;
        head.change = self.change;
        head.new = self.new;
        (head.path_len, head.other_len, head.data_len) = (len(self.path)?, len(self.other)?, len(self.data)?);
        let packet = [head.as_bytes(), self.path, self.other, self.data].concat();
        if packet.len() > MAX_PACKET || self.path.len() > MAX_PATH || self.other.len() > MAX_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(packet)
    }

    /// `None` where the packet is none of ours.
    pub fn decode(packet: &'a [u8]) -> Option<Request<'a>> {
        let (head, rest) = RequestHead::read_from_prefix(packet).ok()?;
        let (path, rest) = rest.split_at_checked(head.path_len as usize)?;
        let (other, rest) = rest.split_at_checked(head.other_len as usize)?;
        let (data, rest) = rest.split_at_checked(head.data_len as usize)?;
        if !rest.is_empty() || path.len() > MAX_PATH || other.len() > MAX_PATH {
            return None;
        }
        Some(Request {
            operation: Operation::from_raw(head.operation)?,
            flags: head.flags,
            offset: head.offset,
            change: head.change,
            new: head.new,
            path,
            other,
            data,
        })
    }
}

/// An answer, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub stat: Stat,
    pub sealed: bool,
    pub data: Vec<u8>,
}

impl Reply {
    pub fn encode(result: &Result<Reply, Errno>) -> Vec<u8> {
        let mut head = ReplyHead::new_zeroed();
        match result {
            Err(errno) => {
                head.errno = errno.raw().unsigned_abs();
                head.as_bytes().to_vec()
            }
            Ok(reply) => {
                head.flags = u32::from(reply.sealed);
                head.data_len = u32::try_from(reply.data.len()).unwrap_or(u32::MAX);
                head.stat = reply.stat;
                [head.as_bytes(), &reply.data].concat()
            }
        }
    }

    /// The gofer may be anybody's: what is malformed is EIO.
    pub fn decode(packet: &[u8]) -> Result<Reply, Errno> {
        let (head, data) = ReplyHead::read_from_prefix(packet).map_err(|_| Errno::EIO)?;
        if head.errno != 0 {
            let raw = i32::try_from(head.errno).ok().filter(|n| *n < 4096).ok_or(Errno::EIO)?;
            return Err(Errno::from_raw(raw));
        }
        if head.data_len as usize != data.len() {
            return Err(Errno::EIO);
        }
        Ok(Reply { stat: head.stat, sealed: head.flags & 1 != 0, data: data.to_vec() })
    }
}

/// Appends a directory entry; false where it does not fit any more.
pub fn put_entry(data: &mut Vec<u8>, ino: u64, next: u64, dtype: u8, name: &[u8]) -> bool {
    let Ok(len) = u8::try_from(name.len()) else { return true };
    if data.len() + 18 + name.len() > MAX_ENTRIES {
        return false;
    }
    data.extend_from_slice(&ino.to_le_bytes());
    data.extend_from_slice(&next.to_le_bytes());
    data.extend_from_slice(&[dtype, len]);
    data.extend_from_slice(name);
    true
}

/// Takes the first directory entry off `data`: inode number, cookie, type, name. EIO where it is malformed.
#[allow(clippy::type_complexity)]
pub fn take_entry<'a>(data: &mut &'a [u8]) -> Result<(u64, u64, u8, &'a [u8]), Errno> {
    let (fixed, rest) = data.split_at_checked(18).ok_or(Errno::EIO)?;
    let number = |at: usize| fixed[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| Errno::EIO);
    let (ino, next) = (number(0)?, number(8)?);
    let (name, rest) = rest.split_at_checked(usize::from(fixed[17])).ok_or(Errno::EIO)?;
    if name.is_empty() || name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Errno::EIO);
    }
    *data = rest;
    Ok((ino, next, fixed[16], name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_wire() {
        let mut request = Request::new(Operation::Rename, b"a/b");
        (request.other, request.flags) = (b"c", 1);
        let packet = request.encode().unwrap();
        let back = Request::decode(&packet).unwrap();
        assert_eq!(
            (back.operation, back.path, back.other, back.flags),
            (Operation::Rename, &b"a/b"[..], &b"c"[..], 1)
        );
        for cut in 0..packet.len() {
            assert!(Request::decode(&packet[..cut]).is_none());
        }
        let reply = Reply { data: b"xyz".to_vec(), sealed: true, ..Reply::default() };
        let packet = Reply::encode(&Ok(reply));
        assert_eq!(Reply::decode(&packet).unwrap().data, b"xyz");
        for cut in 0..packet.len() {
            assert_eq!(Reply::decode(&packet[..cut]).unwrap_err(), Errno::EIO);
        }
        assert_eq!(Reply::decode(&Reply::encode(&Err(Errno::ENOENT))).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn malformed_entries_are_refused() {
        let mut data = Vec::new();
        assert!(put_entry(&mut data, 7, 8, 4, b"name"));
        let mut rest = &data[..];
        assert_eq!(take_entry(&mut rest).unwrap(), (7, 8, 4, &b"name"[..]));
        assert!(rest.is_empty());
        for cut in 0..data.len() {
            assert_eq!(take_entry(&mut &data[..cut]).unwrap_err(), Errno::EIO);
        }
        let end = data.len() - 1;
        data[end] = b'/';
        assert_eq!(take_entry(&mut &data[..]).unwrap_err(), Errno::EIO);
    }
}
