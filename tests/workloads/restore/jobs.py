# Processes of all sorts: stopped ones, one whose first thread has ended, one in the middle of vfork(2), a program that another
# thread's execve(2) has replaced; waits for a futex with an owner, and for several.
import signal, threading
from common import *

SYS_futex, SYS_futex_waitv, SYS_exit = 202, 449, 60
# A child that is stopped while it reads, and one whose stop nobody has been told of.
r, w = os.pipe()
# In a group of its own: in an orphaned one, a terminal's stop is not taken.
def reads(): os.setpgid(0, 0); return 4 if os.read(r, 1) == b'x' else 1
stopped, unseen = child(reads), child(reads)
wait_until('groups', lambda: all(os.getpgid(pid) == pid for pid in (stopped, unseen)))
os.kill(stopped, signal.SIGSTOP); os.waitpid(stopped, os.WUNTRACED)
os.kill(unseen, signal.SIGTSTP)
wait_until('stopped', lambda: state_of(unseen) == 'T')
# One that was stopped and went on, which nobody has been told of.
went_on = child(reads); os.kill(went_on, signal.SIGSTOP); os.waitpid(went_on, os.WUNTRACED); os.kill(went_on, signal.SIGCONT)
# A process without its first thread.
def leaderless():
    def other():
        result = reads()
        os._exit(result + 10)
    threading.Thread(target=other).start()
    call('syscall', SYS_exit, 0)
without = child(leaderless)
wait_until('the first thread ended', lambda: state_of(without) == 'Z')
# A parent in vfork(2) whose child has not come as far as execve(2): it opens a FIFO.
os.mkfifo('/tmp/vfork')
def spawns():
    act = [(os.POSIX_SPAWN_OPEN, 0, '/tmp/vfork', os.O_RDONLY, 0)]
    return ended(os.posix_spawn('/bin/sh', ['sh', '-c', 'read x; exit ${#x}'], {}, file_actions=act))
spawner = child(spawns)
# Futexes.
class Waitv(ctypes.Structure): _fields_ = [('val', ctypes.c_uint64), ('addr', ctypes.c_uint64), ('flags', ctypes.c_uint32), ('reserved', ctypes.c_uint32)]
words = (ctypes.c_uint32 * 8)()
def address(i): return ctypes.addressof(words) + 4 * i
def waits():
    several = (Waitv * 3)(*[Waitv(0, address(i), 2 | 128, 0) for i in (1, 2, 3)])
    results['waitv'] = call('syscall', SYS_futex_waitv, several, 3, 0, None, 0)
def owns():
    call('syscall', SYS_futex, ctypes.c_void_p(address(0)), 6 | 128, 0, None)
    tid = threading.get_native_id(); locked.set(); release.wait(); results['word'] = words[0] & 0x3fffffff == tid
    call('syscall', SYS_futex, ctypes.c_void_p(address(0)), 7 | 128, 0, None)
def wants():
    locked.wait(); call('syscall', SYS_futex, ctypes.c_void_p(address(0)), 6 | 128, 0, None)
    results['owned'] = words[0] & 0x3fffffff == threading.get_native_id()
    call('syscall', SYS_futex, ctypes.c_void_p(address(0)), 7 | 128, 0, None)
results, locked, release = {}, threading.Event(), threading.Event()
threads = [threading.Thread(target=t) for t in (waits, owns, wants, wants)]
for t in threads: t.start()
locked.wait(); time.sleep(0.1)

ready_and_go()

same('still stopped', [state_of(pid) for pid in (stopped, unseen)], ['T', 'T'])
same('told', os.WSTOPSIG(os.waitpid(unseen, os.WUNTRACED)[1]), signal.SIGTSTP)
same('told', os.WIFCONTINUED(os.waitpid(went_on, os.WCONTINUED)[1]), True)
same('not again', os.waitpid(stopped, os.WUNTRACED | os.WNOHANG), (0, 0))
os.kill(stopped, signal.SIGCONT); os.kill(unseen, signal.SIGCONT)
os.write(w, b'xxxx')
same('went on', [ended(pid) for pid in (stopped, unseen, went_on)], [4, 4, 4])
same('without its first thread', ended(without), 14)
with open('/tmp/vfork', 'w') as f: f.write('spawned\n')
same('vfork', ended(spawner), 7)
words[2] = 1; call('syscall', SYS_futex, ctypes.c_void_p(address(2)), 1 | 128, 1)
release.set()
for t in threads: t.join(20)
same('futexes', results, {'waitv': 1, 'word': True, 'owned': True})
same('free', words[0], 0)
finish()
