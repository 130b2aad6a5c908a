//! `wait`: until a container's program has ended; exits with its code.

use crate::cli::Global;
use crate::control::{self, Request, Response};
use crate::error::Result;
use crate::fail;
use crate::state::{Container, Status};

pub fn run(global: &Global, id: &str) -> Result<u8> {
    let container = Container::open(&global.state_root(), id)?;
    container.unlock();
    if container.state.status() == Status::Stopped {
        fail!("container {id:?} has stopped already");
    }
    match control::call(&container.control_socket(), &Request::Wait)? {
        Response::Exited(code) => Ok(code),
        Response::Failed(message) => fail!("{message}"),
        other => fail!("the sandbox answered {other:?}"),
    }
}
