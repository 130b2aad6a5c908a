//! `delete`: removes what is left of a container.

use rustix::event::{PollFd, PollFlags, poll};

use super::kill::kill_sandbox;
use crate::cli::{DeleteArgs, Global};
use crate::error::Result;
use crate::fail;
use crate::hooks;
use crate::state::{self, Container, Status, check_id};

pub fn run(global: &Global, args: &DeleteArgs) -> Result<u8> {
    for id in &args.ids {
        delete(global, id, args.force)?;
    }
    Ok(0)
}

fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let root = global.state_root();
    check_id(id)?;
    state::remove_if_stale(&root, id);
    if force && !root.join(id).exists() {
        return Ok(());
    }
    let container = match Container::open(&root, id) {
        Err(_) if force => return state::remove_unreadable(&root, id),
        other => other?,
    };
    match container.state.status() {
        Status::Stopped => {}
        Status::Running | Status::Paused | Status::Creating if !force => {
            fail!("container {id:?} is {}; `delete --force` kills it first", container.state.status().name());
        }
        // A created container has run nothing: it may go, as with runc.
        _ => end(&container)?,
    }
    let (hooks, state) = (container.state.hooks.clone(), container.state.to_oci());
    container.remove()?;
    hooks::run_lenient("poststop", &hooks.poststop, &state);
    Ok(())
}

/// Kills the sandbox and waits until it has gone.
fn end(container: &Container) -> Result<()> {
    if let Some(pidfd) = kill_sandbox(&container.state)? {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
    }
    Ok(())
}
