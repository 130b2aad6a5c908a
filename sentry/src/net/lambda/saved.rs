//! The Runtime API as data, for checkpoints: its connections with what is on the way on them, and the events whose responses
//! are to be expected.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use super::http::Reader;
use super::{Connection as Live, MAX_AHEAD, MAX_BEHIND, MAX_CONNECTIONS, MAX_EVENT, MAX_QUEUED};
use super::{Poll, RuntimeApi};
use crate::sync::WaitQueue;

/// The API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub address: u32,
    pub port: u16,
    pub function_arn: String,
    pub connections: Vec<(u64, Connection)>,
    /// Connections that wait for an event, in their order.
    pub polls: Vec<u64>,
    /// Request ids of events that were delivered. Nobody waits for their outcomes after a restore.
    pub running: Vec<String>,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// What was sent and not answered.
    pub input: Vec<u8>,
    /// What was answered and not read.
    pub output: Vec<u8>,
    /// 1: it waits for an event. 2: it waits to be restored.
    pub poll: u8,
    pub closing: bool,
    pub continued: bool,
    pub shut_read: bool,
    pub shut_write: bool,
    pub port: u16,
}

impl RuntimeApi {
    pub(crate) fn saved(&self) -> Saved {
        let state = self.state.lock();
        let connection = |connection: &Live| Connection {
            input: connection.reader.raw().to_vec(),
            output: connection.output[connection.read..].to_vec(),
            poll: match connection.poll {
                None => 0,
                Some(Poll::Next) => 1,
                Some(Poll::Restore) => 2,
            },
            closing: connection.closing,
            continued: connection.continued,
            shut_read: connection.shut_read,
            shut_write: connection.shut_write,
            port: connection.port,
        };
        Saved {
            address: (*self.address.ip()).into(),
            port: self.address.port(),
            function_arn: self.function_arn.clone(),
            connections: state.connections.iter().map(|(id, live)| (*id, connection(live))).collect(),
            polls: state.polls.iter().copied().collect(),
            running: state.running.keys().cloned().collect(),
        }
    }

    /// The API again; its connections get their sockets later. `Err` says what of it cannot be.
    pub(crate) fn restored(saved: &Saved) -> Result<Arc<RuntimeApi>, &'static str> {
        let address = SocketAddrV4::new(Ipv4Addr::from(saved.address), saved.port);
        let api = RuntimeApi::new(address, saved.function_arn.clone());
        let id_is_fine = |id: &String| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic());
        if saved.running.len() > MAX_QUEUED || !saved.running.iter().all(id_is_fine) {
            return Err("events under way");
        }
        if saved.connections.len() > MAX_CONNECTIONS || saved.polls.len() > MAX_CONNECTIONS {
            return Err("connections");
        }
        let mut state = api.state.lock();
        for (id, connection) in &saved.connections {
            if connection.output.len() > MAX_EVENT + 2 * MAX_BEHIND || *id == u64::MAX {
                return Err("a connection");
            }
            let poll = match connection.poll {
                0 => None,
                1 => Some(Poll::Next),
                2 => Some(Poll::Restore),
                _ => return Err("what a connection waits for"),
            };
            if poll.is_some() && connection.input.len() > 2 * MAX_AHEAD {
                return Err("a connection's requests");
            }
            if (poll == Some(Poll::Next)) != saved.polls.contains(id) {
                return Err("what a connection waits for");
            }
            let mut reader = Reader::default();
            reader.feed(&connection.input);
            let live = Live {
                reader,
                output: connection.output.clone(),
                read: 0,
                poll,
                closing: connection.closing,
                continued: connection.continued,
                shut_read: connection.shut_read,
                shut_write: connection.shut_write,
                queue: WaitQueue::new(),
                port: connection.port,
            };
            state.last_connection = state.last_connection.max(*id);
            state.connections.insert(*id, live);
        }
        if saved.polls.iter().any(|id| !state.connections.contains_key(id)) {
            return Err("what a connection waits for");
        }
        state.polls = saved.polls.iter().copied().collect();
        state.running = saved.running.iter().map(|id| (id.clone(), None)).collect();
        // Requests that were not looked at are, when the container goes on.
        state.frozen = true;
        drop(state);
        Ok(api)
    }
}
