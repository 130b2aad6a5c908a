//! `start`: runs the program of a created container.

use crate::cli::Global;
use crate::control::{self, Request, Response};
use crate::error::Result;
use crate::fail;
use crate::hooks;
use crate::state::{Container, Status};

pub fn run(global: &Global, id: &str) -> Result<u8> {
    let mut container = Container::open(&global.state_root(), id)?;
    match container.state.status() {
        Status::Created => {}
        status => fail!("container {id:?} is {}, and cannot be started", status.name()),
    }
    // First what may fail without harm.
    container.state.started = true;
    container.save()?;
    let started = control::call(&container.control_socket(), &Request::Start).and_then(Response::done);
    if let Err(e) = started {
        container.state.started = false;
        container.save()?;
        return Err(e);
    }
    hooks::run_lenient("poststart", &container.state.hooks.poststart, &container.state.to_oci());
    Ok(0)
}
