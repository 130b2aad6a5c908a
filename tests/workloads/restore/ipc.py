# System V objects: segments (attached, removed), sets of semaphores with who waits and what is to be undone, queues of messages.
from common import *

IPC_CREAT, IPC_RMID, IPC_NOWAIT, SEM_UNDO, SETVAL, GETVAL, GETNCNT = 0o1000, 0, 0o4000, 0x1000, 16, 12, 14
libc.shmat.restype = ctypes.c_void_p; libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]; libc.shmdt.argtypes = [ctypes.c_void_p]
class Sembuf(ctypes.Structure): _fields_ = [('num', ctypes.c_ushort), ('op', ctypes.c_short), ('flg', ctypes.c_short)]
def semop(sem, *ops): call('semop', sem, (Sembuf * len(ops))(*[Sembuf(*op) for op in ops]), ctypes.c_size_t(len(ops)))
class Message(ctypes.Structure): _fields_ = [('kind', ctypes.c_long), ('text', ctypes.c_char * 100)]
def send(queue, kind, text): call('msgsnd', queue, ctypes.byref(Message(kind, text)), ctypes.c_size_t(len(text)), 0)
def receive(queue, kind, flags=0):
    m = Message(); n = call('msgrcv', queue, ctypes.byref(m), ctypes.c_size_t(100), ctypes.c_long(kind), flags); return m.kind, m.text[:n]

key = 0x51ab
shm = call('shmget', key, ctypes.c_size_t(100000), IPC_CREAT | 0o600); at = libc.shmat(shm, None, 0)
ctypes.memmove(at + 90000, b'segment', 7)
removed = call('shmget', 0, ctypes.c_size_t(5000), 0o600); at2 = libc.shmat(removed, None, 0); ctypes.memmove(at2, b'removed', 7); call('shmctl', removed, IPC_RMID, None)
lonely = call('shmget', 0, ctypes.c_size_t(5000), 0o600); at3 = libc.shmat(lonely, None, 0); ctypes.memmove(at3, b'lonely', 6); libc.shmdt(at3)
sem = call('semget', key, 3, IPC_CREAT | 0o600); call('semctl', sem, 1, SETVAL, 5)
r, w = os.pipe()
def undoes(): semop(sem, (1, -2, SEM_UNDO)); os.read(r, 1)
def waits(): semop(sem, (0, -1, 0)); return 3
def attached(): os.read(r, 1); ctypes.memmove(at + 5, b'child', 5)
undoer, waiter, other = child(undoes), child(waits), child(attached)
queue = call('msgget', key, IPC_CREAT | 0o600); send(queue, 2, b'two'); send(queue, 1, b'one')
def gets(): return 0 if receive(queue, 7) == (7, b'seven') else 1
getter = child(gets)
old = call('msgget', 0, 0o600); call('msgctl', old, IPC_RMID, None)
wait_until('the waiter waits', lambda: call('semctl', sem, 0, GETNCNT) == 1)
wait_until('the undoer has', lambda: call('semctl', sem, 1, GETVAL) == 3)
time.sleep(0.05)

ready_and_go()

same('segment', ctypes.string_at(at + 90000, 7), b'segment')
same('ids', (call('shmget', key, ctypes.c_size_t(0), 0), call('semget', key, 0, 0), call('msgget', key, 0)), (shm, sem, queue))
same('removed', ctypes.string_at(at2, 7), b'removed')
at3 = libc.shmat(lonely, None, 0); same('lonely', ctypes.string_at(at3, 6), b'lonely')
wait_until('the waiter waits again', lambda: call('semctl', sem, 0, GETNCNT) == 1)
semop(sem, (0, 1, 0)); same('waiter', ended(waiter), 3)
os.write(w, b'xx'); same('children', (ended(undoer), ended(other)), (0, 0))
same('undone', call('semctl', sem, 1, GETVAL), 5)
same('shared', ctypes.string_at(at + 5, 5), b'child')
send(queue, 7, b'seven'); same('getter', ended(getter), 0)
same('messages', (receive(queue, 0), receive(queue, 0)), ((2, b'two'), (1, b'one')))
libc.shmdt(at2)
try: call('shmctl', removed, 2, (ctypes.c_char * 200)()); wrong.append('a removed segment is there')
except OSError as e: same('removed', e.errno in (22, 43), True)
new = call('msgget', 0, 0o600); same('a new number', new != old, True)
call('shmctl', shm, IPC_RMID, None); call('shmctl', lonely, IPC_RMID, None); call('semctl', sem, 0, IPC_RMID); call('msgctl', queue, IPC_RMID, None); call('msgctl', new, IPC_RMID, None)
finish()
