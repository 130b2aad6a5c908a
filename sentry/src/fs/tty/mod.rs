//! Terminals: pseudoterminal pairs (`pty(7)`), `/dev/ptmx`, `/dev/pts`, `/dev/tty`.
//!
//! - [`ldisc`]: the line discipline, pure state. [`pty`]: a pair and its two ends. [`devpts`]: where slaves have names.
//! - [`job`]: controlling terminals and foreground groups, for ptys and for the host's terminal alike.

pub mod devpts;
pub mod job;
mod ldisc;
mod pty;
mod saved;

use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::tty::{Termio, Termios};

use self::devpts::{PtmxInode, SlaveInode};
pub(in crate::fs) use self::ldisc::Hurry;
pub(crate) use self::pty::Pty;
pub(crate) use self::saved::{End, RestoredPty, SavedLines, SavedPty, end_of};
use super::dev;
use crate::task::CurrentTask;
use crate::vfs::{DeviceId, FileOps, Inode, OpenFlags};

/// Opens a terminal device node; ENXIO where `device` is none.
pub fn open_device(
    device: DeviceId,
    inode: &Arc<Inode>,
    flags: OpenFlags,
    task: &CurrentTask,
) -> Result<Box<dyn FileOps>, Errno> {
    match device {
        dev::PTMX => match inode.ops_as::<PtmxInode>() {
            Some(ptmx) => ptmx.0.open_master(task),
            None => devpts::of_container(task.container())?.open_master(task),
        },
        dev::TTY => {
            let id = task.pids().controlling_tty(task.group()).ok_or(Errno::ENXIO)?;
            task.kernel().terminals.get(id).ok_or(Errno::ENXIO)?.reopen(flags, task)
        }
        DeviceId { major: pty::SLAVE_MAJOR, minor } => {
            let pty = match inode.ops_as::<SlaveInode>() {
                Some(slave) => slave.pty.clone(),
                None => devpts::of_container(task.container())?.slave(minor).ok_or(Errno::ENXIO)?,
            };
            pty.open_slave(flags, task)
        }
        _ => Err(Errno::ENXIO),
    }
}

/// As `struct termio` has it: what fits.
pub(in crate::fs) fn to_termio(t: &Termios) -> Termio {
    let mut cc = [0; 8];
    cc.copy_from_slice(&t.cc[..8]);
    Termio {
        iflag: t.iflag as u16,
        oflag: t.oflag as u16,
        cflag: t.cflag as u16,
        lflag: t.lflag as u16,
        line: t.line,
        cc,
        pad: 0,
    }
}

/// The settings with the parts that a `struct termio` has taken from one.
pub(in crate::fs) fn merge_termio(mut t: Termios, new: &Termio) -> Termios {
    let low = |old: u32, new: u16| (old & 0xffff_0000) | u32::from(new);
    t.iflag = low(t.iflag, new.iflag);
    t.oflag = low(t.oflag, new.oflag);
    t.cflag = low(t.cflag, new.cflag);
    t.lflag = low(t.lflag, new.lflag);
    t.line = new.line;
    t.cc[..8].copy_from_slice(&new.cc);
    t
}
