//! The OCI commands and what a configuration asks for, from outside.

use super::container::{Check, LIMIT, Runtime};
use crate::process::{self, Group};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Instant;

pub(super) const CHECKS: &[Check] = &[
    ("run/exit-code", exit_code),
    ("run/stdio", stdio),
    ("run/signal-forwarding", signal_forwarding),
    ("container/life", life),
    ("container/exec", exec),
    ("container/ps-and-list", ps_and_list),
    ("container/kill", kill),
    ("container/pause", pause),
    ("container/delete", delete),
    ("container/duplicate-id", duplicate_id),
    ("spec/process", process_settings),
    ("spec/rlimits", rlimits),
    ("spec/capabilities", capabilities),
    ("spec/read-only-root", read_only_root),
    ("spec/bind-mounts", bind_mounts),
    ("spec/tmpfs", tmpfs),
    ("command/spec", spec_command),
];

fn exit_code(runtime: &Runtime) -> Result<()> {
    runtime.expect(&runtime.shell("exit 7", |_| {})?, 7, "")?;
    runtime.expect(&runtime.shell("sh -c 'kill -KILL $$'; exit $?", |_| {})?, 137, "")?;
    // Init itself dies of a signal only when it has a handler for it, or by a fault.
    runtime.expect(&runtime.shell("trap 'exit 9' TERM; kill -TERM $$; sleep 1", |_| {})?, 9, "")
}

fn stdio(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("cat; echo err >&2", |_| {})?;
    let input = runtime.scratch()?.join("input");
    fs::write(&input, "through a file\n")?;
    let mut command = runtime.command();
    command.args(["run", "--bundle"]).arg(&bundle).arg("test").stdin(fs::File::open(&input)?);
    let done = process::capture_keeping_stdin(&mut command, LIMIT)?;
    ensure!(done.success(), "{}\n{}", done.describe(), done.stderr_text());
    ensure!(done.stdout_text() == "through a file\n" && done.stderr_text() == "err\n", "{done:?}");
    Ok(())
}

fn signal_forwarding(runtime: &Runtime) -> Result<()> {
    let bundle =
        runtime.shell("trap 'echo caught; exit 42' TERM; echo up; while :; do sleep 0.05; done", |_| {})?;
    let mut command = runtime.command();
    command.args(["run", "--bundle"]).arg(&bundle).arg("test");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let group = Group::of(&child)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?).lines();
    // A hang ends at the deadline below: the group is killed, and the pipe closes.
    let reader = std::thread::spawn(move || (lines.next(), lines));
    let deadline = Instant::now() + LIMIT;
    while !reader.is_finished() && Instant::now() < deadline {
        process::wait_for(&mut child, std::time::Duration::from_millis(50))?;
    }
    if !reader.is_finished() {
        group.signal(Signal::KILL);
        return Err(anyhow!("the program never printed anything"));
    }
    let (first, mut lines) = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
    ensure!(first.transpose()?.as_deref() == Some("up"), "the program did not start");
    // To the command alone, as a service manager would.
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).context("pid")?;
    rustix::process::kill_process(pid, Signal::TERM)?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    ensure!(status.and_then(|status| status.code()) == Some(42), "ended with {status:?}");
    ensure!(lines.next().transpose()?.as_deref() == Some("caught"), "the handler did not run");
    Ok(())
}

/// The container's state as the runtime tells it.
fn state(runtime: &Runtime, id: &str) -> Result<Value> {
    serde_json::from_str(&runtime.ok(&["state", id])?).context("state is not JSON")
}

fn status(runtime: &Runtime, id: &str) -> Result<String> {
    Ok(state(runtime, id)?["status"].as_str().unwrap_or("").to_owned())
}

/// Waits for a status that nothing announces.
pub(super) fn wait_for_status(runtime: &Runtime, id: &str, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = status(runtime, id)?;
        if now == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still {now}, not {wanted}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A started container that sleeps.
fn sleeper(runtime: &Runtime) -> Result<()> {
    let bundle = runtime
        .bundle(&["/bin/sleep", "1000"], |spec| spec["annotations"] = json!({ "org.example": "kept" }))?;
    runtime.create(&bundle, "test")?;
    runtime.ok(&["start", "test"]).map(|_| ())
}

fn end(runtime: &Runtime) -> Result<()> {
    runtime.ok(&["kill", "test", "KILL"])?;
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"]).map(|_| ())
}

fn life(runtime: &Runtime) -> Result<()> {
    let bundle = runtime
        .bundle(&["/bin/sleep", "1000"], |spec| spec["annotations"] = json!({ "org.example": "kept" }))?;
    runtime.create(&bundle, "test")?;
    let created = state(runtime, "test")?;
    ensure!(created["status"] == "created", "after create: {created}");
    ensure!(created["id"] == "test" && created["pid"].as_i64().is_some_and(|pid| pid > 1), "{created}");
    ensure!(created["ociVersion"].is_string() && created["bundle"] == json!(bundle), "{created}");
    ensure!(created["annotations"]["org.example"] == "kept", "{created}");
    runtime.ok(&["start", "test"])?;
    ensure!(status(runtime, "test")? == "running", "after start: {}", status(runtime, "test")?);
    runtime.fails_clearly(&["start", "test"], "test")?;
    end(runtime)?;
    runtime.fails_clearly(&["state", "test"], "test")
}

fn exec(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    let done = runtime.call(&["exec", "test", "/bin/sh", "-c", "cat /proc/1/comm; exit 5"])?;
    ensure!(
        done.status.and_then(|status| status.code()) == Some(5),
        "{}\n{}",
        done.describe(),
        done.stderr_text()
    );
    ensure!(done.stdout_text() == "sleep\n", "it sees {:?} as init", done.stdout_text());
    let process = runtime.scratch()?.join("process.json");
    let json = json!({ "args": ["/bin/sh", "-c", "pwd; id -u; echo $KEY"], "cwd": "/tmp", "env": ["PATH=/bin", "KEY=value"],
                       "user": { "uid": 1000, "gid": 1000 } });
    fs::write(&process, json.to_string())?;
    let text = runtime.ok(&["exec", "--process", &process.to_string_lossy(), "test"])?;
    ensure!(text == "/tmp\n1000\nvalue\n", "{text:?}");
    runtime.fails_clearly(&["exec", "test", "/no/such/program"], "/no/such/program")?;
    end(runtime)
}

fn ps_and_list(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    let pids: Vec<i64> =
        serde_json::from_str(&runtime.ok(&["ps", "--format", "json", "test"])?).context("ps")?;
    ensure!(!pids.is_empty(), "ps shows no process");
    let list: Value = serde_json::from_str(&runtime.ok(&["list", "--format", "json"])?).context("list")?;
    ensure!(list[0]["id"] == "test" && list[0]["status"] == "running", "list: {list}");
    ensure!(runtime.ok(&["list", "--quiet"])? == "test\n", "list --quiet");
    end(runtime)
}

fn kill(runtime: &Runtime) -> Result<()> {
    for signal in ["KILL", "SIGKILL", "9"] {
        sleeper(runtime)?;
        runtime.ok(&["kill", "test", signal])?;
        wait_for_status(runtime, "test", "stopped")?;
        runtime.ok(&["delete", "test"])?;
    }
    sleeper(runtime)?;
    runtime.fails_clearly(&["kill", "test", "NOSUCH"], "NOSUCH")?;
    end(runtime)?;
    runtime.fails_clearly(&["kill", "nobody", "TERM"], "nobody")
}

fn pause(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    runtime.ok(&["pause", "test"])?;
    wait_for_status(runtime, "test", "paused")?;
    runtime.fails_clearly(&["pause", "test"], "paused")?;
    runtime.fails_clearly(&["exec", "test", "true"], "paused")?;
    runtime.fails_clearly(&["delete", "test"], "paused")?;
    runtime.ok(&["resume", "test"])?;
    wait_for_status(runtime, "test", "running")?;
    runtime.ok(&["exec", "test", "true"])?;
    runtime.fails_clearly(&["resume", "test"], "running")?;
    runtime.ok(&["pause", "test"])?;
    end(runtime)
}

fn delete(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    runtime.fails_clearly(&["delete", "test"], "test")?;
    runtime.ok(&["delete", "--force", "test"])?;
    runtime.fails_clearly(&["delete", "test"], "test")?;
    runtime.ok(&["delete", "--force", "test"]).map(|_| ())
}

fn duplicate_id(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    let bundle = runtime.shell("true", |_| {})?;
    runtime.fails_clearly(&["run", "--bundle", &bundle.to_string_lossy(), "test"], "exist")?;
    end(runtime)
}

fn process_settings(runtime: &Runtime) -> Result<()> {
    let script = "pwd; echo $KEY; id -u; id -g; id -G; hostname; umask; echo $#";
    let bundle = runtime.bundle(&["/bin/sh", "-c", script, "zero", "one", "two"], |spec| {
        spec["process"]["cwd"] = json!("/var/tmp");
        spec["process"]["env"] = json!(["PATH=/usr/bin", "KEY=the value"]);
        spec["process"]["user"] =
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027 });
        spec["hostname"] = json!("named");
    })?;
    runtime.expect(&bundle, 0, "/var/tmp\nthe value\n1000\n1001\n1001 5 6\nnamed\n0027\n2\n")
}

fn rlimits(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("ulimit -Sn; ulimit -Hn; ulimit -c", |spec| {
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
        ]);
    })?;
    runtime.expect(&bundle, 0, "100\n200\n0\n")
}

fn capabilities(runtime: &Runtime) -> Result<()> {
    let script = "grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status; chown 1 /tmp 2>/dev/null || echo refused";
    let bundle = runtime.shell(script, |spec| {
        let kill = json!(["CAP_KILL"]);
        spec["process"]["capabilities"] = json!({ "bounding": kill, "effective": kill, "permitted": kill });
    })?;
    let (mask, tab) = ("0000000000000020", "\t");
    let expected =
        format!("CapPrm:{tab}{mask}\nCapEff:{tab}{mask}\nCapBnd:{tab}{mask}\nNoNewPrivs:{tab}1\nrefused\n");
    runtime.expect(&bundle, 0, &expected)
}

fn read_only_root(runtime: &Runtime) -> Result<()> {
    let script = "touch /file 2>/dev/null || echo refused; touch /tmp/file && echo tmp";
    let bundle = runtime.shell(script, |spec| spec["root"]["readonly"] = json!(true))?;
    runtime.expect(&bundle, 0, "refused\ntmp\n")
}

fn bind_mounts(runtime: &Runtime) -> Result<()> {
    let dir = runtime.scratch()?;
    fs::create_dir(dir.join("rw"))?;
    fs::write(dir.join("rw/in"), "from the host\n")?;
    fs::write(dir.join("file"), "one file\n")?;
    let script =
        "cat /rw/in; echo from the sandbox >/rw/out; cat /file; echo x 2>/dev/null >/file || echo refused";
    let bundle = runtime.shell(script, |spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/rw", "type": "bind", "source": dir.join("rw"), "options": ["rbind", "rw"] }));
            mounts.push(json!({ "destination": "/file", "type": "bind", "source": dir.join("file"), "options": ["bind", "ro"] }));
        }
    })?;
    let result = runtime.expect(&bundle, 0, "from the host\none file\nrefused\n");
    // Mount points that a runtime makes in a root of ours do not stay.
    let _not_there = (fs::remove_dir(runtime.root.join("rw")), fs::remove_file(runtime.root.join("file")));
    result?;
    ensure!(
        fs::read_to_string(dir.join("rw/out"))? == "from the sandbox\n",
        "the host does not see what was written"
    );
    Ok(())
}

fn tmpfs(runtime: &Runtime) -> Result<()> {
    let script = "grep -c ' /small tmpfs ' /proc/mounts; dd if=/dev/zero of=/small/f bs=4096 count=1000 2>/dev/null; echo $?; stat -c %s /small/f";
    let bundle = runtime.shell(script, |spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"] }));
        }
    })?;
    let result = runtime.expect(&bundle, 0, "1\n1\n65536\n");
    let _not_there = fs::remove_dir(runtime.root.join("small"));
    result
}

fn spec_command(runtime: &Runtime) -> Result<()> {
    let dir = runtime.scratch()?;
    let mut command = runtime.command();
    command.arg("spec").current_dir(&dir);
    let done = process::capture(&mut command, LIMIT)?;
    ensure!(done.success(), "{}\n{}", done.describe(), done.stderr_text());
    let spec: Value = serde_json::from_slice(&fs::read(dir.join("config.json"))?)?;
    ensure!(
        spec["ociVersion"].is_string()
            && spec["process"]["args"].is_array()
            && spec["root"]["path"].is_string(),
        "{spec}"
    );
    let again = process::capture(runtime.command().arg("spec").current_dir(&dir), LIMIT)?;
    ensure!(!again.success(), "it overwrites a configuration");
    Ok(())
}
