//! Calls about user and group ids and capabilities (`kernel/sys.c`, `kernel/groups.c`, `kernel/capability.c`).
//!
//! Each change copies the credentials, changes the copy and commits it; nobody ever sees a half-made one.

use std::sync::Arc;

use quicksand_abi::task::{CAP_VERSION_1, CAP_VERSION_2, CAP_VERSION_3, CapData, CapHeader};
use quicksand_abi::{Errno, UserAddr};

use super::CurrentTask;
use super::credentials::{Caps, Credentials};
use crate::syscalls::SyscallResult;

/// "Leave as it is", and no valid id.
const NONE: u32 = u32::MAX;
/// NGROUPS_MAX.
const MAX_GROUPS: i32 = 65536;

impl CurrentTask {
    /// Replaces the credentials (`commit_creds`).
    pub(crate) fn commit_creds(&self, new: Credentials) {
        let old = self.creds();
        if *old == new {
            return;
        }
        let gains_or_loses = old.euid != new.euid
            || old.egid != new.egid
            || old.fsuid != new.fsuid
            || old.fsgid != new.fsgid
            || !old.permitted.contains(new.permitted);
        if old.ruid != new.ruid {
            let mut tables = self.pids().lock();
            tables.uncount_user(old.ruid);
            tables.count_user(new.ruid);
        }
        if gains_or_loses {
            self.group().state.lock().dumpable = 0;
        }
        let mut state = self.state.lock();
        if gains_or_loses {
            state.pdeath_signal = 0;
        }
        state.creds = Arc::new(new);
        drop(state);
        self.answers.invalidate();
    }
    fn creds_to_change(&self) -> (Arc<Credentials>, Credentials) {
        let old = self.creds();
        let new = (*old).clone();
        (old, new)
    }
}

pub fn sys_getuid(task: &CurrentTask) -> SyscallResult {
    Ok(task.creds().ruid as usize)
}
pub fn sys_geteuid(task: &CurrentTask) -> SyscallResult {
    Ok(task.creds().euid as usize)
}
pub fn sys_getgid(task: &CurrentTask) -> SyscallResult {
    Ok(task.creds().rgid as usize)
}
pub fn sys_getegid(task: &CurrentTask) -> SyscallResult {
    Ok(task.creds().egid as usize)
}

pub fn sys_getresuid(task: &CurrentTask, ruid: UserAddr, euid: UserAddr, suid: UserAddr) -> SyscallResult {
    let c = task.creds();
    task.write_object(ruid, &c.ruid)?;
    task.write_object(euid, &c.euid)?;
    task.write_object(suid, &c.suid)?;
    Ok(0)
}
pub fn sys_getresgid(task: &CurrentTask, rgid: UserAddr, egid: UserAddr, sgid: UserAddr) -> SyscallResult {
    let c = task.creds();
    task.write_object(rgid, &c.rgid)?;
    task.write_object(egid, &c.egid)?;
    task.write_object(sgid, &c.sgid)?;
    Ok(0)
}

pub fn sys_setuid(task: &CurrentTask, uid: u32) -> SyscallResult {
    if uid == NONE {
        return Err(Errno::EINVAL.into());
    }
    let (old, mut new) = task.creds_to_change();
    if old.has(Caps::SETUID) {
        (new.ruid, new.suid) = (uid, uid);
    } else if uid != old.ruid && uid != old.suid {
        return Err(Errno::EPERM.into());
    }
    (new.euid, new.fsuid) = (uid, uid);
    new.fix_up_after_setuid(&old);
    task.commit_creds(new);
    Ok(0)
}

pub fn sys_setgid(task: &CurrentTask, gid: u32) -> SyscallResult {
    if gid == NONE {
        return Err(Errno::EINVAL.into());
    }
    let (old, mut new) = task.creds_to_change();
    if old.has(Caps::SETGID) {
        (new.rgid, new.sgid) = (gid, gid);
    } else if gid != old.rgid && gid != old.sgid {
        return Err(Errno::EPERM.into());
    }
    (new.egid, new.fsgid) = (gid, gid);
    task.commit_creds(new);
    Ok(0)
}

pub fn sys_setreuid(task: &CurrentTask, ruid: u32, euid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let privileged = old.has(Caps::SETUID);
    if ruid != NONE {
        new.ruid = ruid;
        if ruid != old.ruid && ruid != old.euid && !privileged {
            return Err(Errno::EPERM.into());
        }
    }
    if euid != NONE {
        new.euid = euid;
        if euid != old.ruid && euid != old.euid && euid != old.suid && !privileged {
            return Err(Errno::EPERM.into());
        }
    }
    if ruid != NONE || (euid != NONE && euid != old.ruid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    new.fix_up_after_setuid(&old);
    task.commit_creds(new);
    Ok(0)
}

pub fn sys_setregid(task: &CurrentTask, rgid: u32, egid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let privileged = old.has(Caps::SETGID);
    if rgid != NONE {
        new.rgid = rgid;
        if rgid != old.rgid && rgid != old.egid && !privileged {
            return Err(Errno::EPERM.into());
        }
    }
    if egid != NONE {
        new.egid = egid;
        if egid != old.rgid && egid != old.egid && egid != old.sgid && !privileged {
            return Err(Errno::EPERM.into());
        }
    }
    if rgid != NONE || (egid != NONE && egid != old.rgid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    task.commit_creds(new);
    Ok(0)
}

pub fn sys_setresuid(task: &CurrentTask, ruid: u32, euid: u32, suid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let known = |id: u32| id == NONE || id == old.ruid || id == old.euid || id == old.suid;
    let allowed = old.has(Caps::SETUID) || (known(ruid) && known(euid) && known(suid));
    if !allowed {
        return Err(Errno::EPERM.into());
    }
    if ruid != NONE {
        new.ruid = ruid;
    }
    if euid != NONE {
        new.euid = euid;
    }
    if suid != NONE {
        new.suid = suid;
    }
    new.fsuid = new.euid;
    new.fix_up_after_setuid(&old);
    task.commit_creds(new);
    Ok(0)
}

pub fn sys_setresgid(task: &CurrentTask, rgid: u32, egid: u32, sgid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let known = |id: u32| id == NONE || id == old.rgid || id == old.egid || id == old.sgid;
    let allowed = old.has(Caps::SETGID) || (known(rgid) && known(egid) && known(sgid));
    if !allowed {
        return Err(Errno::EPERM.into());
    }
    if rgid != NONE {
        new.rgid = rgid;
    }
    if egid != NONE {
        new.egid = egid;
    }
    if sgid != NONE {
        new.sgid = sgid;
    }
    new.fsgid = new.egid;
    task.commit_creds(new);
    Ok(0)
}

/// `setfsuid(2)`: answers the old id, and never fails.
pub fn sys_setfsuid(task: &CurrentTask, uid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let known = [old.ruid, old.euid, old.suid, old.fsuid].contains(&uid);
    if uid != NONE && (known || old.has(Caps::SETUID)) {
        new.fsuid = uid;
        new.fix_up_after_setfsuid(&old);
        task.commit_creds(new);
    }
    Ok(old.fsuid as usize)
}

/// `setfsgid(2)`: answers the old id, and never fails.
pub fn sys_setfsgid(task: &CurrentTask, gid: u32) -> SyscallResult {
    let (old, mut new) = task.creds_to_change();
    let known = [old.rgid, old.egid, old.sgid, old.fsgid].contains(&gid);
    if gid != NONE && (known || old.has(Caps::SETGID)) {
        new.fsgid = gid;
        task.commit_creds(new);
    }
    Ok(old.fsgid as usize)
}

pub fn sys_getgroups(task: &CurrentTask, size: i32, list: UserAddr) -> SyscallResult {
    let creds = task.creds();
    let count = creds.groups.len();
    if size < 0 {
        return Err(Errno::EINVAL.into());
    }
    if size != 0 {
        if count > size as usize {
            return Err(Errno::EINVAL.into());
        }
        task.write_array(list, &creds.groups)?;
    }
    Ok(count)
}

pub fn sys_setgroups(task: &CurrentTask, size: i32, list: UserAddr) -> SyscallResult {
    if !task.creds().has(Caps::SETGID) {
        return Err(Errno::EPERM.into());
    }
    if !(0..=MAX_GROUPS).contains(&size) {
        return Err(Errno::EINVAL.into());
    }
    let mut groups = task.read_array::<u32>(list, size as usize)?;
    if groups.contains(&NONE) {
        return Err(Errno::EINVAL.into());
    }
    groups.sort_unstable();
    let (_, mut new) = task.creds_to_change();
    new.groups = groups;
    task.commit_creds(new);
    Ok(0)
}

/// How many pairs of words a version has. An unknown one is answered with the newest, written back.
fn cap_words(task: &CurrentTask, header: UserAddr, version: u32) -> Result<usize, Errno> {
    match version {
        CAP_VERSION_1 => Ok(1),
        CAP_VERSION_2 | CAP_VERSION_3 => Ok(2),
        _ => {
            task.write_object(header, &CAP_VERSION_3)?;
            Err(Errno::EINVAL)
        }
    }
}

pub fn sys_capget(task: &CurrentTask, header: UserAddr, data: UserAddr) -> SyscallResult {
    let version = task.read_object::<u32>(header)?;
    let words = match cap_words(task, header, version) {
        // To ask for the version is no error.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        words => words?,
    };
    let pid = task.read_object::<CapHeader>(header)?.pid;
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = match pid {
        0 => task.creds(),
        pid => task.pids().task(pid).ok_or(Errno::ESRCH)?.creds(),
    };
    let half = |caps: Caps, i: usize| (caps.bits() >> (32 * i)) as u32;
    let all: Vec<CapData> = (0..words)
        .map(|i| CapData {
            effective: half(creds.effective, i),
            permitted: half(creds.permitted, i),
            inheritable: half(creds.inheritable, i),
        })
        .collect();
    if !data.is_null() {
        task.write_array(data, &all)?;
    }
    Ok(0)
}

pub fn sys_capset(task: &CurrentTask, header: UserAddr, data: UserAddr) -> SyscallResult {
    let version = task.read_object::<u32>(header)?;
    let words = cap_words(task, header, version)?;
    let pid = task.read_object::<CapHeader>(header)?.pid;
    if pid != 0 && pid != task.tid() {
        return Err(Errno::EPERM.into());
    }
    let data = task.read_array::<CapData>(data, words)?;
    let join = |pick: fn(&CapData) -> u32| {
        let bits = data.iter().enumerate().fold(0, |all, (i, d)| all | u64::from(pick(d)) << (32 * i));
        Caps::from_bits_truncate(bits)
    };
    let (old, mut new) = task.creds_to_change();
    new.effective = join(|d| d.effective);
    new.permitted = join(|d| d.permitted);
    new.inheritable = join(|d| d.inheritable);
    // As `cap_capset`: what may be added to each set.
    let may_inherit = old.inheritable | if old.has(Caps::SETPCAP) { Caps::all() } else { old.permitted };
    if !may_inherit.contains(new.inheritable)
        || !(old.inheritable | old.bounding).contains(new.inheritable)
        || !old.permitted.contains(new.permitted)
        || !new.permitted.contains(new.effective)
    {
        return Err(Errno::EPERM.into());
    }
    new.ambient &= new.permitted & new.inheritable;
    task.commit_creds(new);
    Ok(0)
}
