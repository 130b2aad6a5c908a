//! Terminals: pairs of the container's own, the one that it was given, and the sessions that they control.
//!
//! A pair is stored whole, with what lies in its buffers. Of the container's terminal only the settings are: what is on its
//! other end is somebody else's, and a restored container has another one, or none. A session whose terminal is not there any
//! more is without.

use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::tty::{Termios, Winsize};
use zerocopy::{FromBytes, IntoBytes};

use super::records::{self as rec, FileBody, kind};
use super::restore::RestoreError;
use super::restore_files::Files;
use super::save::{SaveError, Saver, unsupported};
use crate::fs::host::{HostTerminal, HostTty};
use crate::fs::tty::devpts::DevPts;
use crate::fs::tty::{self, End, Pty, RestoredPty, SavedLines, SavedPty};
use crate::kernel::Container;
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{Attr, OpenFile, OpenFlags, Path};

impl Saver<'_> {
    /// An open file that is a terminal's; `None` where it is none.
    pub(super) fn terminal(&mut self, file: &OpenFile, what: &str) -> Result<Option<FileBody>, SaveError> {
        if let Some(host) = file.ops_as::<HostTty>() {
            if self.container.console() != Some(host.terminal_id()) {
                return unsupported(format!("{what} is a terminal that was given to exec"));
            }
            return Ok(Some(FileBody::Console { path: self.path(&file.path, what)? }));
        }
        let Some((pty, end)) = tty::end_of(file) else { return Ok(None) };
        self.pty(&pty, what)?;
        let text = file.path.text(&self.container.initial_fs().root());
        let by_path = text.reachable && !text.deleted && text.text.starts_with(b"/") && !pty.is_hung_up();
        let path = by_path.then_some(text.text);
        Ok(Some(FileBody::Terminal { pty: pty.number(), master: end == End::Master, path }))
    }

    fn pty(&mut self, pty: &Pty, what: &str) -> Result<(), SaveError> {
        if !self.meets(kind::PTY, pty.number()) {
            return Ok(());
        }
        let gone = || SaveError::Unsupported(format!("{what} is a terminal of a devpts that is not mounted"));
        let (saved, devpts) = pty.saved().ok_or_else(gone)?;
        let mounts = self.container.initial_fs().namespace().mounts();
        let mount = mounts.iter().find(|m| Arc::ptr_eq(&m.root.inode.sb, devpts.superblock()));
        let mount = self.path(&Path::root_of(mount.ok_or_else(gone)?), "a mounted devpts")?;
        let (lines, size) = (saved.lines, saved.winsize);
        let record = rec::Pty {
            mount,
            index: saved.index,
            termios: lines.termios.as_bytes().to_vec(),
            winsize: [size.rows, size.cols, size.xpixel, size.ypixel],
            lines: lines.lines,
            edit: lines.edit,
            raw: lines.raw,
            literal: lines.literal,
            output: lines.output,
            column: lines.column,
            stopped: lines.stopped,
            locked: saved.locked,
            hung_up: saved.hung_up,
            other_closed: saved.other_closed,
            exclusive: saved.exclusive,
            packet: saved.packet,
            packet_status: saved.packet_status,
            owner: saved.owner,
        };
        self.add(kind::PTY, pty.number(), &record)
    }

    /// The sessions that have, or had, a terminal.
    pub(super) fn sessions(&mut self) -> Result<Vec<rec::Session>, SaveError> {
        let all: Vec<(i32, Option<u64>, i32)> = {
            let tables = self.container.pids.lock();
            tables.sessions.iter().map(|(sid, s)| (*sid, s.tty, s.foreground)).collect()
        };
        let mut sessions = Vec::new();
        for (sid, tty, foreground) in all {
            if tty.is_none() && foreground == 0 {
                continue;
            }
            let tty = match tty {
                None => None,
                Some(id) if self.container.console() == Some(id) => Some(rec::Tty::Console),
                Some(id) => {
                    let found = self.container.kernel.terminals.find(|t: &Pty| t.number() == id);
                    let Some(pty) = found else {
                        return unsupported(format!("session {sid} has a terminal that was given to exec"));
                    };
                    self.pty(&pty, "a controlling terminal")?;
                    Some(rec::Tty::Pty(id))
                }
            };
            sessions.push(rec::Session { sid, tty, foreground });
        }
        sessions.sort_unstable_by_key(|session| session.sid);
        Ok(sessions)
    }

    /// The container's terminal.
    pub(super) fn console(&self) -> Option<rec::Console> {
        let id = self.container.console()?;
        let terminal =
            self.container.kernel.terminals.find(|t: &HostTerminal| tty::job::Terminal::id(t) == id)?;
        let (index, node) = terminal.place().unzip();
        let attr: Option<Attr> = node.and_then(|node| node.attr().ok());
        Some(rec::Console {
            termios: terminal.settings()?.as_bytes().to_vec(),
            index,
            uid: attr.as_ref().map_or(0, |attr| attr.uid),
            gid: attr.as_ref().map_or(0, |attr| attr.gid),
        })
    }
}

/// Standard streams for a container that is given a terminal: one open file for all three.
pub(super) fn import_console(
    container: &Container,
    devpts: &Arc<DevPts>,
    fd: std::os::fd::OwnedFd,
    record: Option<&rec::Console>,
    highest: u32,
) -> Result<Arc<OpenFile>, RestoreError> {
    let owner = record.map_or((0, 0), |console| (console.uid, console.gid));
    // A terminal that was not there before gets out of the way of those that were.
    let wanted = record.and_then(|console| console.index).unwrap_or(highest);
    let file = crate::fs::host::import_terminal(&container.kernel, fd, devpts, owner, Some(wanted))
        .map_err(RestoreError::Stdio)?;
    if let Some(console) = record
        && let Some(host) = file.ops_as::<HostTty>()
    {
        let termios = Termios::read_from_bytes(&console.termios)
            .map_err(|_| RestoreError::Record("the terminal's settings".to_owned()))?;
        host.terminal().restore_settings(&termios).map_err(RestoreError::Stdio)?;
    }
    Ok(file)
}

impl Files<'_> {
    /// A pair by its number.
    pub(super) fn pty(&mut self, id: u64) -> Result<RestoredPty, RestoreError> {
        if let Some(known) = self.ptys.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Pty = self.image.records(kind::PTY)?.read(id)?;
        let wrong = |what: &str| RestoreError::Record(format!("terminal {id}: {what}"));
        let shown = String::from_utf8_lossy(&record.mount).into_owned();
        let root = self.container.initial_fs().root();
        let place = lookup_in(&root, &record.mount, WalkFlags::empty());
        let devpts = place.ok().filter(Path::is_mount_root).and_then(|place| DevPts::at(&place.dentry.inode));
        let devpts = devpts.ok_or_else(|| RestoreError::Mount(format!("devpts at {shown}")))?;
        let [rows, cols, xpixel, ypixel] = record.winsize;
        let saved = SavedPty {
            index: record.index,
            lines: SavedLines {
                termios: Termios::read_from_bytes(&record.termios).map_err(|_| wrong("its settings"))?,
                lines: record.lines,
                edit: record.edit,
                raw: record.raw,
                literal: record.literal,
                output: record.output,
                column: record.column,
                stopped: record.stopped,
            },
            winsize: Winsize { rows, cols, xpixel, ypixel },
            locked: record.locked,
            hung_up: record.hung_up,
            other_closed: record.other_closed,
            exclusive: record.exclusive,
            packet: record.packet,
            packet_status: record.packet_status,
            owner: record.owner,
        };
        let pty = devpts.restore(self.container, saved).map_err(|errno| match errno {
            Errno::EEXIST => RestoreError::Mount(format!("devpts at {shown}: {} is taken", record.index)),
            _ => wrong("its buffers"),
        })?;
        self.ptys.insert(id, pty.clone());
        Ok(pty)
    }

    /// An open file of one end of a pair.
    pub(super) fn terminal(
        &mut self,
        pty: u64,
        master: bool,
        path: Option<&[u8]>,
        flags: OpenFlags,
    ) -> Result<Arc<OpenFile>, RestoreError> {
        let restored = self.pty(pty)?;
        if master && !self.masters.insert(pty) {
            return Err(RestoreError::Record(format!("terminal {pty}: a second master")));
        }
        let end = if master { End::Master } else { End::Slave };
        Ok(match path {
            Some(path) => {
                let shown = String::from_utf8_lossy(path);
                let place = lookup_in(&self.container.initial_fs().root(), path, WalkFlags::empty())
                    .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
                OpenFile::new(place, restored.open(end), flags)
            }
            None => {
                let name = format!("/dev/pts/{}", restored.index());
                OpenFile::new_anonymous(restored.inode.clone(), &name, restored.open(end), flags)
            }
        })
    }

    /// The container's terminal, opened by its path.
    pub(super) fn console(&self, path: &[u8], flags: OpenFlags) -> Result<Arc<OpenFile>, RestoreError> {
        let shown = String::from_utf8_lossy(path);
        let Some(host) = self.stdio.iter().find_map(|file| file.ops_as::<HostTty>()) else {
            return Err(RestoreError::Gone(format!("{shown} (the container has no terminal now)")));
        };
        let place = lookup_in(&self.container.initial_fs().root(), path, WalkFlags::empty())
            .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
        Ok(OpenFile::new(place, host.another(), flags))
    }

    /// Which terminal each session has.
    pub(super) fn sessions(
        &mut self,
        stored: &[rec::Session],
    ) -> Result<Vec<(i32, Option<u64>, i32)>, RestoreError> {
        let console = self.container.console();
        let mut sessions = Vec::new();
        for session in stored {
            let tty = match session.tty {
                None => None,
                Some(rec::Tty::Console) => console,
                Some(rec::Tty::Pty(id)) => Some(self.pty(id)?.number()),
            };
            let twice = sessions.iter().any(|(_, other, _)| tty.is_some() && *other == tty);
            if twice {
                return Err(RestoreError::Record(format!("session {}: its terminal", session.sid)));
            }
            sessions.push((session.sid, tty, session.foreground));
        }
        Ok(sessions)
    }
}
