//! Control messages, `cmsg(3)`.

use std::sync::Arc;

use quicksand_abi::socket::{CMSG_HDR_LEN, CMsgHdr, SCM_MAX_FD, Ucred, cmsg_align};
use quicksand_abi::{Errno, UserAddr};
use zerocopy::{FromBytes, IntoBytes};

use crate::syscalls::Fd;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::vfs::{FdFlags, OpenFile};

/// Longest control buffer of `sendmsg` (`net.core.optmem_max`).
const OPTMEM_MAX: usize = 131_072;

/// A control message for a protocol other than Unix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub level: i32,
    pub kind: i32,
    pub data: Vec<u8>,
}

/// What goes with a message.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// SCM_RIGHTS.
    pub rights: Vec<Arc<OpenFile>>,
    /// SCM_CREDENTIALS.
    pub credentials: Option<Ucred>,
    pub others: Vec<Other>,
}

impl Control {
    pub fn is_empty(&self) -> bool {
        self.rights.is_empty() && self.credentials.is_none() && self.others.is_empty()
    }

    /// Reads the control buffer of `sendmsg`. EINVAL for malformed ones. Descriptors and credentials are checked where
    /// messages stay in this kernel (`local`), and passed over elsewhere.
    pub fn read(task: &CurrentTask, addr: UserAddr, len: u64, local: bool) -> Result<Control, Errno> {
        let mut control = Control::default();
        let len = usize::try_from(len).map_err(|_| Errno::ENOBUFS)?;
        if len > OPTMEM_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = vec![0; len];
        task.read_bytes(addr, &mut bytes)?;
        for (header, data) in messages(&bytes)? {
            let of_kernel = matches!(header.kind, libc::SCM_RIGHTS | libc::SCM_CREDENTIALS);
            if local || header.level != libc::SOL_SOCKET || !of_kernel {
                control.add(task, header, data)?;
            }
        }
        Ok(control)
    }

    /// `__scm_send`: what a socket whose messages stay in this kernel does not know of SOL_SOCKET is EINVAL, and so are
    /// descriptors for those that carry none. Other levels are passed over.
    pub fn check_local(&self, carries_rights: bool) -> Result<(), Errno> {
        let unknown = self.others.iter().any(|o| o.level == libc::SOL_SOCKET);
        if unknown || !carries_rights && !self.rights.is_empty() { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn add(&mut self, task: &CurrentTask, header: CMsgHdr, data: &[u8]) -> Result<(), Errno> {
        match (header.level, header.kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let fds = data.chunks_exact(4).map(|c| i32::from_ne_bytes([c[0], c[1], c[2], c[3]]));
                if fds.len() > SCM_MAX_FD || self.rights.len() + fds.len() > SCM_MAX_FD {
                    return Err(Errno::EINVAL);
                }
                for fd in fds {
                    self.rights.push(task.file_or_path(Fd(fd))?);
                }
                Ok(())
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let creds = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                check_credentials(task, &creds)?;
                self.credentials = Some(creds);
                Ok(())
            }
            _ => {
                self.others.push(Other { level: header.level, kind: header.kind, data: data.to_vec() });
                Ok(())
            }
        }
    }
}

/// Splits a control buffer; EINVAL where a length does not fit.
fn messages(mut bytes: &[u8]) -> Result<Vec<(CMsgHdr, &[u8])>, Errno> {
    let mut out = Vec::new();
    while bytes.len() >= CMSG_HDR_LEN {
        let (header, _) = CMsgHdr::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
        let len = usize::try_from(header.len).map_err(|_| Errno::EINVAL)?;
        if len < CMSG_HDR_LEN || len > bytes.len() {
            return Err(Errno::EINVAL);
        }
        out.push((header, &bytes[CMSG_HDR_LEN..len]));
        bytes = bytes.get(cmsg_align(len)..).unwrap_or_default();
    }
    Ok(out)
}

/// `scm_check_creds`: one's own, or what a capability allows to claim.
fn check_credentials(task: &CurrentTask, claimed: &Ucred) -> Result<(), Errno> {
    let creds = task.creds();
    let pid = claimed.pid == task.group().pid() || creds.has(Caps::SYS_ADMIN);
    let uid = [creds.ruid, creds.euid, creds.suid].contains(&claimed.uid) || creds.has(Caps::SETUID);
    let gid = [creds.rgid, creds.egid, creds.sgid].contains(&claimed.gid) || creds.has(Caps::SETGID);
    if pid && uid && gid { Ok(()) } else { Err(Errno::EPERM) }
}

/// The credentials that a message of `task` carries by itself.
pub fn own_credentials(task: &CurrentTask) -> Ucred {
    let creds = task.creds();
    Ucred { pid: task.group().pid(), uid: creds.ruid, gid: creds.rgid }
}

/// Fills the control buffer of `recvmsg`.
#[derive(Debug)]
pub struct ControlWriter<'a> {
    task: &'a CurrentTask,
    start: UserAddr,
    used: usize,
    room: usize,
    /// MSG_CTRUNC: something did not fit.
    pub truncated: bool,
}

impl<'a> ControlWriter<'a> {
    pub fn new(task: &'a CurrentTask, start: UserAddr, room: usize) -> ControlWriter<'a> {
        let room = if start.is_null() { 0 } else { room };
        ControlWriter { task, start, used: 0, room, truncated: false }
    }
    /// Bytes written.
    pub fn used(&self) -> usize {
        self.used
    }
    fn at(&self, offset: usize) -> Result<UserAddr, Errno> {
        self.start.checked_add((self.used + offset) as u64).ok_or(Errno::EFAULT)
    }
    fn advance(&mut self, len: usize) {
        let len = cmsg_align(len).min(self.room);
        self.used += len;
        self.room -= len;
    }

    /// `put_cmsg`: data that does not fit is cut off.
    pub fn put(&mut self, level: i32, kind: i32, data: &[u8]) -> Result<(), Errno> {
        if self.room < CMSG_HDR_LEN {
            self.truncated = true;
            return Ok(());
        }
        let mut len = CMSG_HDR_LEN + data.len();
        if len > self.room {
            self.truncated = true;
            len = self.room;
        }
        let header = CMsgHdr { len: len as u64, level, kind };
        self.task.write_bytes(self.at(0)?, header.as_bytes())?;
        self.task.write_bytes(self.at(CMSG_HDR_LEN)?, &data[..len - CMSG_HDR_LEN])?;
        self.advance(len);
        Ok(())
    }

    /// `scm_detach_fds`: installs as many descriptors as there is room for, and drops the rest.
    pub fn put_rights(&mut self, rights: Vec<Arc<OpenFile>>, flags: FdFlags) -> Result<(), Errno> {
        if rights.is_empty() {
            return Ok(());
        }
        let fit = self.room.saturating_sub(CMSG_HDR_LEN) / 4;
        let count = rights.len();
        let mut installed = 0;
        for file in rights.into_iter().take(fit) {
            let Ok(fd) = self.task.install_fd(file, flags) else { break };
            let at = self.at(CMSG_HDR_LEN + installed * 4)?;
            if self.task.write_object(at, &fd.0).is_err() {
                drop(self.task.files().remove(fd));
                break;
            }
            installed += 1;
        }
        if installed > 0 {
            let len = CMSG_HDR_LEN + installed * 4;
            let header = CMsgHdr { len: len as u64, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS };
            self.task.write_bytes(self.at(0)?, header.as_bytes())?;
            self.advance(len);
        }
        self.truncated |= installed < count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_buffers_are_split_and_checked() {
        let mut bytes = CMsgHdr { len: 20, level: 1, kind: 1 }.as_bytes().to_vec();
        bytes.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(CMsgHdr { len: 16, level: 2, kind: 3 }.as_bytes());
        let found = messages(&bytes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].1, [9, 0, 0, 0]);
        assert!(found[1].1.is_empty());
        let bad = CMsgHdr { len: 17, level: 1, kind: 1 };
        assert!(messages(bad.as_bytes()).is_err());
        let bad = CMsgHdr { len: u64::MAX, level: 1, kind: 1 };
        assert!(messages(bad.as_bytes()).is_err());
        assert!(messages(&[0; 15]).unwrap().is_empty());
    }
}
