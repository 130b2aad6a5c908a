//! `wait`: until a container's program has ended; exits with its code.

use crate::cli::Global;
use crate::control::{self, Request, Response};
use crate::error::Result;
use crate::fail;
use crate::state::{self, Status};

pub fn run(global: &Global, id: &str) -> Result<u8> {
    let root = global.state_root();
    if state::read(&root, id)?.status() == Status::Stopped {
        fail!("container {id:?} has stopped already");
    }
    match control::call(&state::control_socket(&root, id), &Request::Wait)? {
        Response::Exited(code) => Ok(code),
        Response::Failed(message) => fail!("{message}"),
        other => fail!("the sandbox answered {other:?}"),
    }
}
