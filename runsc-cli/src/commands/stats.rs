//! `stats`: what the restore of a container took so far.

use crate::cli::{Global, StatsArgs};
use crate::control::{self, Request, Response};
use crate::error::Result;
use crate::fail;
use crate::state::{self, Status};

pub fn run(global: &Global, args: &StatsArgs) -> Result<u8> {
    let root = global.state_root();
    let state = state::read(&root, &args.id)?;
    if state.status() == Status::Stopped {
        fail!("container {:?} is not running", args.id);
    }
    let request = Request::Restored { first_response: args.first_response };
    let mut report = match control::call(&state::control_socket(&root, &args.id), &request)? {
        Response::Restored(report) => report,
        Response::Failed(message) => fail!("{message}"),
        other => fail!("the sandbox answered {other:?}"),
    };
    report.count_pages(state.pid);
    crate::say!("{}", report.show(args.format)?);
    Ok(0)
}
