//! `mounts` and `mountinfo`: the mounts that can be reached from a task's root (`proc_pid_mountinfo(5)`).

use std::sync::Arc;

use crate::vfs::{Mount, MountNamespace, Path};

/// `\040`-style escapes of what would break a line into wrong fields (`mangle`).
fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for b in bytes {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend_from_slice(format!("\\{b:03o}").as_bytes()),
            _ => out.push(*b),
        }
    }
    out
}

/// The mounts below `root`, with the text of their places.
fn visible(namespace: &MountNamespace, root: &Path) -> Vec<(Arc<Mount>, Vec<u8>)> {
    let place = |mount: &Arc<Mount>| {
        let text = Path::root_of(mount).text(root);
        text.reachable.then_some((mount.clone(), text.text))
    };
    namespace.mounts().iter().filter_map(place).collect()
}

pub(super) fn mounts(namespace: &MountNamespace, root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (mount, place) in visible(namespace, root) {
        out.extend(escape(source(&mount)));
        out.push(b' ');
        out.extend(escape(&place));
        let sb = &mount.root.inode.sb;
        out.extend_from_slice(format!(" {} {}", sb.fs_type, mount.flags().to_options()).as_bytes());
        if !mount.options.is_empty() {
            out.push(b',');
            out.extend_from_slice(&mount.options);
        }
        out.extend_from_slice(b" 0 0\n");
    }
    out
}

pub(super) fn mountinfo(namespace: &MountNamespace, root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (mount, place) in visible(namespace, root) {
        let sb = &mount.root.inode.sb;
        let parent = mount.place().map_or(mount.id, |at| at.mount.id);
        let head = format!("{} {parent} {}:{} ", mount.id, sb.dev.major, sb.dev.minor);
        out.extend_from_slice(head.as_bytes());
        out.extend(escape(&inside(&mount)));
        out.push(b' ');
        out.extend(escape(&place));
        let flags = mount.flags();
        out.extend_from_slice(format!(" {} - {} ", flags.to_options(), sb.fs_type).as_bytes());
        out.extend(escape(source(&mount)));
        let access = if flags.contains(crate::vfs::MountFlags::RDONLY) { "ro" } else { "rw" };
        out.extend_from_slice(format!(" {access}").as_bytes());
        if !mount.options.is_empty() {
            out.push(b',');
            out.extend_from_slice(&mount.options);
        }
        out.push(b'\n');
    }
    out
}

fn source(mount: &Mount) -> &[u8] {
    if mount.source.is_empty() { b"none" } else { &mount.source }
}

/// Which part of its file system is mounted.
fn inside(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = Some(mount.root.clone());
    while let Some(dentry) = at {
        at = dentry.parent();
        if at.is_some() {
            names.push(dentry.name());
        }
    }
    let mut out = Vec::new();
    for name in names.iter().rev() {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}
