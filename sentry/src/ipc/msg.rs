//! System V message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use std::collections::VecDeque;
use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, Object, Owner, Perm64, READ, WRITE, now};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::{Blocked, OnSignal, SyscallResult, WakeReason};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

/// MSGMAX, MSGMNB, MSGMNI.
pub(super) const MAX_SIZE: usize = 8192;
const MAX_BYTES: u64 = 16384;
const MAX_QUEUES: usize = 32000;

const MSG_NOERROR: u32 = 0o10000;
const MSG_EXCEPT: u32 = 0o20000;
const MSG_COPY: u32 = 0o40000;

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

/// What all messages of a container may take, each with [`OVERHEAD`]: beyond it, ENOMEM.
const MEMORY: u64 = 256 << 20;
pub(super) const OVERHEAD: u64 = 64;

#[derive(Debug)]
pub(super) struct Message {
    pub kind: i64,
    pub text: Vec<u8>,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct MsgQueue {
    pub(super) owner: Owner,
    pub(super) messages: VecDeque<Message>,
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) stime: i64,
    pub(super) rtime: i64,
    pub(super) ctime: i64,
    pub(super) last_sender: i32,
    pub(super) last_receiver: i32,
    /// Notified of messages (`IN`) and of room (`OUT`).
    pub(super) changed: Arc<WaitQueue>,
}

impl Object for MsgQueue {
    const LIMIT: usize = MAX_QUEUES;
    fn owner(&self) -> &Owner {
        &self.owner
    }
    fn check_size(&self, _size: u64) -> Result<(), Errno> {
        Ok(())
    }
}

/// `struct msqid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MsqidDs {
    perm: Perm64,
    stime: i64,
    rtime: i64,
    ctime: i64,
    cbytes: u64,
    qnum: u64,
    qbytes: u64,
    lspid: i32,
    lrpid: i32,
    unused: [u64; 2],
}

impl MsgQueue {
    /// The message that `msgrcv(2)` would take.
    fn find(&self, kind: i64, except: bool) -> Option<usize> {
        let mut messages = self.messages.iter();
        match kind {
            0 => messages.next().map(|_| 0),
            kind if kind > 0 => messages.position(|m| (m.kind == kind) != except),
            _ => {
                let most = kind.checked_neg().unwrap_or(i64::MAX);
                let lowest = self.messages.iter().map(|m| m.kind).filter(|k| *k <= most).min()?;
                messages.position(|m| m.kind == lowest)
            }
        }
    }
}

/// `msgget(2)`.
pub fn sys_msgget(task: &CurrentTask, key: i32, flags: u32) -> SyscallResult {
    let creds = task.creds();
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    Ok(objects.queues.find_or_make(&creds, key, flags, 0, |owner| {
        Ok(MsgQueue {
            owner,
            messages: VecDeque::new(),
            bytes: 0,
            max_bytes: MAX_BYTES,
            stime: 0,
            rtime: 0,
            ctime,
            last_sender: 0,
            last_receiver: 0,
            changed: WaitQueue::new(),
        })
    })?)
}

/// The queue, which may have gone while the caller waited.
fn queue<'a>(
    task: &CurrentTask,
    objects: &'a mut super::Objects,
    id: i32,
) -> Result<&'a mut MsgQueue, Errno> {
    let gone = if task.wake_reason() == WakeReason::First { Errno::EINVAL } else { Errno::EIDRM };
    objects.queues.get(id).map_err(|e| if e == Errno::EIDRM { e } else { gone })
}

/// `msgsnd(2)`.
pub fn sys_msgsnd(task: &CurrentTask, id: i32, msg: UserAddr, size: i64, flags: u32) -> SyscallResult {
    let kind = task.read_object::<i64>(msg)?;
    let size = usize::try_from(size).ok().filter(|n| *n <= MAX_SIZE && id >= 0).ok_or(Errno::EINVAL)?;
    if kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let text: Vec<u8> = task.read_array(msg.checked_add(8).ok_or(Errno::EFAULT)?, size)?;
    let creds = task.creds();
    let (pid, stime) = (task.group().pid(), now(task));
    let mut objects = task.container().ipc.lock();
    let taken = objects.message_bytes;
    let queue = queue(task, &mut objects, id)?;
    queue.owner.check(&creds, WRITE)?;
    let fits =
        size as u64 + queue.bytes <= queue.max_bytes && (queue.messages.len() as u64) < queue.max_bytes;
    if !fits {
        if flags & IPC_NOWAIT != 0 {
            return Err(Errno::EAGAIN.into());
        }
        return Err(wait(queue, Events::OUT));
    }
    let cost = size as u64 + OVERHEAD;
    if taken + cost > MEMORY {
        return Err(Errno::ENOMEM.into());
    }
    queue.messages.push_back(Message { kind, text });
    queue.bytes += size as u64;
    (queue.last_sender, queue.stime) = (pid, stime);
    queue.changed.notify(Events::IN);
    objects.message_bytes = taken + cost;
    Ok(0)
}

fn wait(queue: &MsgQueue, events: Events) -> crate::syscalls::SyscallError {
    Blocked::on(queue.changed.clone(), events).on_signal(OnSignal::RestartNoHandler).into()
}

/// `msgrcv(2)`.
pub fn sys_msgrcv(
    task: &CurrentTask,
    id: i32,
    msg: UserAddr,
    size: i64,
    kind: i64,
    flags: u32,
) -> SyscallResult {
    let size = usize::try_from(size).ok().filter(|_| id >= 0).ok_or(Errno::EINVAL)?;
    if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0 {
            return Err(Errno::EINVAL.into());
        }
        task.kernel().log_unsupported("msgrcv: MSG_COPY", Errno::ENOSYS);
        return Err(Errno::ENOSYS.into());
    }
    let creds = task.creds();
    let (pid, rtime) = (task.group().pid(), now(task));
    let message = {
        let mut objects = task.container().ipc.lock();
        let queue = queue(task, &mut objects, id)?;
        queue.owner.check(&creds, READ)?;
        let Some(index) = queue.find(kind, flags & MSG_EXCEPT != 0) else {
            if flags & IPC_NOWAIT != 0 {
                return Err(Errno::ENOMSG.into());
            }
            return Err(wait(queue, Events::IN));
        };
        if queue.messages[index].text.len() > size && flags & MSG_NOERROR == 0 {
            return Err(Errno::E2BIG.into());
        }
        let message = queue.messages.remove(index).ok_or(Errno::ENOMSG)?;
        queue.bytes -= message.text.len() as u64;
        (queue.last_receiver, queue.rtime) = (pid, rtime);
        queue.changed.notify(Events::OUT);
        objects.message_bytes -= message.text.len() as u64 + OVERHEAD;
        message
    };
    // As in Linux, a message that cannot be written is lost.
    let text = &message.text[..message.text.len().min(size)];
    task.write_object(msg, &message.kind)?;
    task.write_bytes(msg.checked_add(8).ok_or(Errno::EFAULT)?, text)?;
    Ok(text.len())
}

/// `msgctl(2)`.
pub fn sys_msgctl(task: &CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = task.creds();
    let new = if command == IPC_SET { Some(task.read_object::<MsqidDs>(buf)?) } else { None };
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    let queues = &mut objects.queues;
    match command {
        IPC_INFO | MSG_INFO => {
            let messages: usize = queues.iter().map(|(_, q)| q.messages.len()).sum();
            let bytes: u64 = queues.iter().map(|(_, q)| q.bytes).sum();
            let used = if command == MSG_INFO {
                [queues.len() as i32, messages as i32, bytes as i32]
            } else {
                // msgpool, msgmap, and msgtql below, as Linux makes them up.
                [MAX_QUEUES as i32 * 16, MAX_BYTES as i32, MAX_BYTES as i32]
            };
            // msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg.
            let answer =
                [used[0], used[1], MAX_SIZE as i32, MAX_BYTES as i32, MAX_QUEUES as i32, 16, used[2], 0xffff];
            let highest = queues.highest();
            drop(objects);
            task.write_object(buf, &answer)?;
            Ok(highest)
        }
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let (id, queue) = match command {
                IPC_STAT => (id, queues.get(id)?),
                _ => queues.at_place(id)?,
            };
            if command != MSG_STAT_ANY {
                queue.owner.check(&creds, READ)?;
            }
            let answer = MsqidDs {
                perm: queue.owner.to_perm(id),
                stime: queue.stime,
                rtime: queue.rtime,
                ctime: queue.ctime,
                cbytes: queue.bytes,
                qnum: queue.messages.len() as u64,
                qbytes: queue.max_bytes,
                lspid: queue.last_sender,
                lrpid: queue.last_receiver,
                ..MsqidDs::default()
            };
            drop(objects);
            task.write_object(buf, &answer)?;
            Ok(if command == IPC_STAT { 0 } else { id as usize })
        }
        IPC_SET => {
            let queue = queues.get(id)?;
            queue.owner.check_control(&creds)?;
            if let Some(new) = &new {
                if new.qbytes > MAX_BYTES && !creds.has(Caps::SYS_RESOURCE) {
                    return Err(Errno::EPERM.into());
                }
                queue.owner.set(&new.perm);
                queue.max_bytes = new.qbytes;
            }
            queue.ctime = ctime;
            queue.changed.notify(Events::all());
            Ok(0)
        }
        IPC_RMID => {
            queues.get(id)?.owner.check_control(&creds)?;
            if let Some(queue) = queues.remove(id) {
                queue.changed.notify(Events::all());
                objects.message_bytes -= queue.bytes + queue.messages.len() as u64 * OVERHEAD;
            }
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
