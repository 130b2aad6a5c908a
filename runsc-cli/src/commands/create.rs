//! `create`: everything that `run` does up to the program's first instruction.

use std::fs;
use std::path::{Path, PathBuf};

use super::stdio;
use crate::cli::{CreateArgs, Global};
use crate::error::{Context, Result};
use crate::fail;
use crate::launch::{self, Plan};
use crate::spec::Spec;
use crate::timeline::Timeline;

pub fn run(global: &Global, args: CreateArgs) -> Result<u8> {
    let bundle = bundle_dir(&args.bundle)?;
    let spec = Spec::load(&bundle)?;
    let global = &global.with_annotations(&spec.annotations)?;
    check_preserved(args.preserve_fds)?;
    let process = spec.process.clone().unwrap_or_default();
    let streams = stdio::for_process(&process, args.console_socket.as_deref(), true)?;
    let plan = Plan {
        global,
        id: args.id,
        bundle,
        spec,
        stdio: streams.stdio,
        image: None,
        record: None,
        controls_terminal: streams.terminal,
        foreground: false,
        start: false,
        begun_ns: crate::timeline::now_ns(),
        timeline: Timeline::new(global.timeline_fd)?,
    };
    let launched = plan.launch()?;
    if let Some(path) = &args.pid_file
        && let Err(e) = write_pid_file(path, launched.child.pid)
    {
        launch::kill(&launched.child);
        launch::wait(&launched.child);
        launched.container.remove()?;
        return Err(e);
    }
    Ok(0)
}

/// The bundle as an absolute path.
pub fn bundle_dir(bundle: &Path) -> Result<PathBuf> {
    fs::canonicalize(bundle).context(format!("the bundle {}", bundle.display()))
}

/// Writes a process id so that a reader sees all of it or nothing.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, path))
        .context(format!("--pid-file {}", path.display()))
}

/// Descriptors beyond the standard streams are not passed into a sandbox.
pub fn check_preserved(count: u32) -> Result<()> {
    if count > 0 {
        fail!("--preserve-fds {count}: only the standard streams can be passed to a container");
    }
    Ok(())
}
