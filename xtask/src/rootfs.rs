//! Small root file systems made from what the host has installed: busybox, and Debian's Python with its libraries.
//!
//! They stand in for container images wherever one is needed (benchmarks, the demo, engines, the emulated machine), so
//! that nothing has to be downloaded.

use crate::{process, setup};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Parts of Python's library that no program here imports and that are large.
const LEFT_OUT: &[&str] = &["test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"];

/// What goes into a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One static busybox with its applets.
    Busybox,
    /// Busybox, bash, and Debian's Python with its standard library.
    Python,
}

/// What the making needs from the host.
pub(crate) const NEEDS: &[setup::Need] = setup::ROOTFS;

/// The root file system of this kind below `target/rootfs`, made on first use.
pub(crate) fn cached(kind: Kind) -> Result<PathBuf> {
    let name = match kind {
        Kind::Busybox => "busybox",
        Kind::Python => "python",
    };
    let dir = setup::work_dir("rootfs")?.join(name);
    let stamp = dir.with_extension("made");
    let wanted = stamp_of_host(kind)?;
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(dir);
    }
    make(&dir, kind)?;
    fs::write(&stamp, wanted)?;
    Ok(dir)
}

/// Changes when the host's busybox or Python does.
fn stamp_of_host(kind: Kind) -> Result<String> {
    let mut stamp = format!("{kind:?} 3");
    for file in ["/usr/bin/busybox", "/usr/bin/python3"] {
        let meta = fs::metadata(file).with_context(|| file.to_owned())?;
        stamp.push_str(&format!(" {} {:?}", meta.len(), meta.modified()?));
    }
    Ok(stamp)
}

/// Makes a root file system afresh in `dir`.
pub(crate) fn make(dir: &Path, kind: Kind) -> Result<()> {
    crate::conformance::fresh_folder(dir)?;
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "dev",
        "proc",
        "sys",
        "root",
        "tmp",
        "var/tmp",
        "run",
    ] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), dir.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        set_mode(&dir.join(name), 0o1777)?;
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(dir.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(dir.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(dir.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    busybox(dir)?;
    if kind == Kind::Python {
        with_libraries(dir, Path::new("/bin/bash"))?;
        python(dir)?;
    }
    Ok(())
}

fn busybox(dir: &Path) -> Result<()> {
    let busybox = Path::new("/usr/bin/busybox");
    add(dir, busybox)?;
    let applets = process::text(Command::new(busybox).arg("--list"), Duration::from_secs(10))?;
    for applet in applets.lines().map(str::trim).filter(|name| !name.is_empty() && *name != "busybox") {
        let link = dir.join("usr/bin").join(applet);
        if !link.exists() {
            symlink("busybox", &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    Ok(())
}

fn python(dir: &Path) -> Result<()> {
    let binary = fs::canonicalize("/usr/bin/python3").context("/usr/bin/python3")?;
    let version = binary.file_name().unwrap_or_default();
    let library = Path::new("/usr/lib").join(version);
    if !library.join("os.py").is_file() {
        bail!("{} is not Debian's Python: there is no {}", binary.display(), library.join("os.py").display());
    }
    add(dir, &binary)?;
    symlink(version, dir.join("usr/bin/python3"))?;
    let mut libraries = shared_libraries(&binary)?;
    copy_library(dir, &library, &mut libraries)?;
    // What no file names: the C library loads it when a thread ends by `pthread_exit`, as Python's daemon threads may.
    libraries.extend(
        libraries
            .iter()
            .filter_map(|library| Some(library.parent()?.join("libgcc_s.so.1")))
            .find(|file| file.exists()),
    );
    for library in libraries {
        add(dir, &library)?;
    }
    Ok(())
}

/// A dynamic program with what it needs.
fn with_libraries(dir: &Path, program: &Path) -> Result<()> {
    add(dir, program)?;
    shared_libraries(program)?.iter().try_for_each(|library| add(dir, library))
}

fn copy_library(dir: &Path, library: &Path, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(library).with_context(|| library.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !LEFT_OUT.contains(&name.as_ref()) && !name.starts_with("config-") {
                copy_library(dir, &path, libraries)?;
            }
            continue;
        }
        add(dir, &path)?;
        if name.ends_with(".so") {
            libraries.extend(shared_libraries(&path)?);
        }
    }
    Ok(())
}

/// Every shared library a file needs, with the dynamic linker itself, by the host's own `ldd`.
pub(crate) fn shared_libraries(file: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = process::text(Command::new("ldd").arg(file), Duration::from_secs(20))?;
    Ok(libraries_in(&text))
}

/// `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`
fn libraries_in(ldd: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let line = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = line.split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    ldd.lines().filter_map(path).collect()
}

/// Copies a file of the host to the same place in a root file system, and what it links to with it.
pub(crate) fn add(dir: &Path, file: &Path) -> Result<()> {
    let real = fs::canonicalize(file).with_context(|| file.display().to_string())?;
    copy(&real, &inside(dir, &real)?)?;
    // `libm.so.6` may be a link to a file of another name in the same folder.
    let parent = fs::canonicalize(file.parent().unwrap_or(Path::new("/")))?;
    let as_named = parent.join(file.file_name().unwrap_or_default());
    if as_named != real {
        let link = inside(dir, &as_named)?;
        if !link.exists() {
            symlink(Path::new("/").join(real.strip_prefix("/").unwrap_or(&real)), &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    Ok(())
}

/// The place of an absolute path in a root file system; its folder is made.
fn inside(dir: &Path, path: &Path) -> Result<PathBuf> {
    let relative: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let place = dir.join(relative);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    Ok(place)
}

/// Copies a file with its mode and times (Python's compiled files are valid for one time of their source).
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::copy(from, to).with_context(context)?;
    let modified = fs::metadata(from).and_then(|meta| meta.modified()).with_context(context)?;
    fs::File::options()
        .write(true)
        .open(to)
        .and_then(|file| file.set_modified(modified))
        .with_context(context)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x2)\n\t/lib64/ld.so.2 (0x3)\n\tlibq.so => not found\n";
        let found: Vec<_> = libraries_in(text).into_iter().collect();
        assert_eq!(found, [PathBuf::from("/lib/x/libz.so.1"), PathBuf::from("/lib64/ld.so.2")]);
    }
}
