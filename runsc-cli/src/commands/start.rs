//! `start`: runs the program of a created container.

use super::entry::{self, Outcome, Watch};
use crate::cli::{Global, StartArgs};
use crate::error::Result;
use crate::fail;
use crate::launch;
use crate::state::{Container, Status};

pub fn run(global: &Global, args: &StartArgs) -> Result<u8> {
    let id = &args.id;
    let mut container = Container::open(&global.state_root(), id)?;
    match container.state.status() {
        Status::Created => {}
        status => fail!("container {id:?} is {}, and cannot be started", status.name()),
    }
    Watch::check(&args.entry)?;
    let watch = Watch::begin(&args.entry, &container)?;
    launch::start(&mut container)?;
    let Some(watch) = watch else { return Ok(0) };
    container.unlock();
    match watch.wait()? {
        Outcome::Taken => Ok(0),
        Outcome::NotReached(words) => {
            entry::not_reached(&words);
            Ok(entry::NOT_REACHED)
        }
    }
}
