//! Entry points, from outside: an image is taken at the moment that was named, and what is restored goes on from there, with
//! nothing done twice or left out. Lambda functions are asked with an unmodified client.

use super::container::{Check, LIMIT, Runtime};
use super::lifecycle::wait_for_status;
use super::restore::{Ready, bundle, clean_root, gone, restore};
use crate::process::{self, Captured};
use crate::rootfs::{self, Kind};
use crate::setup;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    ("entry/listen", listen),
    ("entry/accept", accept),
    ("entry/line", line),
    ("entry/signal", signal),
    ("entry/not-reached", not_reached),
    ("entry/leave-running", leave_running),
    ("entry/start", start),
    ("entry/refused", refused),
    ("entry/killed-watch", killed_watch),
    ("entry/lambda", lambda),
    ("entry/lambda-api", lambda_api),
];

/// A bundle that runs a script of `tests/workloads/entry`, with these arguments and the file that lets it go on.
fn python(runtime: &Runtime, script: &str, args: &[&str]) -> Result<Ready> {
    let root = rootfs::cached(Kind::Python)?;
    let script_there = format!("/shared/{script}");
    let argv = [&["/usr/bin/python3", &script_there], args].concat();
    let ready = bundle(runtime, &argv, &root)?;
    fs::copy(setup::root().join("tests/workloads/entry").join(script), ready.shared.join(script))?;
    Ok(ready)
}

fn shell(runtime: &Runtime, script: &str) -> Result<Ready> {
    bundle(runtime, &["/bin/sh", "-c", script], &runtime.root)
}

/// `run --checkpoint-at`.
fn command(runtime: &Runtime, ready: &Ready, at: &str, flags: &[&str]) -> Command {
    let mut command = runtime.command();
    command.arg("run").arg("--bundle").arg(&ready.bundle).arg(format!("--checkpoint-at={at}"));
    command.arg("--image-path").arg(&ready.image).args(flags).arg("test").stdin(Stdio::null());
    command
}

fn take(runtime: &Runtime, ready: &Ready, at: &str, flags: &[&str]) -> Result<Captured> {
    process::capture(&mut command(runtime, ready, at, flags), LIMIT)
}

fn ended_with(done: &Captured, code: i32, stdout: &str) -> Result<()> {
    ensure!(
        done.status.and_then(|status| status.code()) == Some(code) && done.stdout_text() == stdout,
        "{}, printed {:?}; expected exit {code} and {stdout:?}\n{}",
        done.describe(),
        done.stdout_text(),
        done.stderr_text().trim_end()
    );
    Ok(())
}

/// The image is taken with `before` printed; what is restored prints `after`.
fn splits(runtime: &Runtime, ready: &Ready, at: &str, before: &str, after: &str) -> Result<()> {
    ended_with(&take(runtime, ready, at, &[])?, 0, before)?;
    for id in ["one", "two"] {
        let printed = restore(runtime, ready, id)?;
        ensure!(printed == after, "{id} printed {printed:?}");
    }
    clean_root(runtime);
    Ok(())
}

fn listen(runtime: &Runtime) -> Result<()> {
    for what in ["listen-inet", "listen-unix"] {
        let ready = python(runtime, "ready.py", &[what, "/shared/go"])?;
        splits(runtime, &ready, "listen", "before\n", "after\n").context(what)?;
    }
    Ok(())
}

fn accept(runtime: &Runtime) -> Result<()> {
    for what in ["accept", "accept-unix", "poll", "select", "epoll", "epoll-unix"] {
        let ready = python(runtime, "ready.py", &[what, "/shared/go"])?;
        splits(runtime, &ready, "accept", "before\n", "after\n").context(what)?;
    }
    Ok(())
}

fn line(runtime: &Runtime) -> Result<()> {
    let pieces = "printf 'one\\nrea'; printf 'dy 8'; echo 0; echo ready 81";
    splits(runtime, &shell(runtime, pieces)?, r"line:^ready \d+$", "one\nready 80\n", "ready 81\n")?;
    let error = "echo before; echo ready >&2; echo after";
    splits(runtime, &shell(runtime, error)?, "line:ready", "before\n", "after\n")
        .context("standard error")?;
    let opened = "echo before; echo ready >/dev/stdout; echo after";
    splits(runtime, &shell(runtime, opened)?, "line:READY|ready", "before\nready\n", "after\n")?;
    let child = "(echo before | cat); sh -c 'echo ready'; echo after";
    splits(runtime, &shell(runtime, child)?, "line:(?i)READY", "before\nready\n", "after\n")?;
    let ready = python(runtime, "ready.py", &["line", "/shared/go"])?;
    splits(runtime, &ready, "line:^ready$", "x\nready\nbefore\n", "after\n")?;

    // A write that is half done: each byte comes out once.
    let ready = python(runtime, "ready.py", &["large", "/shared/go"])?;
    let done = take(runtime, &ready, "line:^ready$", &[])?;
    ensure!(done.success(), "{}: {}", done.describe(), done.stderr_text());
    let all = format!("ready\n{}after\n", "0123456789abcdef".repeat(1 << 16));
    let printed = done.stdout_text() + &restore(runtime, &ready, "one")?;
    ensure!(printed == all, "{} bytes of {}", printed.len(), all.len());
    clean_root(runtime);
    Ok(())
}

fn signal(runtime: &Runtime) -> Result<()> {
    for (at, what) in [("signal", "signal-64"), ("signal:USR2", "signal-12")] {
        let ready = python(runtime, "ready.py", &[what, "/shared/go"])?;
        splits(runtime, &ready, at, "before\n", "after\n").context(what)?;
    }
    // From outside, and only the one that was named.
    let script =
        "trap 'echo trapped' USR1; echo before; until [ -e /shared/go ]; do sleep 0.02; done; echo after";
    let ready = shell(runtime, script)?;
    let mut child = spawned(command(runtime, &ready, "signal", &[]), &ready)?;
    printed(&ready, "before\n")?;
    runtime.ok(&["kill", "test", "USR1"])?;
    printed(&ready, "before\ntrapped\n")?;
    runtime.ok(&["kill", "test", "64"])?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    let printed = restore(runtime, &ready, "one")?;
    ensure!(printed == "after\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// Starts a command whose output goes to a file.
fn spawned(mut command: Command, ready: &Ready) -> Result<Child> {
    command.stdout(fs::File::create(&ready.output)?);
    command.stderr(fs::File::create(ready.output.with_extension("err"))?);
    Ok(command.spawn()?)
}

/// Waits until the file has this and nothing else.
fn printed(ready: &Ready, text: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while fs::read_to_string(&ready.output)? != text {
        // The file does not tell when it grows.
        std::thread::sleep(Duration::from_millis(10));
        ensure!(Instant::now() < deadline, "it printed {:?}", fs::read_to_string(&ready.output)?);
    }
    Ok(())
}

/// No image, a line that says so, and an exit code of its own.
fn not_reached(runtime: &Runtime) -> Result<()> {
    let check = |script: &str, flags: &[&str], words: &str, stdout: &str| -> Result<()> {
        let ready = shell(runtime, script)?;
        let done = take(runtime, &ready, "listen", flags)?;
        ended_with(&done, 124, stdout)?;
        let said = done.stderr_text();
        ensure!(said.contains("no image") && said.contains(words), "it said {said:?}");
        ensure!(said.trim().lines().count() == 1 && !ready.image.exists(), "{said}");
        Ok(())
    };
    check("echo done; exit 3", &[], "ended before", "done\n")?;
    check("echo done; exit 3", &["--leave-running"], "ended before", "done\n")?;
    check("kill -KILL $$; sleep 1000", &["--checkpoint-timeout", "0.3"], "0.3 s", "")?;
    // It goes on without an image, as it was asked to.
    let script = "until [ -e /shared/go ]; do sleep 0.02; done; echo done; exit 3";
    let ready = shell(runtime, script)?;
    let flags = ["--leave-running", "--checkpoint-timeout", "0.1"];
    let mut child = spawned(command(runtime, &ready, "listen", &flags), &ready)?;
    std::thread::sleep(Duration::from_millis(500));
    wait_for_status(runtime, "test", "running")?;
    fs::write(ready.shared.join("go"), "")?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    ensure!(status.and_then(|status| status.code()) == Some(124), "{status:?}");
    printed(&ready, "done\n")?;
    clean_root(runtime);
    Ok(())
}

fn leave_running(runtime: &Runtime) -> Result<()> {
    let ready = shell(runtime, "echo before; echo ready; echo after; exit 3")?;
    let done = take(runtime, &ready, "line:ready", &["--leave-running", "--compression=zstd"])?;
    ended_with(&done, 3, "before\nready\nafter\n")?;
    let mut again = runtime.command();
    again.args(["restore", "--image-path"]).arg(&ready.image).arg("--bundle").arg(&ready.bundle).arg("copy");
    ended_with(&process::capture(&mut again, LIMIT)?, 3, "after\n")?;

    // With `--detach`, the image is there when the command returns.
    let ready = shell(runtime, "echo ready; until [ -e /shared/go ]; do sleep 0.02; done; echo after")?;
    let mut child =
        spawned(command(runtime, &ready, "line:ready", &["--leave-running", "--detach"]), &ready)?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    ensure!(ready.image.join("index.json").exists(), "there is no image");
    wait_for_status(runtime, "test", "running")?;
    fs::write(ready.shared.join("go"), "")?;
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"])?;
    printed(&ready, "ready\nafter\n")?;
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed == "after\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// A container that was created is watched from its start on.
fn start(runtime: &Runtime) -> Result<()> {
    let ready = shell(runtime, "echo ready; echo after")?;
    runtime.create(&ready.bundle, "test")?;
    let image = ready.image.to_string_lossy().into_owned();
    runtime.ok(&["start", "--checkpoint-at=line:ready", "--image-path", &image, "test"])?;
    gone(runtime)?;
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed == "after\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

fn refused(runtime: &Runtime) -> Result<()> {
    let ready = shell(runtime, "mkdir /tmp/d; cd /tmp/d; rmdir /tmp/d; echo ready; exit 3")?;
    let (bundle, image) = (ready.bundle.to_string_lossy(), ready.image.to_string_lossy());
    let run = |at: &str, flags: &[&str]| -> Vec<String> {
        let at = format!("--checkpoint-at={at}");
        let words = [&["run", "--bundle", &bundle, &at], flags, &["test"]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let fails = |args: Vec<String>, words: &str| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = runtime.call(&args)?;
        let said = done.stderr_text();
        ensure!(done.status.and_then(|s| s.code()) == Some(128), "{}: {said}", done.describe());
        ensure!(said.contains(words), "it said {said:?}");
        Ok(())
    };
    let here = ["--image-path", &image];
    fails(run("line:(", &here), "unclosed group")?;
    fails(run("then", &here), "lambda-next")?;
    fails(run("signal:KILL", &here), "KILL")?;
    fails(run("listen", &[]), "--image-path")?;
    fails(run("line:ready", &["--image-path", &bundle]), "already there")?;
    fails(run("line:ready", &["--image-path", "/proc/no"]), "/proc/no")?;
    // What an image cannot hold is named. The container ends, unless it was to go on.
    fails(run("line:ready", &here), "directory was removed")?;
    fails(run("line:ready", &[&here[..], &["--leave-running"]].concat()), "directory was removed")?;
    ensure!(!ready.image.exists(), "there is an image");
    clean_root(runtime);
    Ok(())
}

/// Nobody stands still for a command that has died.
fn killed_watch(runtime: &Runtime) -> Result<()> {
    let script = "until [ -e /shared/go ]; do sleep 0.02; done; echo ready; echo after";
    let ready = shell(runtime, script)?;
    runtime.create(&ready.bundle, "test")?;
    let mut command = runtime.command();
    command.args(["start", "--checkpoint-at=line:ready", "--image-path"]).arg(&ready.image).arg("test");
    let mut child = spawned(command, &ready)?;
    wait_for_status(runtime, "test", "running")?;
    child.kill()?;
    child.wait()?;
    fs::write(ready.shared.join("go"), "")?;
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"])?;
    ensure!(!ready.image.exists(), "there is an image");
    clean_root(runtime);
    Ok(())
}

/// The client that Lambda functions in Python use, as it is published.
fn runtime_client() -> Result<PathBuf> {
    const VERSION: &str = "4.2.2";
    setup::ensure(&[setup::PIP])?;
    let dir = setup::work_dir("lambda")?.join(format!("awslambdaric-{VERSION}"));
    if !dir.exists() {
        let fresh = dir.with_extension("new");
        crate::conformance::fresh_folder(&fresh)?;
        let mut pip = Command::new("/usr/bin/python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
        ]);
        pip.args(["--no-compile", "--target"]).arg(&fresh).arg(format!("awslambdaric=={VERSION}"));
        process::show(&mut pip, Duration::from_secs(300)).context("installing awslambdaric from PyPI")?;
        // What its native part needs and a small root file system has not.
        let root = rootfs::cached(Kind::Python)?;
        fs::create_dir(fresh.join("lib"))?;
        let native = fs::read_dir(&fresh)?.filter_map(|entry| Some(entry.ok()?.path()));
        for native in native.filter(|path| path.extension().is_some_and(|extension| extension == "so")) {
            for library in rootfs::shared_libraries(&native)? {
                let name = library.file_name().unwrap_or_default();
                if !root.join(library.strip_prefix("/").unwrap_or(&library)).exists() {
                    fs::copy(&library, fresh.join("lib").join(name))?;
                }
            }
        }
        fs::rename(&fresh, &dir)?;
    }
    Ok(dir)
}

/// A bundle with a Lambda function and the client.
fn function(runtime: &Runtime) -> Result<Ready> {
    let packages = runtime_client()?;
    let root = rootfs::cached(Kind::Python)?;
    let ready = bundle(runtime, &["/usr/bin/python3", "-m", "awslambdaric", "app.handler"], &root)?;
    fs::copy(setup::root().join("tests/workloads/entry/app.py"), ready.shared.join("app.py"))?;
    let config = ready.bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["cwd"] = "/shared".into();
    let env = spec["process"]["env"].as_array_mut().context("process.env")?;
    env.extend([
        "PYTHONPATH=/packages".into(),
        "LD_LIBRARY_PATH=/packages/lib".into(),
        "AWS_LAMBDA_FUNCTION_NAME=tested".into(),
    ]);
    let mount =
        json!({ "destination": "/packages", "type": "bind", "source": packages, "options": ["rbind", "ro"] });
    spec["mounts"].as_array_mut().context("mounts")?.push(mount);
    fs::write(config, spec.to_string())?;
    Ok(ready)
}

/// `invoke` of a container.
fn invoke(runtime: &Runtime, flags: &[&str], id: &str, event: &Value) -> Result<Captured> {
    let file = runtime.state_folder().with_file_name("event.json");
    fs::write(&file, event.to_string())?;
    let file = file.to_string_lossy();
    runtime.call(&[&["invoke"], flags, &[id, &file]].concat())
}

/// `restore --detach`, with output that somebody takes for as long as it comes.
fn restore_detached(runtime: &Runtime, ready: &Ready, image: &Path, id: &str) -> Result<()> {
    let mut command = runtime.command();
    command.args(["restore", "--detach", "--image-path"]).arg(image).arg("--bundle").arg(&ready.bundle);
    command.arg(id).stdin(Stdio::null());
    let status = process::wait_until(&mut spawned(command, ready)?, Instant::now() + LIMIT)?;
    let said = || fs::read_to_string(ready.output.with_extension("err")).unwrap_or_default();
    ensure!(status.is_some_and(|status| status.success()), "{status:?}: {}", said());
    Ok(())
}

fn lambda(runtime: &Runtime) -> Result<()> {
    let ready = function(runtime)?;
    ended_with(&take(runtime, &ready, "lambda-next", &[])?, 0, "init\n")?;

    // One event, one copy.
    let event = ready.shared.join("event.json");
    let once = |value: &Value, id: &str| -> Result<Captured> {
        fs::write(&event, value.to_string())?;
        let mut command = runtime.command();
        command.args(["restore", "--image-path"]).arg(&ready.image).arg("--bundle").arg(&ready.bundle);
        command.arg("--invoke").arg(&event).arg(id);
        process::capture(&mut command, LIMIT)
    };
    let answered = |done: &Captured, count: u64| -> Result<Value> {
        ensure!(done.success(), "{}: {}", done.describe(), done.stderr_text());
        let answer: Value = serde_json::from_str(&done.stdout_text())?;
        ensure!(
            answer["count"] == count && answer["arn"].as_str().is_some_and(|a| a.ends_with(":tested")),
            "{answer}"
        );
        let trace = answer["trace"].as_str().unwrap_or_default();
        ensure!(trace.starts_with("Root=1-") && answer["len"] == 5, "{answer}");
        ensure!(answer["left"].as_u64().is_some_and(|left| left > 600_000 && left <= 900_000), "{answer}");
        Ok(answer)
    };
    let mut ids = std::collections::BTreeSet::new();
    for id in ["one", "two", "three"] {
        let done = once(&json!({ "text": "12345" }), id)?;
        let answer = answered(&done, 1)?;
        ensure!(ids.insert(answer["id"].to_string()), "two events have one id");
        ensure!(done.stderr_text() == "handled\n", "it said {:?}", done.stderr_text());
    }
    let done = once(&json!({ "fail": "on purpose" }), "one")?;
    ensure!(done.status.and_then(|s| s.code()) == Some(1), "{}", done.describe());
    ensure!(
        done.stdout_text().contains("on purpose") && done.stderr_text().contains("ValueError"),
        "what failed"
    );

    // Several events to one copy.
    restore_detached(runtime, &ready, &ready.image, "test")?;
    for count in 1..=3 {
        answered(&invoke(runtime, &[], "test", &json!({ "text": "12345" }))?, count)?;
    }
    let large = invoke(runtime, &[], "test", &json!({ "text": "x".repeat(5 << 20) }))?;
    ensure!(large.stdout_text().contains("\"len\": 5242880"), "{}", large.stderr_text());
    let large = invoke(runtime, &[], "test", &json!({ "size": 5 << 20 }))?;
    ensure!(large.success() && large.stdout.len() == (5 << 20) + 3, "{} bytes", large.stdout.len());
    let slow = invoke(runtime, &["--timeout", "0.2"], "test", &json!({ "sleep": 1 }))?;
    ensure!(slow.stderr_text().contains("no response in 0.2 s"), "{}", slow.stderr_text());
    // The one after a response that nobody waited for.
    ensure!(invoke(runtime, &[], "test", &json!({}))?.stdout_text().contains("\"count\": 7"), "the seventh");

    // Checkpointed in the midst of an event: nobody waits for its response in the copy.
    let second = ready.image.with_file_name("second");
    let mut waiting = runtime.command();
    let file = runtime.state_folder().with_file_name("event.json");
    fs::write(&file, json!({ "sleep": 2 }).to_string())?;
    // As it is without a name.
    waiting.args(["invoke", "test"]).stdin(fs::File::open(&file)?);
    let mut waiting = spawned(waiting, &ready)?;
    std::thread::sleep(Duration::from_millis(500));
    runtime.ok(&["checkpoint", "--image-path", &second.to_string_lossy(), "test"])?;
    let status = process::wait_until(&mut waiting, Instant::now() + LIMIT)?;
    ensure!(status.and_then(|s| s.code()) == Some(128), "{status:?}");
    gone(runtime)?;
    restore_detached(runtime, &ready, &second, "test")?;
    ensure!(invoke(runtime, &[], "test", &json!({}))?.stdout_text().contains("\"count\": 9"), "the ninth");
    // Too long a response is told, whatever becomes of the function.
    let long = invoke(runtime, &[], "test", &json!({ "size": 7 << 20 }))?;
    ensure!(long.stdout_text().contains("ResponseSizeTooLarge"), "{}", long.stderr_text());
    runtime.ok(&["delete", "--force", "test"])?;
    runtime.fails_clearly(&["invoke", "test"], "test")?;

    // A function that cannot start.
    fs::remove_dir_all(&ready.image)?;
    fs::write(ready.shared.join("broken"), "")?;
    let done = take(runtime, &ready, "lambda-next", &[])?;
    ensure!(done.status.and_then(|s| s.code()) == Some(124), "{}", done.describe());
    ensure!(done.stderr_text().contains("no image"), "{}", done.stderr_text());
    clean_root(runtime);
    Ok(())
}

fn lambda_api(runtime: &Runtime) -> Result<()> {
    let ready = python(runtime, "api.py", &[])?;
    let flags = ["--leave-running", "--detach"];
    let mut child = spawned(command(runtime, &ready, "lambda-next", &flags), &ready)?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    let said = || fs::read_to_string(ready.output.with_extension("err")).unwrap_or_default();
    ensure!(status.is_some_and(|status| status.success()), "{status:?}: {}", said());
    printed(&ready, "tried\nrestored\n")?;
    let echo = |id: &str| -> Result<()> {
        for text in ["first", "second"] {
            let event = json!({ "text": text });
            ended_with(&invoke(runtime, &[], id, &event)?, 0, &format!("{event}\n"))?;
        }
        runtime.ok(&["delete", "--force", id]).map(|_| ())
    };
    echo("test").context("the original")?;
    restore_detached(runtime, &ready, &ready.image, "copy")?;
    echo("copy").context("the copy")?;
    // A container without it.
    let plain = shell(runtime, "sleep 1000")?;
    runtime.create(&plain.bundle, "test")?;
    runtime.ok(&["start", "test"])?;
    let done = invoke(runtime, &[], "test", &json!({}))?;
    ensure!(done.stderr_text().contains("--checkpoint-at=lambda-next"), "{}", done.stderr_text());
    runtime.ok(&["delete", "--force", "test"])?;
    clean_root(runtime);
    Ok(())
}
