//! Pseudoterminal pairs as data, for checkpoints.
//!
//! Invariant: a pair that is made from data is one that programs could have brought about; other data are EINVAL.

use std::collections::VecDeque;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::tty::{Termios, Winsize};

use super::devpts::DevPts;
use super::ldisc::{INPUT_MAX, LineDiscipline};
use super::pty::{Master, Pty, Slave};
use crate::kernel::Container;
use crate::vfs::{FileOps, Inode, OpenFile};

/// The line discipline's fields.
#[derive(Clone, Debug)]
pub(crate) struct SavedLines {
    pub termios: Termios,
    pub lines: Vec<Vec<u8>>,
    pub edit: Vec<u8>,
    pub raw: Vec<u8>,
    pub literal: bool,
    pub output: Vec<u8>,
    pub column: u64,
    pub stopped: bool,
}

/// A pair, apart from its ends.
#[derive(Clone, Debug)]
pub(crate) struct SavedPty {
    pub index: u32,
    pub lines: SavedLines,
    pub winsize: Winsize,
    pub locked: bool,
    pub hung_up: bool,
    /// The last slave was closed.
    pub other_closed: bool,
    pub exclusive: bool,
    pub packet: bool,
    pub packet_status: u8,
    /// Permissions, user and group of the slave's node.
    pub owner: (u32, u32, u32),
}

/// Which end of a pair an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Master,
    Slave,
}

/// A pair that was made from data: itself, its slave's node, and where that has its name.
#[derive(Clone, Debug)]
pub(crate) struct RestoredPty {
    pty: Arc<Pty>,
    devpts: Arc<DevPts>,
    pub inode: Arc<Inode>,
}

/// The pair that an open file is an end of.
pub(crate) fn end_of(file: &OpenFile) -> Option<(Arc<Pty>, End)> {
    let master = file.ops_as::<Master>().map(|master| (master.pty.clone(), End::Master));
    master.or_else(|| file.ops_as::<Slave>().map(|slave| (slave.pty.clone(), End::Slave)))
}

impl LineDiscipline {
    fn saved(&self) -> SavedLines {
        SavedLines {
            termios: self.termios,
            lines: self.lines.iter().map(|line| line.bytes.iter().copied().collect()).collect(),
            edit: self.edit.clone(),
            raw: self.raw.iter().copied().collect(),
            literal: self.literal,
            output: self.output.iter().copied().collect(),
            column: self.column as u64,
            stopped: self.stopped,
        }
    }

    fn restored(saved: SavedLines) -> Result<LineDiscipline, Errno> {
        let mut ldisc = LineDiscipline::new();
        ldisc.termios = saved.termios;
        ldisc.lines =
            saved.lines.into_iter().map(|bytes| super::ldisc::Line { bytes: bytes.into() }).collect();
        ldisc.edit = saved.edit;
        ldisc.raw = VecDeque::from(saved.raw);
        ldisc.literal = saved.literal;
        ldisc.output = VecDeque::from(saved.output);
        ldisc.column = usize::try_from(saved.column).unwrap_or(0);
        ldisc.stopped = saved.stopped;
        if ldisc.is_sound() { Ok(ldisc) } else { Err(Errno::EINVAL) }
    }

    /// What can never be otherwise. A full line still takes its end, and each line that is complete counts one more.
    fn is_sound(&self) -> bool {
        let mine = if self.canonical() {
            self.raw.is_empty()
        } else {
            self.lines.is_empty() && self.edit.is_empty()
        };
        // A flood of echo is not refused: it may be over the limit of what is written.
        mine && self.buffered() <= 2 * INPUT_MAX && self.output.len() <= 1 << 20
    }
}

impl Pty {
    /// Its number among terminals.
    pub(crate) fn number(&self) -> u64 {
        self.id
    }

    pub(crate) fn is_hung_up(&self) -> bool {
        self.state.lock().hung_up
    }

    /// The pair as data, and the instance that its slave has its name in. `None` where that is gone.
    pub(crate) fn saved(&self) -> Option<(SavedPty, Arc<DevPts>)> {
        let devpts = self.devpts.upgrade()?;
        let attr = devpts.inode(self.index, self).and_then(|inode| inode.attr().ok());
        let state = self.state.lock();
        let saved = SavedPty {
            index: self.index,
            lines: state.ldisc.saved(),
            winsize: state.winsize,
            locked: state.locked,
            hung_up: state.hung_up,
            other_closed: state.other_closed,
            exclusive: state.exclusive,
            packet: state.packet,
            packet_status: state.packet_status,
            owner: attr.map_or((0, 0, 0), |attr| (attr.perm & 0o7777, attr.uid, attr.gid)),
        };
        Some((saved, devpts))
    }
}

impl DevPts {
    /// A pair from its data, whose slave has its name here. EINVAL where the data make no sense, EEXIST where the name is taken.
    pub(crate) fn restore(
        self: &Arc<Self>,
        container: &Container,
        saved: SavedPty,
    ) -> Result<RestoredPty, Errno> {
        let pty = Pty::with_index(saved.index, &container.kernel, &container.pids, self);
        {
            let mut state = pty.state.lock();
            state.ldisc = LineDiscipline::restored(saved.lines)?;
            state.winsize = saved.winsize;
            state.locked = saved.locked;
            state.hung_up = saved.hung_up;
            state.other_closed = saved.other_closed;
            state.exclusive = saved.exclusive;
            state.packet = saved.packet;
            state.packet_status = saved.packet_status;
        }
        let (perm, uid, gid) = saved.owner;
        let inode = self.adopt_pair(&pty, (perm & 0o7777, uid, gid), !saved.hung_up)?;
        Ok(RestoredPty { pty, devpts: self.clone(), inode })
    }
}

impl RestoredPty {
    /// The pair's number among terminals.
    pub(crate) fn number(&self) -> u64 {
        self.pty.id
    }
    pub(crate) fn index(&self) -> u32 {
        self.pty.index
    }
    /// What an open file of one end does. The slave's is counted; there must be one master at most.
    pub(crate) fn open(&self, end: End) -> Box<dyn FileOps> {
        match end {
            End::Master => Box::new(Master::new(self.pty.clone(), self.devpts.clone())),
            End::Slave => {
                let mut state = self.pty.state.lock();
                state.slaves += 1;
                state.other_closed = false;
                drop(state);
                Box::new(Slave { pty: self.pty.clone() })
            }
        }
    }
}
