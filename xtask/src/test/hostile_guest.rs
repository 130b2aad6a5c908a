//! Programs that take what they can get, and that try to get out.

use super::container::{Check, LIMIT, Runtime};
use crate::build::{self, Linkage};
use crate::process;
use crate::setup;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(super) const CHECKS: &[Check] = &[
    ("hostile/takes-everything", takes_everything),
    ("hostile/no-way-out", no_way_out),
    ("hostile/host-devices", host_devices),
];

/// Each kind of thing that a guest can have many of is refused at some point, or counts for its memory limit.
fn takes_everything(runtime: &Runtime) -> Result<()> {
    let scratch = runtime.scratch()?;
    let source = setup::root().join("tests/workloads/hostile/fill.c");
    build::compile_c(&source, &scratch.join("fill"), Linkage::Static, "-O1")?;
    for kind in [
        "tmpfs",
        "memfd",
        "names",
        "pipes",
        "sockets",
        "cycles",
        "chain",
        "mounts",
        "binds",
        "deep",
        "mappings",
        "timers",
        "signals",
        "locks",
        "attributes",
        "descriptors",
        "nested-epoll",
        "links",
        "backlog",
        "children",
        "sizes",
    ] {
        let bundle = runtime.bundle(&["/fill/fill", kind], |spec| {
            add_mount(spec, json!({ "destination": "/fill", "type": "bind", "source": scratch, "options": ["bind", "ro"] }));
            spec["linux"]["resources"] = json!({ "memory": { "limit": 128 << 20 }, "pids": { "limit": 200 } });
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]);
            }
        })?;
        let done = runtime.run_bundle(&bundle)?;
        let stderr = done.stderr_text();
        // 137: the host's memory limit.
        let code = done.status.and_then(|status| status.code());
        ensure!(
            matches!(code, Some(0 | 137)) && !stderr.contains("panicked"),
            "{kind}: {} {stderr}",
            done.describe()
        );
        let must_refuse = ["binds", "attributes", "nested-epoll", "links", "backlog", "children", "sizes"];
        ensure!(
            !must_refuse.contains(&kind) || code == Some(137) || done.stdout_text() == "refused\n",
            "{kind}: it says {:?}",
            done.stdout_text()
        );
    }
    Ok(())
}

fn add_mount(spec: &mut Value, mount: Value) {
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// A root of its own below a folder whose other content nobody may reach.
fn writable_root(runtime: &Runtime) -> Result<(PathBuf, PathBuf)> {
    let scratch = runtime.scratch()?;
    let (root, outside) = (scratch.join("root"), scratch.join("outside"));
    crate::rootfs::make(&root, crate::rootfs::Kind::Busybox)?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "secret")?;
    // As a hostile image has them.
    symlink(&outside, root.join("absolute"))?;
    symlink("../../../../outside", root.join("relative"))?;
    symlink("../outside/secret", root.join("file"))?;
    symlink("/proc/self/root/../outside", root.join("magic"))?;
    symlink("loop", root.join("loop"))?;
    Ok((root, outside))
}

fn no_way_out(runtime: &Runtime) -> Result<()> {
    let (root, outside) = writable_root(runtime)?;
    let script = r"
        for p in /absolute/secret /relative/secret /file /magic/secret /proc/self/root/../outside/secret /proc/1/root/../../outside/secret \
                 /proc/self/cwd/../../outside/secret /loop /../outside/secret /../../../../../../../outside/secret; do
            cat $p 2>/dev/null; echo x 2>/dev/null >$p; rm -f $p 2>/dev/null; ln $p /linked 2>/dev/null; chmod 777 $p 2>/dev/null
        done
        mkdir -p /a/b/c; cd /a/b/c
        # A working directory that moves up and away while names above it are looked up.
        (i=0; while [ $i -lt 200 ]; do mv /a/b /moved 2>/dev/null; mv /moved /a/b 2>/dev/null; i=$((i+1)); done) &
        i=0; while [ $i -lt 200 ]; do cat ../../../../../outside/secret ../../../outside/secret 2>/dev/null; i=$((i+1)); done
        wait
        # A directory whose place becomes a link while it is walked.
        mkdir -p /x/outside; echo inside >/x/outside/secret; ln -s /../../outside /link
        (i=0; while [ $i -lt 200 ]; do mv /x/outside /y; mv /link /x/outside; mv /x/outside /link; mv /y /x/outside; i=$((i+1)); done) 2>/dev/null &
        i=0; while [ $i -lt 200 ]; do cat /x/outside/secret 2>/dev/null | grep -v inside; echo changed 2>/dev/null >/x/outside/new; i=$((i+1)); done
        wait; rmdir /a/b/c 2>/dev/null; cat ../outside/secret ../../outside/secret 2>/dev/null
        echo end";
    for flags in [&["--overlay=none"][..], &["--overlay=none", "--directfs=false"], &["--overlay=memory"]] {
        let bundle = runtime.shell(script, |spec| spec["root"]["path"] = json!(root))?;
        let mut command = runtime.command();
        command.args(flags).args(["run", "--bundle"]).arg(&bundle).arg("test");
        let done = process::capture(&mut command, LIMIT)?;
        ensure!(done.success(), "{flags:?}: {}\n{}", done.describe(), done.stderr_text());
        ensure!(done.stdout_text() == "end\n", "{flags:?}: it reads {:?}", done.stdout_text());
        unchanged(&outside, flags)?;
    }
    Ok(())
}

fn unchanged(outside: &Path, flags: &[&str]) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let names: Vec<_> = fs::read_dir(outside)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names == ["secret"], "{flags:?}: outside there is {names:?}");
    let meta = fs::metadata(outside.join("secret"))?;
    ensure!(fs::read(outside.join("secret"))? == b"secret" && meta.nlink() == 1, "{flags:?}: it was changed");
    ensure!(meta.mode() & 0o777 != 0o777, "{flags:?}: its mode was changed");
    Ok(())
}

/// Devices, FIFOs and sockets that lie in the root are the host's, and cannot be opened through us.
fn host_devices(runtime: &Runtime) -> Result<()> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let (root, _) = writable_root(runtime)?;
    mknodat(CWD, root.join("zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 5))?;
    mknodat(CWD, root.join("kvm"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(10, 232))?;
    mknodat(CWD, root.join("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o666), makedev(7, 0))?;
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket"))?;
    let script = r"
        for f in kvm disk socket; do
            dd if=/$f of=/dev/null bs=1 count=1 2>/dev/null && echo read $f
            dd if=/dev/zero of=/$f bs=1 count=1 conv=notrunc 2>/dev/null && echo wrote $f
        done
        ls -l /kvm | cut -c1; echo end";
    for flags in [&["--overlay=none"][..], &["--overlay=none", "--directfs=false"], &["--overlay=memory"]] {
        let bundle = runtime.shell(script, |spec| spec["root"]["path"] = json!(root))?;
        let mut command = runtime.command();
        command.args(flags).args(["run", "--bundle"]).arg(&bundle).arg("test");
        let done = process::capture(&mut command, LIMIT)?;
        ensure!(
            done.stdout_text() == "c\nend\n",
            "{flags:?}: {} {:?} {}",
            done.describe(),
            done.stdout_text(),
            done.stderr_text()
        );
    }
    Ok(())
}
