//! Hosts that are in a bad way, clients that do not keep to the protocol, commands that are killed: nothing hangs, nothing is
//! left, and the next command works.

use super::container::{Check, LIMIT, Runtime};
use crate::process::{self, Captured};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("hostile/killed-commands", killed_commands),
    ("hostile/commands-at-once", commands_at_once),
    ("hostile/closed-streams", closed_streams),
    ("hostile/state-folder", state_folder),
    ("hostile/host-limits", host_limits),
    ("hostile/control-socket", control_socket),
    ("hostile/control-flood", control_flood),
    ("hostile/signal-before-start", signal_before_start),
    ("hostile/hooks", hooks),
    ("hostile/hook-asks-for-state", hook_asks_for_state),
    ("hostile/console-socket", console_socket),
    ("hostile/mounts", mounts),
    ("hostile/long-fields", long_fields),
    ("hostile/ordinary-user", ordinary_user),
];

/// A command of the runtime in the background, with no streams.
fn start(runtime: &Runtime, args: &[&str]) -> Result<std::process::Child> {
    let mut command = runtime.command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("spawn")
}

fn is_systrap(runtime: &Runtime) -> bool {
    runtime.command().get_args().any(|argument| argument == "systrap")
}

/// The runtime's command line for a shell.
fn line(runtime: &Runtime, args: &str) -> String {
    format!("{} {args}", process::command_line(&runtime.command()))
}

fn shell(script: &str) -> Result<Captured> {
    process::capture(Command::new("/bin/bash").args(["-c", script]), LIMIT)
}

/// Whatever was done to `test`: `list` and `delete --force` clear it away.
fn clear(runtime: &Runtime) -> Result<()> {
    runtime.ok(&["list"])?;
    runtime.ok(&["delete", "--force", "test"]).map(|_| ())
}

/// Each command is killed a moment after it began; which moment is the point.
fn killed_commands(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.bundle(&["/bin/sleep", "1000"], |_| {})?;
    let path = bundle.to_string_lossy().into_owned();
    let commands: &[(bool, &[&str])] = &[
        (false, &["create", "--bundle", &path, "test"]),
        (false, &["run", "--bundle", &path, "test"]),
        (false, &["--directfs=false", "run", "--bundle", &path, "test"]),
        (false, &["run", "--detach", "--bundle", &path, "test"]),
        (true, &["start", "test"]),
        (true, &["delete", "--force", "test"]),
    ];
    for round in 0..60 {
        let (made, args) = commands[round % commands.len()];
        if made {
            runtime.create(&bundle, "test")?;
        }
        let mut child = start(runtime, args)?;
        let moment = Duration::from_micros(u64::try_from(round * 7919 % 60_000)?);
        process::wait_for(&mut child, moment)?;
        child.kill()?;
        child.wait()?;
        clear(runtime).with_context(|| format!("{} killed after {moment:?}", args.join(" ")))?;
        let left: Vec<_> = fs::read_dir(runtime.state_folder())
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        ensure!(left.is_empty(), "{} killed after {moment:?} leaves {left:?}", args.join(" "));
        if let Some(cgroup) = runtime.cgroups().first() {
            bail!("{} killed after {moment:?} leaves {}", args.join(" "), cgroup.display());
        }
    }
    runtime.expect(&runtime.shell("echo works", |_| {})?, 0, "works\n")
}

fn commands_at_once(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.bundle(&["/bin/sleep", "1000"], |_| {})?;
    let bundle = bundle.to_string_lossy().into_owned();
    let at_once = |commands: &[&[&str]]| -> Result<Vec<i32>> {
        let mut children = commands.iter().map(|args| start(runtime, args)).collect::<Result<Vec<_>>>()?;
        let end = |child: &mut std::process::Child| {
            let status = process::wait_for(child, LIMIT)?.context("a command hangs")?;
            Ok(status.code().unwrap_or(-1))
        };
        children.iter_mut().map(end).collect()
    };
    for _ in 0..5 {
        let create: &[&str] = &["create", "--bundle", &bundle, "test"];
        let codes = at_once(&[create, &["list"], create, &["list"], create, &["state", "test"]])?;
        let made = [0, 2, 4].iter().filter(|i| codes[**i] == 0).count();
        ensure!(made == 1, "one `create` of three should do: {codes:?}");
        let codes = at_once(&[&["start", "test"][..]; 3])?;
        ensure!(
            codes.iter().filter(|code| **code == 0).count() == 1,
            "one `start` of three should do: {codes:?}"
        );
        let delete: &[&str] = &["delete", "--force", "test"];
        let codes = at_once(&[delete, &["exec", "test", "/bin/true"], &["kill", "test", "KILL"], delete])?;
        ensure!(codes.iter().all(|code| [0, 128, 137].contains(code)), "{codes:?}");
        clear(runtime)?;
    }
    Ok(())
}

fn closed_streams(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("true", |_| {})?;
    for closed in ["<&- >&-", "<&- >&- 2>&-", "2>&-"] {
        let done = shell(&format!(
            "{} {closed}",
            line(runtime, &format!("run --bundle {} test", bundle.display()))
        ))?;
        ensure!(done.success(), "{closed}: {}\n{}", done.describe(), done.stderr_text());
    }
    // A pipe that nobody reads from: an error of ours, and no panic (101, or SIGABRT).
    for command in ["list", "features", "--version", "doctor"] {
        for stream in ["1", "2"] {
            let command = line(runtime, command);
            let done = shell(&format!("exec 9> >(:); wait $!; {command} {stream}>&9; echo $?"))?;
            let said = format!("{}{}", done.stdout_text(), done.stderr_text());
            ensure!(!said.contains("panicked"), "{command} {stream}>: {said}");
            let code = done.stdout_text().lines().last().unwrap_or_default().to_owned();
            ensure!(["0", "1", "128"].contains(&code.as_str()), "{command} {stream}>: exit {code}");
        }
    }
    Ok(())
}

/// `--root` on a disk that is full, then read-only.
fn state_folder(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.bundle(&["/bin/sleep", "1000"], |_| {})?.display().to_string();
    let disk = runtime.scratch()?;
    let place = disk.display();
    let mount = shell(&format!("mount -t tmpfs -o size=64k none {place}"))?;
    ensure!(mount.success(), "{}", mount.stderr_text());
    let own = runtime.state_folder().display().to_string();
    let quicksand = line(runtime, "").replace(&own, &format!("{place}/root"));
    let script = format!(
        "fill() {{ head -c 100000 /dev/zero >{place}/fill 2>/dev/null; }}
        fails() {{ \"$@\" </dev/null >/dev/null 2>{place}.said && echo \"succeeds: $*\"; grep -q \"$why\" {place}.said || echo \"$*: $(cat {place}.said)\"; }}
        Q='{quicksand}'; B='{bundle}'
        fill; why='No space'; fails $Q run --bundle $B test; fails $Q create --bundle $B test; $Q list >/dev/null || echo list
        rm {place}/fill; $Q create --bundle $B test </dev/null >/dev/null; fill
        fails $Q start test; $Q state test | grep created >/dev/null || echo state; $Q delete --force test || echo delete
        rm {place}/fill; mount -o remount,ro {place}
        why='Read-only'; fails $Q run --bundle $B test; $Q list >/dev/null || echo list; $Q delete --force test || echo delete
        umount {place}; rm -f {place}.said"
    );
    let done = shell(&script)?;
    let _not_mounted = shell(&format!("umount {place}"))?;
    let said = format!("{}{}", done.stdout_text(), done.stderr_text());
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

fn host_limits(runtime: &Runtime) -> Result<()> {
    let script = "dd if=/dev/zero of=/tmp/f bs=65536 count=9 2>&1 | grep -c 'File too large'; echo alive";
    let bundle = runtime.shell(script, |_| {})?;
    let run = line(runtime, &format!("run --bundle {} test", bundle.display()));
    // Stubs share memory files with the Sentry that are longer than that.
    let systrap = is_systrap(runtime);
    // What the limit is; what it must say, or that it works.
    for (limit, stdout, stderr) in [
        ("-n 64", "0\nalive\n", ""),
        ("-u 1", "0\nalive\n", ""),
        if systrap { ("-f 100", "", "File too large") } else { ("-f 100", "1\nalive\n", "") },
        ("-n 8", "", "Too many open files"),
        ("-f 0", "", "File too large"),
        ("-v 200000", "", "Cannot allocate memory"),
    ] {
        let done = shell(&format!("ulimit {limit}; exec {run}"))?;
        ensure!(!done.stderr_text().contains("panicked"), "ulimit {limit}: {}", done.stderr_text());
        ensure!(
            done.stdout_text() == stdout && done.stderr_text().contains(stderr),
            "ulimit {limit}: {}, {:?} {}",
            done.describe(),
            done.stdout_text(),
            done.stderr_text()
        );
    }
    Ok(())
}

fn connect(runtime: &Runtime) -> Result<UnixStream> {
    // The name may be longer than an address.
    let dir = fs::File::open(runtime.state_folder().join("test"))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
    let stream = UnixStream::connect(format!("/proc/self/fd/{fd}/control.sock"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends bytes, says no more, and reads the answer.
fn answer(runtime: &Runtime, bytes: &[u8]) -> Result<String> {
    let mut stream = connect(runtime)?;
    // It may have hung up before it got everything.
    let _refused = stream.write_all(bytes);
    let _gone = stream.shutdown(std::net::Shutdown::Write);
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => bail!("no answer to {bytes:?}"),
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

fn message(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], text.as_bytes()].concat()
}

fn sleeper(runtime: &Runtime) -> Result<()> {
    runtime.create(&runtime.bundle(&["/bin/sleep", "1000"], |_| {})?, "test")?;
    runtime.ok(&["start", "test"]).map(|_| ())
}

fn still_works(runtime: &Runtime) -> Result<()> {
    let text = runtime.ok(&["exec", "test", "/bin/echo", "works"])?;
    ensure!(text == "works\n", "{text:?}");
    Ok(())
}

fn control_socket(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    let exec =
        json!({ "exec": { "process": { "args": ["/bin/true"], "cwd": "/" }, "controls_terminal": true } });
    let mut half = message(&json!("processes"));
    half.pop();
    for bytes in [
        &b"garbage and more of it"[..],
        b"",
        b"\x05",
        &[0xff; 4],
        &[0; 4],
        &half,
        &[&(8u32 << 20).to_le_bytes()[..], &vec![b'['; 8 << 20]].concat(),
        &message(&json!({ "signal": { "signal": 99999, "target": "own" } })),
        &message(&json!({ "signal": { "signal": 9, "target": { "pid": -1 } } })),
        &message(&json!("go")),
        &message(&json!("start")),
        &message(&json!("start")),
        &message(&exec),
    ] {
        let text = answer(runtime, bytes)?;
        ensure!(!text.contains("done") && !text.contains("started\":"), "{text}");
    }
    still_works(runtime)?;
    clear(runtime)
}

/// A thousand clients that say nothing, and some that do not listen.
fn control_flood(runtime: &Runtime) -> Result<()> {
    sleeper(runtime)?;
    let silent: Vec<UnixStream> = (0..1000).map_while(|_| connect(runtime).ok()).collect();
    let state = runtime.ok(&["state", "test"])?;
    ensure!(state.contains("running"), "{state}");
    drop(silent);
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(runtime)?;
        stream.write_all(&message(&json!("processes")))?;
        deaf.push(stream);
    }
    // The sandbox sees one after the other hang up.
    let deadline = std::time::Instant::now() + LIMIT;
    while let Err(e) = still_works(runtime) {
        ensure!(std::time::Instant::now() < deadline, "it does not recover: {e}");
    }
    runtime.ok(&["kill", "test", "KILL"])?;
    clear(runtime)
}

fn signal_before_start(runtime: &Runtime) -> Result<()> {
    runtime.create(&runtime.shell("true", |_| {})?, "test")?;
    runtime.ok(&["kill", "test", "WINCH"])?;
    ensure!(runtime.ok(&["state", "test"])?.contains("created"), "a harmless signal ended it");
    runtime.ok(&["kill", "test", "TERM"])?;
    clear(runtime)
}

fn hook(runtime: &Runtime, kind: &str, hook: Value) -> Result<Captured> {
    let bundle = runtime.shell("true", |spec| spec["hooks"] = json!({ kind: [hook] }))?;
    runtime.run_bundle(&bundle)
}

fn hooks(runtime: &Runtime) -> Result<()> {
    let script = |text: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", text], "timeout": 1 });
    for (value, must_say) in [
        (script("echo why >&2; exit 3"), "why"),
        (script("sleep 100 & sleep 100"), "within 1 s"),
        (script("head -c 10000000 /dev/zero >&2; exit 1"), "exit status: 1"),
        (json!({ "path": "/no/such" }), "/no/such"),
        (json!({ "path": "true" }), "absolute"),
        (json!({ "path": "/bin/tr\0ue" }), "NUL"),
        (json!({ "path": "/bin/true", "env": ["A=\0"] }), "NUL"),
    ] {
        let done = hook(runtime, "createRuntime", value.clone())?;
        let stderr = done.stderr_text();
        ensure!(
            done.status.is_some() && !done.success() && stderr.contains(must_say),
            "{value}: {} {stderr}",
            done.describe()
        );
    }
    // What a hook leaves behind, and one that does not read what it is told, hold nobody up.
    let done =
        hook(runtime, "createRuntime", json!({ "path": "/bin/sh", "args": ["sh", "-c", "sleep 5 & true"] }))?;
    ensure!(
        done.success() && done.elapsed < Duration::from_secs(4),
        "{} {}",
        done.describe(),
        done.stderr_text()
    );
    let bundle = runtime.shell("true", |spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
        spec["annotations"] = json!({ "long": "x".repeat(1 << 20) });
    })?;
    runtime.expect(&bundle, 0, "")?;
    for kind in ["poststart", "poststop"] {
        let done = hook(runtime, kind, script("sleep 100 & sleep 100"))?;
        ensure!(done.success() && done.elapsed < Duration::from_secs(30), "{kind}: {}", done.describe());
    }
    Ok(())
}

fn hook_asks_for_state(runtime: &Runtime) -> Result<()> {
    let ask = format!("{} | grep status >&2; exit 1", line(runtime, "state test"));
    let done = hook(
        runtime,
        "createRuntime",
        json!({ "path": "/bin/sh", "args": ["sh", "-c", ask], "timeout": 20 }),
    )?;
    ensure!(done.stderr_text().contains("\"status\": \"creating\""), "{}", done.stderr_text());
    Ok(())
}

/// Somebody listens, and takes no more connections.
fn console_socket(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("true", |spec| spec["process"]["terminal"] = json!(true))?;
    let path = runtime.scratch()?.join("socket");
    let listener = UnixListener::bind(&path)?;
    rustix::net::listen(&listener, 0)?;
    let _first = UnixStream::connect(&path)?;
    let args = [
        "create",
        "--bundle",
        &bundle.to_string_lossy(),
        "--console-socket",
        &path.to_string_lossy(),
        "test",
    ];
    runtime.fails_clearly(&args, "socket")
}

fn mounts(runtime: &Runtime) -> Result<()> {
    let scratch = runtime.scratch()?;
    let tmpfs = |at: String| json!({ "destination": at, "type": "tmpfs", "source": "none" });
    let bind = |at: String| json!({ "destination": at, "type": "bind", "source": scratch, "options": ["bind", "ro"] });
    let many: &[(&str, Vec<Value>)] = &[
        ("binds", (0..1000).map(|i| bind(format!("/tmp/{i}"))).collect()),
        ("one on the other", (0..1000).map(|_| tmpfs("/tmp".into())).collect()),
        ("one below the other", (0..300).map(|i| tmpfs(format!("/tmp{}", "/n".repeat(i)))).collect()),
        ("deep", vec![tmpfs(format!("/tmp{}", "/n".repeat(1500)))]),
    ];
    for (what, mounts) in many {
        let bundle = runtime.shell("echo up", |spec| {
            if let Some(list) = spec["mounts"].as_array_mut() {
                list.extend(mounts.iter().cloned());
            }
        })?;
        runtime.expect(&bundle, 0, "up\n").context(*what)?;
    }
    for (at, must_say) in [
        (format!("/{}", "a/".repeat(3000)), "destination"),
        ("/etc/passwd/x".into(), "/etc/passwd/x"),
        ("/a/../b".into(), "/a/../b"),
    ] {
        let bundle = runtime.shell("true", |spec| spec["mounts"] = json!([tmpfs(at)]))?;
        runtime.fails_clearly(&["run", "--bundle", &bundle.to_string_lossy(), "test"], must_say)?;
    }
    // Not a namespace, and something that one could wait for.
    let fifo = scratch.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)?;
    let bundle = runtime
        .shell("true", |spec| spec["linux"]["namespaces"] = json!([{ "type": "network", "path": fifo }]))?;
    runtime.fails_clearly(&["run", "--bundle", &bundle.to_string_lossy(), "test"], "network namespace")
}

fn long_fields(runtime: &Runtime) -> Result<()> {
    let long = "x".repeat(100_000);
    for pointer in
        ["/ociVersion", "/hostname", "/process/cwd", "/process/args", "/root/path", "/mounts/0/type"]
    {
        let bundle = runtime.shell("true", |spec| {
            if let Some((parent, key)) = pointer.rsplit_once('/')
                && let Some(object) = spec.pointer_mut(parent)
            {
                object[key] = json!(long);
            }
        })?;
        let done = runtime.run_bundle(&bundle)?;
        let stderr = done.stderr_text();
        ensure!(!done.success() && !stderr.contains("panicked"), "{pointer}: {}", done.describe());
        ensure!((1..4000).contains(&stderr.len()), "{pointer}: a message of {} bytes", stderr.len());
    }
    for path in ["/", "/.", "", "../x", "/a/../../b"] {
        let bundle = runtime.shell("true", |spec| spec["linux"]["cgroupsPath"] = json!(path))?;
        let done = runtime.run_bundle(&bundle)?;
        ensure!(
            done.success() == path.is_empty(),
            "cgroupsPath {path:?}: {} {}",
            done.describe(),
            done.stderr_text()
        );
    }
    Ok(())
}

/// As an account without rights, which may use KVM, and then may not. What it needs lies in a mount namespace of its own.
fn ordinary_user(runtime: &Runtime) -> Result<()> {
    const USER: u32 = 54321;
    let bundle = runtime.shell("id -u; cat /etc/passwd >/dev/null && echo reads", |spec| {
        spec["root"]["path"] = json!("/mnt/root");
        spec["linux"]["namespaces"] = json!([{ "type": "user" }, { "type": "pid" }, { "type": "network" }]);
        for kind in ["uidMappings", "gidMappings"] {
            spec["linux"][kind] = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
        }
    })?;
    let own = runtime.command().get_program().to_string_lossy().into_owned();
    let quicksand = line(runtime, "").replace(&own, "/mnt/quicksand");
    let state = runtime.state_folder().display().to_string();
    let quicksand = quicksand.replace(&state, "/mnt/state");
    let script = format!(
        "unshare -m sh -ec '
        mount -t tmpfs none /mnt; chmod 755 /mnt; cp {own} /mnt/quicksand; cp -a {root} /mnt/root; cp -r {bundle} /mnt/bundle
        mkdir -m 777 /mnt/state; mknod -m 666 /mnt/kvm c 10 232; mount --bind /mnt/kvm /dev/kvm; cd /
        as_user() {{ setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all \"$@\"; }}
        as_user {quicksand} do echo hi
        as_user {quicksand} run --bundle /mnt/bundle test
        as_user {quicksand} list --quiet
        chmod 600 /mnt/kvm
        as_user {quicksand} do true 2>&1 || true
        umount /dev/kvm; mount --bind /mnt/state /dev; as_user {quicksand} do true 2>&1 || true'",
        root = runtime.root.display(),
        bundle = bundle.display(),
    );
    let done = shell(&script)?;
    let said = done.stdout_text();
    let lines: Vec<&str> = said.lines().collect();
    let fine = match lines[..] {
        ["hi", "0", "reads", denied, missing] => {
            denied.contains("/dev/kvm")
                && denied.contains("Permission denied")
                && missing.contains("/dev/kvm")
        }
        // Where KVM is not asked for, it is not missed; an empty /dev is.
        ["hi", "0", "reads", missing] => is_systrap(runtime) && missing.contains("/dev/null"),
        _ => false,
    };
    ensure!(fine, "{} {said}\n{}", done.describe(), done.stderr_text());
    Ok(())
}
