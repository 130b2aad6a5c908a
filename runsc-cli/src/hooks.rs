//! OCI hooks: host programs that engines want run at certain points, with the container's state on standard input.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::fail;
use crate::spec::Hook;

/// Runs hooks in order; the first that fails ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &serde_json::Value) -> Result<()> {
    for hook in hooks {
        run_one(hook, state).context(format!("{kind} hook {}", hook.path))?;
    }
    Ok(())
}

/// Runs hooks whose failure is only logged (`poststart`, `poststop`).
pub fn run_lenient(kind: &str, hooks: &[Hook], state: &serde_json::Value) {
    for hook in hooks {
        if let Err(e) = run_one(hook, state) {
            tracing::warn!("{kind} hook {}: {e}", hook.path);
        }
    }
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> Result<()> {
    let mut command = Command::new(&hook.path);
    // `args` begins with the program's own name.
    command.args(hook.args.iter().skip(1)).env_clear();
    for var in &hook.env {
        if let Some((name, value)) = var.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting it")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input has closed the pipe: not our business.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    let timeout =
        hook.timeout.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(Duration::from_secs);
    let watched = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let (done, wait) = mpsc::channel::<()>();
    let watch = timeout.map(|timeout| {
        std::thread::spawn(move || {
            let late = wait.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout);
            if late && let Some(pid) = watched {
                // It has not been waited for, so the number is still its own.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            late
        })
    });
    let output = child.wait_with_output().context("waiting for it");
    drop(done);
    let late = watch.is_some_and(|thread| thread.join().unwrap_or(false));
    let output = output?;
    if late {
        fail!("did not end within {} s", timeout.unwrap_or_default().as_secs());
    }
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        fail!("{}{}{text}", output.status, if text.is_empty() { "" } else { ": " });
    }
    Ok(())
}
