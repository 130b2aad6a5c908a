//! The host files that a container is given: its root and its bind mounts, as descriptors.
//!
//! Each directory becomes a detached mount of its own (`open_tree(2)` with OPEN_TREE_CLONE): `..` at its root leads
//! nowhere, the host's later mounts do not show up in it, and it is `nodev` and, where the guest must not change it,
//! read-only whatever the Sentry does.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use quicksand_host::mount::{Attributes, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::cli::Overlay;
use crate::error::{Context, Result};
use crate::spec::{Mount, MountOptions, Spec, parse_options};

/// A container's host files.
#[derive(Debug)]
pub struct Files {
    pub root: OwnedFd,
    /// The bind mounts by their place in the spec.
    pub binds: Vec<(usize, OwnedFd)>,
    /// Some of it can be changed by the guest.
    pub writable: bool,
}

/// Opens everything that the spec names.
pub fn open(spec: &Spec, rootfs: &Path, overlay: Overlay) -> Result<Files> {
    let readonly_root = overlay == Overlay::Memory || spec.root.as_ref().is_some_and(|r| r.readonly);
    let root = open_directory(rootfs, readonly_root).context(format!("root.path: {}", rootfs.display()))?;
    let mut binds = Vec::new();
    let mut writable = !readonly_root;
    for (i, mount) in spec.mounts.iter().enumerate() {
        let options = parse_options(&mount.options);
        if !is_bind(mount, &options) {
            continue;
        }
        let bind = open_bind(Path::new(&mount.source), &options)
            .context(format!("mounts[{i}].source: {}", mount.source))?;
        writable |= !options.readonly;
        binds.push((i, bind));
    }
    Ok(Files { root, binds, writable })
}

/// The places in the spec of its bind mounts.
pub fn bind_places(spec: &Spec) -> Vec<usize> {
    let is_bind = |(_, mount): &(usize, &Mount)| is_bind(mount, &parse_options(&mount.options));
    spec.mounts.iter().enumerate().filter(is_bind).map(|(i, _)| i).collect()
}

/// Whether a mount of the spec shows host files.
pub fn is_bind(mount: &Mount, options: &MountOptions) -> bool {
    mount.kind == "bind" || options.bind
}

fn open_directory(path: &Path, readonly: bool) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    let mut attributes = Attributes::NODEV | Attributes::NOSUID;
    attributes.set(Attributes::RDONLY, readonly);
    set_attributes(tree.as_fd(), attributes).map_err(|e| rustix::io::Errno::from_raw_os_error(e.raw()))?;
    Ok(tree)
}

fn open_bind(source: &Path, options: &MountOptions) -> rustix::io::Result<OwnedFd> {
    let place = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) {
        FileType::Directory => open_directory(source, options.readonly),
        FileType::RegularFile => {
            let open =
                |mode| rustix::fs::open(source, mode | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
            match options.readonly {
                true => open(OFlags::RDONLY),
                false => open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY)),
            }
        }
        // A device, socket or FIFO can be looked at, and not be opened through us.
        _ => Ok(place),
    }
}
