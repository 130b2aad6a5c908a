//! `list`: all containers below `--root`.

use crate::cli::{Global, ListArgs, ListFormat};
use crate::error::{Context, Result};
use crate::state;

pub fn run(global: &Global, args: &ListArgs) -> Result<u8> {
    let states = state::list(&global.state_root())?;
    if args.quiet {
        for state in &states {
            crate::say!("{}", state.id);
        }
        return Ok(0);
    }
    match args.format {
        ListFormat::Json => {
            let all: Vec<_> = states.iter().map(state::State::to_oci).collect();
            crate::say!("{}", serde_json::to_string(&all).context("list")?);
        }
        ListFormat::Table => {
            let width = states.iter().map(|s| s.id.len()).max().unwrap_or(0).max(2);
            crate::say!("{:width$}  {:>8}  {:8}  {:30}  BUNDLE", "ID", "PID", "STATUS", "CREATED");
            for s in &states {
                let status = s.status();
                let pid = if status == state::Status::Stopped { 0 } else { s.pid };
                crate::say!(
                    "{:width$}  {pid:>8}  {:8}  {:30}  {}",
                    s.id,
                    status.name(),
                    s.created,
                    s.bundle.display()
                );
            }
        }
    }
    Ok(0)
}
