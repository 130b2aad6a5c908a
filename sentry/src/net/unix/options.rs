//! `setsockopt` and `getsockopt` of Unix sockets: SOL_SOCKET only.

use quicksand_abi::Errno;
use quicksand_abi::socket::{Linger, SO_PASSPIDFD, SO_PEERGROUPS, SO_PEERPIDFD, Ucred};
use zerocopy::{FromBytes, IntoBytes};

use super::UnixSocket;
use super::queue::DEFAULT_BUFFER;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

/// The smallest buffers that can be set (`SOCK_MIN_SNDBUF`, `SOCK_MIN_RCVBUF`).
const MIN_SEND_BUFFER: usize = 4608;
const MIN_RECEIVE_BUFFER: usize = 2304;

/// How many numbers [`Options`] are.
pub(super) const OPTIONS: usize = 14;

/// The options that are set and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) pass_credentials: bool,
    pass_security: bool,
    receive_buffer: usize,
    linger: Linger,
    reuse_address: bool,
    reuse_port: bool,
    keep_alive: bool,
    broadcast: bool,
    oob_inline: bool,
    timestamp: bool,
    priority: i32,
    receive_low_water: i32,
    mark: i32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pass_credentials: false,
            pass_security: false,
            receive_buffer: DEFAULT_BUFFER,
            linger: Linger::default(),
            reuse_address: false,
            reuse_port: false,
            keep_alive: false,
            broadcast: false,
            oob_inline: false,
            timestamp: false,
            priority: 0,
            receive_low_water: 1,
            mark: 0,
        }
    }
}

impl Options {
    /// As numbers, in the order of the fields; switches are 0 or 1.
    pub(super) fn to_numbers(&self) -> [i64; OPTIONS] {
        [
            self.pass_credentials.into(),
            self.pass_security.into(),
            i64::try_from(self.receive_buffer).unwrap_or(i64::MAX),
            self.linger.onoff.into(),
            self.linger.linger.into(),
            self.reuse_address.into(),
            self.reuse_port.into(),
            self.keep_alive.into(),
            self.broadcast.into(),
            self.oob_inline.into(),
            self.timestamp.into(),
            self.priority.into(),
            self.receive_low_water.into(),
            self.mark.into(),
        ]
    }
    /// From [`Options::to_numbers`]. What no program could have set is EINVAL.
    pub(super) fn from_numbers(numbers: &[i64; OPTIONS]) -> Result<Options, Errno> {
        let int = |n: usize| i32::try_from(numbers[n]).map_err(|_| Errno::EINVAL);
        let on = |n: usize| numbers[n] != 0;
        Ok(Options {
            pass_credentials: on(0),
            pass_security: on(1),
            receive_buffer: usize::try_from(int(2)?).map_err(|_| Errno::EINVAL)?,
            linger: Linger { onoff: int(3)?, linger: int(4)? },
            reuse_address: on(5),
            reuse_port: on(6),
            keep_alive: on(7),
            broadcast: on(8),
            oob_inline: on(9),
            timestamp: on(10),
            priority: int(11)?,
            receive_low_water: int(12)?.max(1),
            mark: int(13)?,
        })
    }
}

fn int(value: impl Into<i32>) -> Result<Vec<u8>, Errno> {
    Ok(value.into().to_ne_bytes().to_vec())
}
fn size(value: usize) -> Result<Vec<u8>, Errno> {
    int(i32::try_from(value).unwrap_or(i32::MAX))
}

impl UnixSocket {
    pub(super) fn option(&self, task: &CurrentTask, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        if level != libc::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let options = &state.options;
        match name {
            libc::SO_SNDBUF => size(self.account.limit()),
            libc::SO_RCVBUF => size(options.receive_buffer),
            libc::SO_ACCEPTCONN => int(state.listener.is_some()),
            libc::SO_PASSCRED => int(options.pass_credentials),
            libc::SO_PASSSEC => int(options.pass_security),
            SO_PASSPIDFD => int(0),
            libc::SO_REUSEADDR => int(options.reuse_address),
            libc::SO_REUSEPORT => int(options.reuse_port),
            libc::SO_KEEPALIVE => int(options.keep_alive),
            libc::SO_BROADCAST => int(options.broadcast),
            libc::SO_OOBINLINE => int(options.oob_inline),
            libc::SO_TIMESTAMP => int(options.timestamp),
            libc::SO_DONTROUTE | libc::SO_DEBUG | libc::SO_NO_CHECK | libc::SO_BSDCOMPAT => int(0),
            libc::SO_PRIORITY => int(options.priority),
            libc::SO_RCVLOWAT => int(options.receive_low_water),
            libc::SO_SNDLOWAT => int(1),
            libc::SO_MARK => int(options.mark),
            libc::SO_LINGER => Ok(options.linger.as_bytes().to_vec()),
            libc::SO_ERROR => {
                let error = state.error.take();
                int(error.map_or(0, Errno::raw))
            }
            libc::SO_PEERCRED => {
                // Nobody: pid 0, and ids that no user has.
                let nobody = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
                let ids = state.peer_credentials.as_ref().map_or(nobody, |c| c.ids);
                Ok(ids.as_bytes().to_vec())
            }
            SO_PEERGROUPS => {
                let credentials = state.peer_credentials.as_ref().ok_or(Errno::ENODATA)?;
                Ok(credentials.groups.as_slice().as_bytes().to_vec())
            }
            // Without a security module.
            libc::SO_PEERSEC => Err(Errno::ENOPROTOOPT),
            SO_PEERPIDFD => {
                drop(state);
                task.kernel().log_unsupported("getsockopt(SO_PEERPIDFD)", Errno::ENOPROTOOPT);
                Err(Errno::ENOPROTOOPT)
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    pub(super) fn change_option(
        &self,
        task: &CurrentTask,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        if level != libc::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let (number, _) = i32::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        let on = number != 0;
        // Twice what was asked for, for the bookkeeping; no more than net.core.wmem_max unless forced.
        let doubled = |forced: bool, least: usize| {
            let wanted = usize::try_from(number).unwrap_or(0);
            let wanted = if forced { wanted.min(i32::MAX as usize / 2) } else { wanted.min(DEFAULT_BUFFER) };
            (wanted * 2).max(least)
        };
        let privileged = || {
            if task.creds().has(Caps::NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
        };
        match name {
            libc::SO_SNDBUF => self.account.set_limit(doubled(false, MIN_SEND_BUFFER)),
            libc::SO_SNDBUFFORCE => {
                privileged()?;
                self.account.set_limit(doubled(true, MIN_SEND_BUFFER));
            }
            libc::SO_RCVBUF => self.state.lock().options.receive_buffer = doubled(false, MIN_RECEIVE_BUFFER),
            libc::SO_RCVBUFFORCE => {
                privileged()?;
                self.state.lock().options.receive_buffer = doubled(true, MIN_RECEIVE_BUFFER);
            }
            libc::SO_PASSCRED => self.state.lock().options.pass_credentials = on,
            libc::SO_PASSSEC => self.state.lock().options.pass_security = on,
            SO_PASSPIDFD => {
                task.kernel().log_unsupported("setsockopt(SO_PASSPIDFD)", Errno::ENOPROTOOPT);
                return Err(Errno::ENOPROTOOPT);
            }
            libc::SO_REUSEADDR => self.state.lock().options.reuse_address = on,
            libc::SO_REUSEPORT => return Err(Errno::EOPNOTSUPP),
            libc::SO_KEEPALIVE => self.state.lock().options.keep_alive = on,
            libc::SO_BROADCAST => self.state.lock().options.broadcast = on,
            libc::SO_OOBINLINE => self.state.lock().options.oob_inline = on,
            libc::SO_TIMESTAMP => self.state.lock().options.timestamp = on,
            libc::SO_DONTROUTE | libc::SO_NO_CHECK | libc::SO_BSDCOMPAT => {}
            libc::SO_DEBUG if on => privileged()?,
            libc::SO_DEBUG => {}
            libc::SO_PRIORITY if (0..=6).contains(&number) => self.state.lock().options.priority = number,
            libc::SO_PRIORITY => return Err(Errno::EPERM),
            libc::SO_RCVLOWAT => {
                let value = if number < 0 { i32::MAX } else { number.max(1) };
                self.state.lock().options.receive_low_water = value;
            }
            libc::SO_MARK => {
                privileged()?;
                self.state.lock().options.mark = number;
            }
            libc::SO_LINGER => {
                let (linger, _) = Linger::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
                self.state.lock().options.linger = linger;
            }
            libc::SO_TYPE | libc::SO_PROTOCOL | libc::SO_DOMAIN | libc::SO_ERROR | libc::SO_SNDLOWAT => {
                return Err(Errno::ENOPROTOOPT);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}
