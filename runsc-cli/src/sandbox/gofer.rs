//! The gofer process (`--directfs=false`): it opens the container's files, so that the sandbox process cannot.
//!
//! It is confined as the sandbox process is, in namespaces of its own, and ends with the last of its sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use quicksand_gofer::server::{Served, serve};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::confine::{self, Files};
use super::{files, filter};
use crate::cgroup::Entry;
use crate::cli::Overlay;
use crate::control::{self, Request, Response};
use crate::error::{Context, Result};
use crate::fail;
use crate::spec::Spec;

/// One socket for each tree: the root's, and those of bind mounts by their place in the spec.
#[derive(Debug)]
pub struct Sockets {
    pub root: OwnedFd,
    pub binds: Vec<(usize, OwnedFd)>,
}

impl Sockets {
    /// Both ends for everything that `spec` names: the sandbox's and the gofer's.
    pub fn pairs(spec: &Spec) -> Result<(Sockets, Sockets)> {
        let pair = || {
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .context("a socket pair")
        };
        let (near, far) = pair()?;
        let (mut near, mut far) =
            (Sockets { root: near, binds: Vec::new() }, Sockets { root: far, binds: Vec::new() });
        for place in files::bind_places(spec) {
            let (a, b) = pair()?;
            near.binds.push((place, a));
            far.binds.push((place, b));
        }
        Ok((near, far))
    }
    pub fn descriptors(&self) -> impl Iterator<Item = i32> + '_ {
        [self.root.as_raw_fd()].into_iter().chain(self.binds.iter().map(|(_, fd)| fd.as_raw_fd()))
    }
}

/// What a gofer process is given.
#[derive(Debug)]
pub struct Gofer {
    pub spec: Spec,
    pub rootfs: PathBuf,
    pub overlay: Overlay,
    pub sockets: Sockets,
    pub channel: UnixStream,
    pub foreground: bool,
}

impl Gofer {
    pub fn descriptors(&self) -> Vec<i32> {
        self.sockets.descriptors().chain([self.channel.as_raw_fd()]).collect()
    }

    /// The gofer process's `main`.
    pub fn main(self, cgroup: Entry) -> u8 {
        let channel = self.channel.try_clone();
        match (self.run(cgroup), channel) {
            (Ok(()), _) => 0,
            (Err(e), Ok(channel)) => {
                // Whoever made us reports it; without them there is nobody to tell.
                let _ = control::send(&channel, &Response::Failed(e.to_string()), &[]);
                crate::FAILED
            }
            _ => crate::FAILED,
        }
    }

    fn run(self, cgroup: Entry) -> Result<()> {
        cgroup.enter()?;
        confine::detach(self.foreground, c"qs-gofer")?;
        match control::receive::<Request>(&self.channel)? {
            Some((Request::Go, _)) => {}
            Some((other, _)) => fail!("{other:?} before Go"),
            None => return Ok(()), // its maker has gone
        }
        confine::become_root()?;
        let files = files::open(&self.spec, &self.rootfs, self.overlay)?;
        let rights = if files.writable { Files::Writable } else { Files::ReadOnly };
        confine::lock_down(rights, filter::Process::Gofer)?;
        let mut trees = vec![Served { root: files.root, socket: self.sockets.root }];
        for ((_, root), (_, socket)) in files.binds.into_iter().zip(self.sockets.binds) {
            trees.push(Served { root, socket });
        }
        control::send(&self.channel, &Response::Done, &[])?;
        drop(self.channel);
        serve(trees);
        Ok(())
    }
}
