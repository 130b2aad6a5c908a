//! `pause` and `resume`: stop all processes of a container where they are, and let them go on.

use crate::cli::Global;
use crate::control::{self, Request};
use crate::error::Result;
use crate::fail;
use crate::state::{Container, Status};

pub fn pause(global: &Global, id: &str) -> Result<u8> {
    change(global, id, Status::Running, &Request::Pause)
}

pub fn resume(global: &Global, id: &str) -> Result<u8> {
    change(global, id, Status::Paused, &Request::Resume)
}

fn change(global: &Global, id: &str, from: Status, request: &Request) -> Result<u8> {
    let mut container = Container::open(&global.state_root(), id)?;
    match container.state.status() {
        status if status == from => {}
        status => fail!("container {id:?} is {}, not {}", status.name(), from.name()),
    }
    control::call(&container.control_socket(), request)?.done()?;
    container.state.paused = from == Status::Running;
    container.save()?;
    Ok(0)
}
