//! How the sandbox process gives up what it does not need.
//!
//! It is in user, pid, mount, ipc and uts namespaces of its own (and a network namespace, unless it was to share one)
//! from its first instruction. Here it leaves the host's file system for an empty one, and drops its capabilities, the
//! right to gain any, and most system calls.

use std::ffi::CStr;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::Signal;
use rustix::thread::CapabilitySet;

use super::filter;
use crate::error::{Context, Result};

/// A session of its own, unblocked signals, and the end with its maker where that is wanted.
pub fn detach(foreground: bool, name: &CStr) -> Result<()> {
    quicksand_host::signal::unblock_all().context("signals")?;
    if foreground {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")?;
    }
    rustix::process::setsid().context("setsid")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    // The process's name in `ps`; a name that is refused stays as it was.
    let _ = rustix::thread::set_name(name);
    // Standard input and output belong to the guest alone: were they open here too, a reader would never see their end.
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
        .context("opening /dev/null")?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .context("standard streams")
}

/// Root of the new user namespace: files are made as root, and then given their owners.
pub fn become_root() -> Result<()> {
    use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};
    if !rustix::process::getgid().is_root() {
        let root = Gid::ROOT;
        set_thread_res_gid(root, root, root).context("becoming group 0 of the sandbox's user namespace")?;
    }
    if !rustix::process::getuid().is_root() {
        let root = Uid::ROOT;
        set_thread_res_uid(root, root, root).context("becoming user 0 of the sandbox's user namespace")?;
    }
    Ok(())
}

/// Makes the host's out-of-memory killer prefer us more or less.
pub fn oom_score(score: i32) -> Result<()> {
    let score = score.clamp(-1000, 1000);
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        // Lowering it takes a right that an ordinary user lacks: then it stays as it is, as with runc.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other.context("config.json: process.oomScoreAdj"),
    }
}

/// What a process does with the host's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// It is given descriptors of files, and opens none.
    None,
    ReadOnly,
    /// Some are the guest's to change.
    Writable,
}

/// Leaves the host's files and gives up all rights but those that `files` needs. What remains to be done is the filter.
pub fn give_up_rights(files: Files) -> Result<()> {
    enter_empty_root().context("entering an empty root")?;
    drop_capabilities(files).context("dropping capabilities")?;
    rustix::thread::set_no_new_privs(true).context("PR_SET_NO_NEW_PRIVS")
}

/// Gives up those rights, and all system calls that `process` does not need.
pub fn lock_down(files: Files, process: filter::Process) -> Result<()> {
    give_up_rights(files)?;
    filter::install(process)
}

/// Changes the root to a file system that nobody else has, and that holds nothing.
fn enter_empty_root() -> rustix::io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    // Closing the last descriptor of a detached mount waits for all processors (some ms): the end of the process does.
    std::mem::forget((context, root));
    Ok(())
}

fn drop_capabilities(files: Files) -> rustix::io::Result<()> {
    // Over the container's files the Sentry decides; the host's own checks must not get in its way.
    let read = CapabilitySet::DAC_READ_SEARCH;
    let change =
        CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    let kept = match files {
        Files::None => CapabilitySet::empty(),
        Files::ReadOnly => read,
        Files::Writable => read | change,
    };
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Err(rustix::io::Errno::INVAL) => break, // the last that the host knows
            other => other?,
        }
    }
    let sets = rustix::thread::CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}
