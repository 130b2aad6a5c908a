//! Memory policies as Linux answers on a machine with one NUMA node: `mbind(2)`, `set_mempolicy(2)`, `get_mempolicy(2)`,
//! `set_mempolicy_home_node(2)`, `move_pages(2)`, `migrate_pages(2)`.
//!
//! A policy is checked as `mempolicy.c` checks it, remembered by the task or the VMA, and told back. Node 0 is all there is,
//! so that nothing has to be placed or moved.

use std::sync::Arc;

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};

use super::process_vm::may_attach;
use crate::syscalls::SyscallResult;
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, Task};

const DEFAULT: u16 = 0;
const PREFERRED: u16 = 1;
const BIND: u16 = 2;
const INTERLEAVE: u16 = 3;
const LOCAL: u16 = 4;
/// MPOL_PREFERRED_MANY is the last mode.
const MODES: u16 = 6;

const F_NUMA_BALANCING: u16 = 1 << 13;
const F_RELATIVE_NODES: u16 = 1 << 14;
const F_STATIC_NODES: u16 = 1 << 15;
const MODE_FLAGS: u16 = F_NUMA_BALANCING | F_RELATIVE_NODES | F_STATIC_NODES;

const MPOL_F_NODE: u64 = 1;
const MPOL_F_ADDR: u64 = 2;
const MPOL_F_MEMS_ALLOWED: u64 = 4;

const MPOL_MF_STRICT: u64 = 1;
const MPOL_MF_MOVE: u64 = 2;
const MPOL_MF_MOVE_ALL: u64 = 4;

/// Node numbers that Linux's x86-64 builds have room for; user space may pass masks of up to a page.
const MAX_NODES: u64 = 1024;
/// Pages that `move_pages` looks at between two copies.
const MOVE_CHUNK: usize = 512;

/// A memory policy: the mode with its flags, as user space passes it. Its nodes follow from it: node 0 or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemPolicy(u16);

impl MemPolicy {
    /// `mpol_new` and `mpol_set_nodemask`: what `mode` (flags apart) makes of `nodes`.
    fn new(mode: u16, flags: u16, nodes: Nodes) -> Result<MemPolicy, Errno> {
        let placed = flags & (F_STATIC_NODES | F_RELATIVE_NODES) != 0;
        match (mode, nodes.any) {
            (DEFAULT, false) => return Ok(MemPolicy::default()),
            (PREFERRED, false) if !placed => return Ok(MemPolicy(LOCAL)),
            (LOCAL, false) if !placed => return Ok(MemPolicy(LOCAL)),
            (DEFAULT | LOCAL, _) | (_, false) => return Err(Errno::EINVAL),
            _ => {}
        }
        // Relative nodes wrap around those there are.
        if !nodes.zero && flags & F_RELATIVE_NODES == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(MemPolicy(mode | flags))
    }
    /// As user space passes it.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }
    /// From [`MemPolicy::bits`]; `None` where there is no such mode.
    pub(crate) fn from_bits(bits: u16) -> Option<MemPolicy> {
        Some(MemPolicy(bits)).filter(|policy| policy.mode() < MODES)
    }
    fn mode(self) -> u16 {
        self.0 & !MODE_FLAGS
    }
    fn nodes(self) -> u64 {
        match self.mode() {
            DEFAULT | LOCAL => 0,
            _ => 1,
        }
    }
}

/// What of a node mask matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Nodes {
    any: bool,
    zero: bool,
}

/// `sanitize_mpol_flags`: mode and flags.
fn split_mode(raw: i32) -> Result<(u16, u16), Errno> {
    let raw = u16::try_from(raw).map_err(|_| Errno::EINVAL)?;
    let (mode, flags) = (raw & !MODE_FLAGS, raw & MODE_FLAGS);
    let both = F_STATIC_NODES | F_RELATIVE_NODES;
    if mode >= MODES || flags & both == both || (flags & F_NUMA_BALANCING != 0 && mode != BIND) {
        return Err(Errno::EINVAL);
    }
    Ok((mode, flags))
}

/// `get_nodes`: `maxnode` counts one bit more than there are.
fn read_nodes(task: &CurrentTask, mask: UserAddr, maxnode: u64) -> Result<Nodes, Errno> {
    let bits = maxnode.wrapping_sub(1);
    if bits == 0 || mask.is_null() {
        return Ok(Nodes::default());
    }
    if bits > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    let mut words: Vec<u64> = task.read_array(mask, bits.div_ceil(64) as usize)?;
    if let (Some(last), odd @ 1..) = (words.last_mut(), bits % 64) {
        *last &= (1 << odd) - 1;
    }
    if words.iter().skip((MAX_NODES / 64) as usize).any(|w| *w != 0) {
        return Err(Errno::EINVAL);
    }
    Ok(Nodes { any: words.iter().any(|w| *w != 0), zero: words.first().is_some_and(|w| w & 1 != 0) })
}

/// `copy_nodes_to_user`.
fn write_nodes(task: &CurrentTask, at: UserAddr, maxnode: u64, nodes: u64) -> Result<(), Errno> {
    let len = maxnode.wrapping_sub(1).div_ceil(64).saturating_mul(8);
    if len > PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len as usize];
    if let Some(first) = bytes.first_chunk_mut::<8>() {
        *first = nodes.to_ne_bytes();
    }
    Ok(task.write_bytes(at, &bytes)?)
}

/// `set_mempolicy(2)`.
pub fn sys_set_mempolicy(task: &CurrentTask, mode: i32, mask: UserAddr, maxnode: u64) -> SyscallResult {
    let (mode, flags) = split_mode(mode)?;
    let nodes = read_nodes(task, mask, maxnode)?;
    let policy = MemPolicy::new(mode, flags, nodes)?;
    task.state.lock().mem_policy = policy;
    Ok(0)
}

/// `get_mempolicy(2)`.
pub fn sys_get_mempolicy(
    task: &CurrentTask,
    mode: UserAddr,
    mask: UserAddr,
    maxnode: u64,
    addr: UserAddr,
    flags: u64,
) -> SyscallResult {
    if !mask.is_null() && maxnode < 1 {
        return Err(Errno::EINVAL.into());
    }
    if flags & !(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (shown, nodes) = if flags & MPOL_F_MEMS_ALLOWED != 0 {
        if flags & (MPOL_F_NODE | MPOL_F_ADDR) != 0 {
            return Err(Errno::EINVAL.into());
        }
        (0, 1)
    } else if flags & MPOL_F_ADDR != 0 {
        let mm = task.mm();
        let found = mm.read().tree.find(addr).map(|v| (v.policy, v.prot.any()));
        let (policy, reachable) = found.ok_or(Errno::EFAULT)?;
        if flags & MPOL_F_NODE == 0 {
            (i32::from(policy.0), policy.nodes())
        } else if reachable {
            (0, policy.nodes())
        } else {
            return Err(Errno::EFAULT.into());
        }
    } else {
        let policy = task.state.lock().mem_policy;
        if !addr.is_null() || (flags & MPOL_F_NODE != 0 && policy.mode() != INTERLEAVE) {
            return Err(Errno::EINVAL.into());
        }
        // The node of the next interleaved page is 0 too.
        (if flags & MPOL_F_NODE != 0 { 0 } else { i32::from(policy.0) }, policy.nodes())
    };
    if !mode.is_null() {
        task.write_object(mode, &shown)?;
    }
    if !mask.is_null() {
        write_nodes(task, mask, maxnode, nodes)?;
    }
    Ok(0)
}

/// `mbind(2)`.
pub fn sys_mbind(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    mode: i32,
    mask: UserAddr,
    maxnode: u64,
    flags: u64,
) -> SyscallResult {
    let (mode, mode_flags) = split_mode(mode)?;
    let nodes = read_nodes(task, mask, maxnode)?;
    if flags & !(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MPOL_MF_MOVE_ALL != 0 && !task.creds().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    if !addr.is_page_aligned() {
        return Err(Errno::EINVAL.into());
    }
    let range = range_of(addr, len)?;
    if range.is_empty() {
        return Ok(0);
    }
    let policy = MemPolicy::new(mode, mode_flags, nodes)?;
    let mm = task.mm();
    let mut inner = mm.write();
    // Holes are an error, but for the default policy, which skips them behind the first mapping.
    let first = inner.tree.find_from(range.start).is_some_and(|v| v.start() < range.end);
    if !first || (policy != MemPolicy::default() && !inner.tree.covers(range)) {
        return Err(Errno::EFAULT.into());
    }
    let parts: Vec<UserRange> =
        inner.tree.overlapping(range).filter_map(|v| v.range.intersect(range)).collect();
    for part in parts {
        inner.tree.update(part, |v| v.policy = policy);
    }
    Ok(0)
}

fn range_of(addr: UserAddr, len: u64) -> Result<UserRange, Errno> {
    // As in Linux, the very last page wraps to nothing.
    let len = len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    UserRange::new(addr, len).ok_or(Errno::EINVAL)
}

/// `set_mempolicy_home_node(2)`: for ranges that are bound or preferred.
pub fn sys_set_mempolicy_home_node(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    node: u64,
    flags: u64,
) -> SyscallResult {
    if !addr.is_page_aligned() || flags != 0 || node != 0 {
        return Err(Errno::EINVAL.into());
    }
    let range = range_of(addr, len)?;
    if range.is_empty() {
        return Ok(0);
    }
    let mut answer = Err(Errno::ENOENT);
    for vma in task.mm().read().tree.overlapping(range) {
        match vma.policy.mode() {
            DEFAULT => {}
            BIND | 5 => answer = Ok(0),
            _ => {
                answer = Err(Errno::EOPNOTSUPP);
                break;
            }
        }
    }
    Ok(answer?)
}

/// The task whose pages are meant; 0 is the caller.
fn target(task: &CurrentTask, pid: i32) -> Result<Arc<Task>, Errno> {
    let other = match pid {
        0 => task.task().clone(),
        pid => task.pids().task(pid).ok_or(Errno::ESRCH)?,
    };
    if may_attach(task, &other) { Ok(other) } else { Err(Errno::EPERM) }
}

/// `move_pages(2)`: a resident page is on node 0, and stays there.
pub fn sys_move_pages(
    task: &CurrentTask,
    pid: i32,
    count: u64,
    pages: UserAddr,
    nodes: UserAddr,
    status: UserAddr,
    flags: u32,
) -> SyscallResult {
    if u64::from(flags) & !(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if u64::from(flags) & MPOL_MF_MOVE_ALL != 0 && !task.creds().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let mm = target(task, pid)?.mm_opt().ok_or(Errno::EINVAL)?;
    let at = |base: UserAddr, size: u64, index: u64| {
        index.checked_mul(size).and_then(|by| base.checked_add(by)).ok_or(Errno::EFAULT)
    };
    let mut done = 0;
    while done < count {
        let n = ((count - done) as usize).min(MOVE_CHUNK);
        let addresses: Vec<u64> = task.read_array(at(pages, 8, done)?, n)?;
        if !nodes.is_null() {
            let wanted: Vec<i32> = task.read_array(at(nodes, 4, done)?, n)?;
            if wanted.iter().any(|node| *node != 0) {
                return Err(Errno::ENODEV.into());
            }
        }
        let found: Vec<i32> = addresses.iter().map(|addr| node_of(&mm, UserAddr(*addr))).collect();
        task.write_bytes(at(status, 4, done)?, zerocopy::IntoBytes::as_bytes(found.as_slice()))?;
        done += n as u64;
    }
    Ok(0)
}

/// 0, or why there is no page: EFAULT where nothing is mapped or has been touched.
fn node_of(mm: &super::MemoryManager, addr: UserAddr) -> i32 {
    let missing = -Errno::EFAULT.raw();
    let Some(range) = UserRange::new(addr.page_floor(), PAGE_SIZE) else { return missing };
    let mut resident = [false];
    match mm.resident(range, &mut resident) {
        Ok(()) if resident[0] => 0,
        _ => missing,
    }
}

/// `migrate_pages(2)`: from node 0 to node 0, all pages have moved.
pub fn sys_migrate_pages(
    task: &CurrentTask,
    pid: i32,
    maxnode: u64,
    old: UserAddr,
    new: UserAddr,
) -> SyscallResult {
    read_nodes(task, old, maxnode)?;
    let wanted = read_nodes(task, new, maxnode)?;
    target(task, pid)?.mm_opt().ok_or(Errno::EINVAL)?;
    if !wanted.zero {
        return Err(if wanted.any && !task.creds().has(Caps::SYS_NICE) {
            Errno::EPERM
        } else {
            Errno::EINVAL
        }
        .into());
    }
    Ok(0)
}
