//! Unix sockets that only hold each other.
//!
//! A socket sent through a socket lives in that one's queue; two that are sent through each other and closed everywhere
//! else would live for ever. So whenever a socket closes while any is in flight, those are looked for whose every
//! reference is in flight, and which no queue of a socket that is still in use leads to. Their queues are emptied, which
//! closes them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::UnixSocket;
use super::names::UnixTable;
use super::queue::Message;
use super::transfer::unix_socket_of;
use crate::vfs::OpenFile;

impl UnixTable {
    /// A socket was closed.
    pub(super) fn closed(&self) {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            self.collect();
        }
    }

    /// Drops messages that nobody will read. Closing the sockets in them discards their messages in turn: that goes on
    /// here, not deeper on the stack, for a guest decides how long such a chain is.
    pub(super) fn discard(&self, messages: impl IntoIterator<Item = Message>) {
        thread_local! {
            static PENDING: RefCell<Option<Vec<Message>>> = const { RefCell::new(None) };
        }
        let mut mine: Vec<Message> = messages.into_iter().collect();
        for message in &mine {
            let sockets = message.rights.iter().filter(|f| unix_socket_of(f).is_some()).count();
            self.in_flight.fetch_sub(sockets, Ordering::Relaxed);
        }
        let outermost = PENDING.with_borrow_mut(|pending| match pending {
            Some(pending) => {
                pending.append(&mut mine);
                false
            }
            None => {
                *pending = Some(std::mem::take(&mut mine));
                true
            }
        });
        if !outermost {
            return;
        }
        while let Some(message) = PENDING.with_borrow_mut(|p| p.as_mut().and_then(Vec::pop)) {
            drop(message);
        }
        PENDING.with_borrow_mut(|pending| *pending = None);
    }

    fn collect(&self) {
        let sockets = self.sockets();
        // Every reference from a queue, by file; the clone made here is one more.
        let mut flying: HashMap<u64, (Arc<OpenFile>, usize)> = HashMap::new();
        let mut held: HashMap<u64, Vec<u64>> = HashMap::new();
        for socket in &sockets {
            for file in sockets_in(socket) {
                held.entry(socket.id).or_default().push(file.id);
                let id = file.id;
                flying.entry(id).or_insert((file, 0)).1 += 1;
            }
        }
        // A file whose every reference is in a queue, or is the one above.
        let mut lost: HashMap<u64, Arc<OpenFile>> = HashMap::new();
        for (id, (file, count)) in flying {
            if Arc::strong_count(&file) == count + 1 {
                lost.insert(id, file);
            }
        }
        // From the sockets that are not lost, follow the queues.
        let lost_socket = |socket: &UnixSocket| {
            lost.iter().find(|(_, f)| unix_socket_of(f).is_some_and(|s| s.id == socket.id)).map(|(id, _)| *id)
        };
        let mut is_lost: HashMap<u64, u64> = HashMap::new();
        for socket in &sockets {
            // A connection that nobody has accepted belongs to its listener.
            if let Some(file) = lost_socket(socket) {
                is_lost.insert(socket.id, file);
                for pending in pending_of(socket) {
                    is_lost.insert(pending, file);
                }
            }
        }
        let mut reached: Vec<u64> =
            sockets.iter().map(|s| s.id).filter(|id| !is_lost.contains_key(id)).collect();
        while let Some(socket) = reached.pop() {
            for file in held.get(&socket).into_iter().flatten() {
                if lost.remove(file).is_some() {
                    // Whatever was lost with this file is found again.
                    is_lost.retain(|found, lost_file| {
                        if lost_file == file {
                            reached.push(*found);
                        }
                        lost_file != file
                    });
                }
            }
        }
        let mut garbage: Vec<Message> = Vec::new();
        for file in lost.values() {
            if let Some(socket) = unix_socket_of(file) {
                garbage.extend(socket.state.lock().incoming.drain(..));
            }
        }
        // Closing them comes here again; nothing is locked.
        drop(lost);
        self.discard(garbage);
    }
}

/// How many of these files are Unix sockets.
pub(super) fn count_sockets(files: &[Arc<OpenFile>]) -> usize {
    files.iter().filter(|f| unix_socket_of(f).is_some()).count()
}

/// The sockets that lie in a socket's queue.
fn sockets_in(socket: &UnixSocket) -> Vec<Arc<OpenFile>> {
    let state = socket.state.lock();
    let files = state.incoming.iter().flat_map(|m| &m.rights);
    files.filter(|f| unix_socket_of(f).is_some()).cloned().collect()
}

fn pending_of(socket: &UnixSocket) -> Vec<u64> {
    let state = socket.state.lock();
    state.listener.iter().flat_map(|l| &l.pending).map(|p| p.id).collect()
}
