//! `ps`: the processes of a container, by their numbers inside.

use crate::cli::{Global, ListFormat, PsArgs};
use crate::control::{self, Request, Response};
use crate::error::{Context, Result};
use crate::fail;
use crate::state::{self, Status};

pub fn run(global: &Global, args: &PsArgs) -> Result<u8> {
    let root = global.state_root();
    if state::read(&root, &args.id)?.status() == Status::Stopped {
        fail!("container {:?} is not running", args.id);
    }
    let processes = match control::call(&state::control_socket(&root, &args.id), &Request::Processes)? {
        Response::Processes(processes) => processes,
        Response::Failed(message) => fail!("{message}"),
        other => fail!("the sandbox answered {other:?}"),
    };
    match args.format {
        ListFormat::Json => {
            let pids: Vec<i32> = processes.iter().map(|p| p.pid).collect();
            crate::say!("{}", serde_json::to_string(&pids).context("ps")?);
        }
        ListFormat::Table => {
            crate::say!("{:>7} {:>7} {:>7} {:>7}  COMMAND", "UID", "PID", "PPID", "THREADS");
            for p in processes {
                crate::say!("{:>7} {:>7} {:>7} {:>7}  {}", p.uid, p.pid, p.ppid, p.threads, p.command);
            }
        }
    }
    Ok(0)
}
