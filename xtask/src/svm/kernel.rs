//! Debian's kernel and the modules an emulated machine needs, unpacked below `target/svm`, never installed.

use crate::{process, setup};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The kernel packages' dependency that always names the newest one.
const META_PACKAGE: &str = "linux-image-amd64";

/// In this order: the disk and its file system, then the hypervisor.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "kvm-amd", "overlay", "tun", "veth"];

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// The modules to load, dependencies first.
    pub(super) modules: Vec<PathBuf>,
    pub(super) release: String,
}

/// The kernel from the cache, or downloaded into it.
pub(super) fn get(cache: &Path) -> Result<Kernel> {
    let unpacked = cache.join("kernel");
    if let Ok(kernel) = open(&unpacked) {
        return Ok(kernel);
    }
    let package = newest_package()?;
    println!("downloading {package}");
    let download = cache.join("download");
    crate::conformance::fresh_folder(&download)?;
    let mut get = Command::new("apt-get");
    get.args(["download", "-q", &package]).current_dir(&download);
    process::text(&mut get, Duration::from_secs(600))?;
    let archive = fs::read_dir(&download)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| anyhow!("apt-get download {package} left no package"))?;
    // Unpacked beside its place and moved there when it is whole.
    let fresh = cache.join("kernel.part");
    crate::conformance::fresh_folder(&fresh)?;
    process::text(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&fresh), Duration::from_secs(300))?;
    crate::conformance::fresh_folder(&unpacked)?;
    fs::rename(&fresh, &unpacked)?;
    fs::remove_dir_all(&download)?;
    open(&unpacked)
}

/// `linux-image-6.1.0-56-amd64`, from what the metapackage depends on.
fn newest_package() -> Result<String> {
    let ask =
        || process::text(Command::new("apt-cache").args(["depends", META_PACKAGE]), Duration::from_secs(60));
    let text = match ask() {
        Ok(text) if text.contains("linux-image-") => text,
        _ if setup::is_root() => {
            setup::apt_get(&["update", "-qq"])?;
            ask()?
        }
        _ => {
            bail!("the package lists are empty; run this once, then try again:\n\n    sudo apt-get update\n")
        }
    };
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("{META_PACKAGE} depends on no kernel"))
}

fn open(unpacked: &Path) -> Result<Kernel> {
    let lib = unpacked.join("lib/modules");
    let lib = if lib.is_dir() { lib } else { unpacked.join("usr/lib/modules") };
    let release = fs::read_dir(&lib)
        .with_context(|| lib.display().to_string())?
        .flatten()
        .next()
        .ok_or_else(|| anyhow!("{} is empty", lib.display()))?
        .file_name()
        .to_string_lossy()
        .into_owned();
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    if !image.is_file() {
        bail!("there is no {}", image.display());
    }
    let mut files = Vec::new();
    walk(&lib.join(&release).join("kernel"), &mut files)?;
    let mut modules = Vec::new();
    for name in MODULES {
        resolve(name, &files, &mut modules)?;
    }
    Ok(Kernel { image, modules, release })
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Adds a module after everything it says it depends on.
fn resolve(name: &str, files: &[PathBuf], order: &mut Vec<PathBuf>) -> Result<()> {
    let plain = |path: &Path| {
        path.file_name().map(|name| name.to_string_lossy().replace('-', "_")).unwrap_or_default()
    };
    let wanted = format!("{}.ko", name.replace('-', "_"));
    let file = files.iter().find(|path| plain(path) == wanted);
    let Some(file) = file else { bail!("the kernel package has no uncompressed module {wanted}") };
    if order.contains(file) {
        return Ok(());
    }
    let content = fs::read(file).with_context(|| file.display().to_string())?;
    for dependency in dependencies(&content) {
        resolve(&dependency, files, order)?;
    }
    order.push(file.clone());
    Ok(())
}

/// The `depends=` entry of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_dependencies_are_read() {
        assert_eq!(dependencies(b"x\0depends=kvm,ccp\0y\0"), ["kvm", "ccp"]);
        assert!(dependencies(b"x\0depends=\0y").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
