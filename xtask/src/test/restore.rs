//! Checkpoint and restore, from outside: what a program has is there afterwards, as often as an image is restored.

use super::container::{Check, LIMIT, Runtime};
use super::lifecycle::wait_for_status;
use crate::process;
use crate::rootfs::{self, Kind};
use crate::setup;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    ("restore/what-a-shell-has", what_a_shell_has),
    ("restore/what-python-has", what_python_has),
    ("restore/identity", identity),
    ("restore/killed-checkpoints", killed_checkpoints),
    ("restore/full-disk", full_disk),
    ("restore/tcp-refused", tcp_refused),
    ("restore/random-moments", random_moments),
    ("restore/leave-running", leave_running),
    ("restore/compressed", compressed),
    ("restore/paused", paused),
    ("restore/refused-by-name", refused),
    ("restore/damaged-images", damaged),
    ("restore/of-another-machine", of_another_machine),
    ("restore/annotation", annotation),
];

/// Has something of every kind that an image holds, waits for `/shared/go`, and tells what it has.
const SCRIPT: &str = r#"
echo kept >/tmp/kept; mkdir -p /tmp/dir; ln -s ../kept /tmp/dir/link; ln /tmp/kept /tmp/second; chmod 600 /tmp/kept
dd if=/dev/urandom of=/tmp/large bs=1k count=300 2>/dev/null; sum=$(md5sum </tmp/large)
echo changed >>/etc/passwd; rm /etc/group; mkdir /etc/fresh; echo new >/etc/fresh/file
trap 'echo trapped' USR1
exec 5</tmp/large; dd bs=1000 count=1 <&5 >/dev/null 2>&1
mkfifo /tmp/fifo
sh -c 'while read -r line; do echo "reader $line"; done; echo "reader ends"' | cat >/tmp/collected &
sleep 1000 & sleeper=$!
big=$(seq 1 20000); export big
cd /tmp/dir; umask 027; up=$(cut -d. -f1 /proc/uptime)
echo ready
until [ -e /shared/go ]; do sleep 0.02; done
cat /tmp/kept /tmp/dir/link /tmp/second; stat -c '%a %h' /tmp/kept
[ "$sum" = "$(md5sum </tmp/large)" ] && echo large; dd bs=1000 <&5 2>/dev/null | wc -c
tail -n 1 /etc/passwd; cat /etc/group 2>/dev/null || echo removed; cat /etc/fresh/file
kill -USR1 $$; echo "$big" | tail -n 1; pwd; umask
kill -TERM $sleeper; wait $sleeper; echo "sleeper $?"
[ "$(cut -d. -f1 /proc/uptime)" -ge "$up" ] && echo clock
[ -p /tmp/fifo ] && echo fifo
echo "pid $$"
"#;

const EXPECTED: &str = "kept\nkept\nkept\n600 2\nlarge\n306200\nchanged\nremoved\nnew\ntrapped\n20000\n/tmp/dir\n0027\nsleeper 143\nclock\nfifo\npid 1\n";

/// A container that has printed `ready`, and where its parts are.
pub(super) struct Ready {
    pub(super) bundle: PathBuf,
    pub(super) shared: PathBuf,
    pub(super) image: PathBuf,
    pub(super) output: PathBuf,
}

impl Ready {
    pub(super) fn copy(&self) -> Ready {
        let Ready { bundle, shared, image, output } = self;
        Ready { bundle: bundle.clone(), shared: shared.clone(), image: image.clone(), output: output.clone() }
    }
}

pub(super) fn bundle(runtime: &Runtime, argv: &[&str], root: &Path) -> Result<Ready> {
    let dir = runtime.scratch()?;
    let shared = dir.join("shared");
    fs::create_dir(&shared)?;
    let bundle = runtime.bundle(argv, |spec| {
        spec["root"]["path"] = json!(root);
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            let mount = json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"] });
            mounts.push(mount);
        }
    })?;
    Ok(Ready { bundle, shared, image: dir.join("images/one"), output: dir.join("output") })
}

pub(super) fn start(runtime: &Runtime, script: &str) -> Result<Ready> {
    start_ready(runtime, bundle(runtime, &["/bin/sh", "-c", script], &runtime.root)?)
}

/// Runs a script of `tests/workloads/restore`.
pub(super) fn start_python(runtime: &Runtime, name: &str) -> Result<Ready> {
    let root = rootfs::cached(Kind::Python)?;
    let ready = bundle(runtime, &["/usr/bin/python3", &format!("/shared/{name}"), "/shared/go"], &root)?;
    for file in [name, "common.py"] {
        fs::copy(setup::root().join("tests/workloads/restore").join(file), ready.shared.join(file))?;
    }
    start_ready(runtime, ready)
}

pub(super) fn start_ready(runtime: &Runtime, ready: Ready) -> Result<Ready> {
    let mut command = runtime.command();
    command.args(["run", "--detach", "--bundle"]).arg(&ready.bundle).arg("test").stdin(Stdio::null());
    command
        .stdout(fs::File::create(&ready.output)?)
        .stderr(fs::File::create(ready.output.with_extension("err"))?);
    let status = process::wait_until(&mut command.spawn()?, Instant::now() + LIMIT)?;
    ensure!(status.is_some_and(|status| status.success()), "run --detach: {status:?}");
    let deadline = Instant::now() + LIMIT;
    while fs::read_to_string(&ready.output)? != "ready\n" {
        // The file does not tell when it grows.
        std::thread::sleep(Duration::from_millis(10));
        ensure!(Instant::now() < deadline, "it printed {:?}", fs::read_to_string(&ready.output)?);
    }
    Ok(ready)
}

pub(super) fn checkpoint(runtime: &Runtime, ready: &Ready, flags: &[&str]) -> Result<()> {
    let image = ready.image.to_string_lossy().into_owned();
    let args = [&["checkpoint", "--image-path", &image], flags, &["test"]].concat();
    runtime.ok(&args).map(|_| ())
}

/// The container ended with its checkpoint.
pub(super) fn gone(runtime: &Runtime) -> Result<()> {
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"]).map(|_| ())
}

/// Restores the image and lets it go on; what it prints then.
pub(super) fn restore(runtime: &Runtime, ready: &Ready, id: &str) -> Result<String> {
    fs::write(ready.shared.join("go"), "")?;
    let (image, bundle) = (ready.image.to_string_lossy(), ready.bundle.to_string_lossy());
    let printed = runtime.ok(&["restore", "--image-path", &image, "--bundle", &bundle, id])?;
    fs::remove_file(ready.shared.join("go"))?;
    Ok(printed)
}

pub(super) fn clean_root(runtime: &Runtime) {
    // Mount points that a runtime makes in a root of ours do not stay.
    let _not_there = fs::remove_dir(runtime.root.join("shared"));
}

fn what_a_shell_has(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, SCRIPT)?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    images(runtime, &ready)?;
    for id in ["one", "two", "three"] {
        let printed = restore(runtime, &ready, id)?;
        ensure!(printed == EXPECTED, "{id} printed {printed:?}");
    }
    clean_root(runtime);
    Ok(())
}

/// `image`: what it says of an image, and a copy of it.
fn images(runtime: &Runtime, ready: &Ready) -> Result<()> {
    let image = ready.image.to_string_lossy().into_owned();
    let dir = ready.image.parent().context("a directory")?.to_string_lossy().into_owned();
    ensure!(runtime.ok(&["image", "ls", "--quiet", &dir])? == "one\n", "image ls");
    let summary: serde_json::Value = serde_json::from_str(&runtime.ok(&["image", "inspect", &image])?)?;
    ensure!(summary["pages"]["total"].as_u64().is_some_and(|pages| pages > 0), "{summary}");
    ensure!(runtime.ok(&["image", "verify", &image])?.contains("intact"), "image verify");
    let copy = format!("{dir}/copy");
    runtime.ok(&["image", "flatten", "--compression", "zstd", &image, &copy])?;
    ensure!(runtime.ok(&["image", "ls", "--quiet", &dir])? == "copy\none\n", "image ls");
    runtime.fails_clearly(&["image", "rm", &ready.shared.to_string_lossy()], "image")?;
    runtime.ok(&["image", "rm", &copy])?;
    runtime.fails_clearly(&["image", "inspect", &copy], "copy")
}

/// Printed by `tests/workloads/restore/python.py` after a restore.
const PYTHON_EXPECTED: &str = "\
[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38]
b'served 1'
ConnectionResetError
b'unread' b'one' b'two' b'last' b''
b'hi'
b'hi'
b'udp'
True
b'never named' b'removed' b'root:' False
locks 3
7 b'child'
alarm async
b'fork\\n'
";

fn what_python_has(runtime: &Runtime) -> Result<()> {
    let ready = start_python(runtime, "python.py")?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    for id in ["one", "two"] {
        let printed = restore(runtime, &ready, id)?;
        ensure!(printed == PYTHON_EXPECTED, "{id} printed {printed:?}");
    }
    clean_root(runtime);
    Ok(())
}

/// How often the busy program is checkpointed.
const MOMENTS: u32 = 20;

/// A program that is never idle is checkpointed at any moment, restored, checkpointed again.
fn random_moments(runtime: &Runtime) -> Result<()> {
    let ready = start_python(runtime, "busy.py")?;
    let mut seed = u64::from(std::process::id()) | 1;
    println!("        moments from seed {seed}");
    for moment in 0..MOMENTS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The moment itself: nothing is waited for.
        std::thread::sleep(Duration::from_micros(seed >> 48));
        let now = Ready { image: ready.image.with_file_name(format!("{moment}")), ..ready.copy() };
        let words = || format!("{:?}", fs::read_to_string(ready.output.with_extension("err")));
        checkpoint(runtime, &now, &[]).with_context(|| format!("moment {moment}: {}", words()))?;
        gone(runtime).with_context(|| format!("moment {moment}, after its checkpoint: {}", words()))?;
        let mut command = runtime.command();
        command
            .args(["restore", "--detach", "--image-path"])
            .arg(&now.image)
            .arg("--bundle")
            .arg(&ready.bundle);
        command.arg("test").stdin(Stdio::null());
        let append = |path: &Path| fs::OpenOptions::new().append(true).open(path);
        command.stdout(append(&ready.output)?).stderr(append(&ready.output.with_extension("err"))?);
        let status = process::wait_until(&mut command.spawn()?, Instant::now() + LIMIT)?;
        ensure!(status.is_some_and(|status| status.success()), "moment {moment}: {status:?}, {}", words());
        fs::remove_dir_all(&now.image)?;
    }
    fs::write(ready.shared.join("go"), "")?;
    wait_for_status(runtime, "test", "stopped").with_context(|| {
        let ps = runtime.ok(&["ps", "test"]).unwrap_or_default();
        format!("it did not end after the last moment:\n{ps}{:?}", fs::read_to_string(&ready.output))
    })?;
    runtime.ok(&["delete", "test"])?;
    let printed = fs::read_to_string(&ready.output)?;
    let words = fs::read_to_string(ready.output.with_extension("err"))?;
    ensure!(printed == "ready\nok\n", "it printed {printed:?}, and said {words:?}");
    clean_root(runtime);
    Ok(())
}

/// Two copies of one image share nothing that would make one guess the other's secrets.
fn identity(runtime: &Runtime) -> Result<()> {
    let ready = start_python(runtime, "identity.py")?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let mut seen = std::collections::BTreeSet::new();
    for id in ["one", "two", "three"] {
        let printed = restore(runtime, &ready, id)?;
        let words: Vec<&str> = printed.split_whitespace().collect();
        let [random, at, device, boot_id, uuid, now, host, pid] = words[..] else {
            anyhow::bail!("{id} printed {printed:?}");
        };
        for secret in [random, at, device, boot_id, uuid] {
            ensure!(seen.insert(secret.to_owned()), "{secret} came twice");
        }
        let now: f64 = now.parse()?;
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        ensure!((now - here).abs() < 30.0 && host == "bundle" && pid == "1", "{id} printed {printed:?}");
    }
    clean_root(runtime);
    Ok(())
}

/// At how many points a checkpoint is killed.
const KILLS: u32 = 40;

/// A checkpoint that is killed leaves no half image, and the container goes on.
fn killed_checkpoints(runtime: &Runtime) -> Result<()> {
    let ready = start_python(runtime, "busy.py")?;
    let above = ready.image.parent().context("a directory")?.to_path_buf();
    let mut whole = 0;
    for number in 0..KILLS {
        let image = ready.image.with_file_name(format!("{number}"));
        let mut command = runtime.command();
        command.args(["checkpoint", "--leave-running", "--image-path"]).arg(&image).arg("test");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        // The point itself: nothing is waited for.
        std::thread::sleep(Duration::from_micros(u64::from(number) * 5000));
        child.kill()?;
        child.wait()?;
        if image.exists() {
            whole += 1;
            runtime.ok(&["image", "verify", &image.to_string_lossy()])?;
        }
        wait_for_status(runtime, "test", "running")?;
        // It waits for the container to go on, and is answered only then.
        runtime.ok(&["exec", "test", "/bin/true"])?;
    }
    println!("        {whole} of {KILLS} images were whole when their checkpoint was killed");
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let left = fs::read_dir(&above)?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let left: Vec<String> = left.filter(|name| name.starts_with('.')).collect();
    ensure!(left.is_empty(), "what killed checkpoints left was not removed: {left:?}");
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed == "ok\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// An image that does not fit is no image, and the container goes on.
fn full_disk(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, "echo ready; until [ -e /shared/go ]; do sleep 0.02; done; echo done")?;
    let small = ready.shared.with_file_name("small");
    fs::create_dir(&small)?;
    let mount = |args: &[&str]| process::show(std::process::Command::new(args[0]).args(&args[1..]), LIMIT);
    let place = small.to_string_lossy().into_owned();
    mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", &place])?;
    let image = small.join("image").to_string_lossy().into_owned();
    let outcome = runtime
        .fails_clearly(&["checkpoint", "--image-path", &image, "test"], "no space left")
        .and_then(|()| {
            ensure!(fs::read_dir(&small)?.next().is_none(), "something was left");
            Ok(())
        });
    mount(&["umount", &place])?;
    outcome?;
    wait_for_status(runtime, "test", "running")?;
    runtime.ok(&["exec", "test", "true"])?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed == "done\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// Connections are not reset where that was not wanted.
fn tcp_refused(runtime: &Runtime) -> Result<()> {
    let ready = start_python(runtime, "python.py")?;
    let image = ready.image.to_string_lossy().into_owned();
    runtime.fails_clearly(
        &["checkpoint", "--tcp", "refuse", "--image-path", &image, "test"],
        "TCP connection",
    )?;
    wait_for_status(runtime, "test", "running")?;
    runtime.ok(&["exec", "test", "/bin/true"])?;
    runtime.ok(&["delete", "--force", "test"])?;
    clean_root(runtime);
    Ok(())
}

fn leave_running(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, SCRIPT)?;
    checkpoint(runtime, &ready, &["--leave-running"])?;
    wait_for_status(runtime, "test", "running")?;
    // The original is not disturbed, and can be checkpointed again.
    let second = Ready { image: ready.image.with_file_name("two"), ..ready };
    checkpoint(runtime, &second, &["--leave-running"])?;
    fs::write(second.shared.join("go"), "")?;
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"])?;
    let printed = fs::read_to_string(&second.output)?;
    ensure!(printed == format!("ready\n{EXPECTED}"), "the original printed {printed:?}");
    let first = Ready { image: second.image.with_file_name("one"), ..second };
    let printed = restore(runtime, &first, "copy")?;
    ensure!(printed == EXPECTED, "the first image printed {printed:?}");
    let second = Ready { image: first.image.with_file_name("two"), ..first };
    let printed = restore(runtime, &second, "copy")?;
    ensure!(printed == EXPECTED, "the second image printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

fn compressed(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, SCRIPT)?;
    checkpoint(runtime, &ready, &["--compression", "zstd"])?;
    gone(runtime)?;
    let printed = restore(runtime, &ready, "one")?;
    ensure!(printed == EXPECTED, "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

fn paused(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, SCRIPT)?;
    runtime.ok(&["pause", "test"])?;
    checkpoint(runtime, &ready, &["--leave-running"])?;
    wait_for_status(runtime, "test", "paused")?;
    runtime.ok(&["delete", "--force", "test"])?;
    let printed = restore(runtime, &ready, "one")?;
    ensure!(printed == EXPECTED, "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// What an image cannot hold is named, and the container goes on.
fn refused(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, "mkdir /tmp/d; cd /tmp/d; rmdir /tmp/d; echo ready; sleep 1000")?;
    let image = ready.image.to_string_lossy().into_owned();
    runtime
        .fails_clearly(&["checkpoint", "--image-path", &image, "test"], "directory was removed: /tmp/d")?;
    ensure!(!ready.image.exists(), "a refused checkpoint left an image");
    wait_for_status(runtime, "test", "running")?;
    runtime.ok(&["exec", "test", "true"])?;
    runtime.fails_clearly(&["checkpoint", "--image-path", "/proc/no", "test"], "/proc/no")?;
    runtime.ok(&["delete", "--force", "test"])?;
    runtime.fails_clearly(&["checkpoint", "--image-path", &image, "test"], "test")?;
    clean_root(runtime);
    Ok(())
}

/// Whatever byte of an image is wrong: a message, and nothing left behind.
fn damaged(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, "echo ready; until [ -e /shared/go ]; do sleep 0.02; done")?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let bundle = ready.bundle.to_string_lossy().into_owned();
    let try_image = |path: &Path, word: &str| {
        let image = path.to_string_lossy().into_owned();
        runtime.fails_clearly(&["restore", "--image-path", &image, "--bundle", &bundle, "copy"], word)
    };
    try_image(&ready.image.with_file_name("none"), "none")?;
    try_image(&ready.shared, "index.json")?;
    let blobs = ready.image.join("blobs/blake3");
    let mut blobs: Vec<PathBuf> = fs::read_dir(&blobs)
        .with_context(|| blobs.display().to_string())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    blobs.sort_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    // The largest is the page layer, which is not read at a restore.
    blobs.pop();
    for path in &blobs {
        let whole = fs::read(path)?;
        fs::write(path, &whole[..whole.len() / 2])?;
        try_image(&ready.image, "image")?;
        let mut wrong = whole.clone();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 0x20;
        fs::write(path, &wrong)?;
        // A section that is not needed may be wrong unseen; most are.
        let _either = runtime.call(&[
            "restore",
            "--image-path",
            &ready.image.to_string_lossy(),
            "--bundle",
            &bundle,
            "--detach",
            "copy",
        ])?;
        runtime.ok(&["delete", "--force", "copy"])?;
        fs::write(path, &whole)?;
    }
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed.is_empty(), "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// An image that cannot go on here says in one line why.
fn of_another_machine(runtime: &Runtime) -> Result<()> {
    use quicksand_checkpoint::{FeatureWord, Image, ImageSpec, ImageWriter, Versions};
    let ready = start(runtime, "echo ready; until [ -e /shared/go ]; do sleep 0.02; done; echo done")?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let own = Image::open(&ready.image)?;
    ensure!(own.features().iter().any(|word| word.bits != 0), "the image names no features");
    let spec = || ImageSpec {
        versions: own.versions(),
        arch: own.arch(),
        page_size: own.page_size(),
        features: own.features().to_vec(),
        ..ImageSpec::default()
    };
    let bundle = ready.bundle.to_string_lossy().into_owned();
    let refused = |name: &str, spec: ImageSpec, words: &str| -> Result<()> {
        let path = ready.image.with_file_name(name);
        ImageWriter::create(&path, spec)?.finish()?;
        let image = path.to_string_lossy().into_owned();
        runtime.fails_clearly(&["restore", "--image-path", &image, "--bundle", &bundle, "copy"], words)
    };
    let records = own.versions().records;
    let versions = Versions { records: records + 1, ..own.versions() };
    let words = format!("records version {}, but this build reads {records}", records + 1);
    refused("version", ImageSpec { versions, ..spec() }, &words)?;
    refused("machine", ImageSpec { arch: 183, ..spec() }, "machine 183")?;
    refused("pages", ImageSpec { page_size: 16384, ..spec() }, "pages of 16384 bytes")?;
    let mut features = spec().features;
    features.push(FeatureWord { name: "cpuid.7.ecx".into(), bits: 1 << 40 });
    refused("features", ImageSpec { features, ..spec() }, "cpuid.7.ecx bits 0x10000000000")?;
    // All is as it should be, and there is no process in it.
    refused("empty", spec(), "there is no")?;

    // A copy that needs the first image's pages, without it.
    let child = ready.image.with_file_name("child");
    let parent = Some(std::sync::Arc::new(Image::open(&ready.image)?));
    let mut writer = ImageWriter::create(&child, ImageSpec { parent, ..spec() })?;
    for extent in own.extents()?.all() {
        writer.layer().add_parent(extent.space, extent.start_page, extent.pages)?;
    }
    writer.finish()?;
    // A parent beside its child is found by any name.
    let elsewhere = ready.shared.with_file_name("elsewhere");
    fs::rename(&ready.image, &elsewhere)?;
    let image = child.to_string_lossy().into_owned();
    runtime.fails_clearly(&["restore", "--image-path", &image, "--bundle", &bundle, "copy"], "parent")?;
    fs::rename(&elsewhere, &ready.image)?;
    let printed = restore(runtime, &ready, "copy")?;
    ensure!(printed == "done\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}

/// Engines restore by an annotation of an ordinary bundle.
fn annotation(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, SCRIPT)?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let config = ready.bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["annotations"]["dev.quicksand.image"] = json!(ready.image);
    fs::write(&config, spec.to_string())?;
    fs::write(ready.shared.join("go"), "")?;
    runtime.expect(&ready.bundle, 0, EXPECTED)?;
    clean_root(runtime);
    Ok(())
}
