# A process in every call that blocks: each finds, after a restore, what it waited for.
import fcntl, mmap, pty, select, signal, socket, struct, threading, tty
from common import *

waiting, triggers = {}, []
def on(name):
    """A child that sits in a call. It returns 0 (or nothing) where the call ended as it should."""
    def start(run): run.__name__ = name; waiting[name] = child(lambda: int(run() or 0))
    return start
def later(f): triggers.append(f)
def pipe():
    r, w = os.pipe(); later(lambda: os.write(w, b'go')); return r
class Timespec(ctypes.Structure): _fields_ = [('sec', ctypes.c_long), ('nsec', ctypes.c_long)]
def sigset(*signals):
    s = (ctypes.c_uint64 * 16)()
    for n in signals: s[0] |= 1 << n - 1
    return s
block = lambda *s: signal.pthread_sigmask(signal.SIG_BLOCK, s)
block(signal.SIGUSR1, signal.SIGUSR2)
started = time.monotonic()
LONG = 10.5 # Of what only waits: it ends after the restore.

# Reading.
r1 = pipe()
@on('read a pipe')
def _(): return os.read(r1, 10) != b'go'
r1b = pipe()
@on('readv a pipe')
def _(): b = bytearray(5); return os.readv(r1b, [b]) != 2
a, b = socket.socketpair(); later(lambda: b.send(b'go'))
@on('read a socket')
def _(): return os.read(a.fileno(), 10) != b'go'
m, s = pty.openpty(); later(lambda: os.write(m, b'go\n'))
@on('read a terminal')
def _(): return os.read(s, 10) != b'go\n'
m2, s2 = pty.openpty(); tty.setraw(s2); t = tty.tcgetattr(s2); t[6][tty.VMIN], t[6][tty.VTIME] = 4, 105; tty.tcsetattr(s2, 0, t); os.write(m2, b'a')
@on('read a terminal with a time')
def _(): return os.read(s2, 10) != b'a'
e = call('eventfd', 0, 0); later(lambda: os.write(e, struct.pack('Q', 5)))
@on('read an eventfd')
def _(): return os.read(e, 8) != struct.pack('Q', 5)
full = call('eventfd', 0, 0); os.write(full, struct.pack('Q', 2**64 - 2)); later(lambda: os.read(full, 8))
@on('write an eventfd')
def _(): return os.write(full, struct.pack('Q', 1)) != 8
tfd = call('timerfd_create', 1, 0); call('timerfd_settime', tfd, 0, (ctypes.c_long * 4)(0, 0, int(LONG), 0), None)
@on('read a timerfd')
def _(): return os.read(tfd, 8) != struct.pack('Q', 1) or time.monotonic() < started + int(LONG)
@on('read a signalfd')
def _():
    sfd = call('signalfd', -1, sigset(signal.SIGUSR1), 0); return struct.unpack('I', os.read(sfd, 128)[:4])[0] != signal.SIGUSR1
later(lambda: os.kill(waiting['read a signalfd'], signal.SIGUSR1))
# Writing.
def fill(fd):
    os.set_blocking(fd, False); n = 0
    try:
        while True: n += os.write(fd, b'z' * 4096)
    except BlockingIOError: os.set_blocking(fd, True); return n
def drain(fd, n):
    while n > 0: n -= len(os.read(fd, min(n, 65536)))
fr, fw = os.pipe(); fn = fill(fw); later(lambda: drain(fr, fn + 100000))
@on('write a pipe')
def _(): return os.write(fw, b'y' * 100000) != 100000
sa, sb = socket.socketpair(); sn = fill(sa.fileno()); later(lambda: drain(sb.fileno(), sn + 5))
@on('send')
def _(): return sa.send(b'hello') != 5
gr, gw = os.pipe(); gn = fill(gw); f = open('/tmp/source', 'w+b'); f.write(b'q' * 5000); f.flush(); later(lambda: drain(gr, gn + 5000))
@on('sendfile')
def _(): return os.sendfile(gw, f.fileno(), 0, 5000) not in (4096, 5000) or os.write(gw, b'q' * 904) * 0
sr, (pr, pw) = pipe(), os.pipe()
@on('splice')
def _(): return os.splice(sr, pw, 10) != 2 or os.read(pr, 10) != b'go'
tr, (qr, qw) = pipe(), os.pipe()
@on('tee')
def _(): return call('tee', tr, qw, ctypes.c_size_t(10), 0) != 2 or os.read(qr, 10) != b'go'
# Sockets.
tcp = socket.create_server(('127.0.0.1', 7001)); keep = []
later(lambda: keep.append(socket.create_connection(('127.0.0.1', 7001))))
@on('accept')
def _(): return tcp.accept()[1][0] != '127.0.0.1'
u = socket.socket(socket.AF_UNIX); u.bind('\0accept'); u.listen(); c = socket.socket(socket.AF_UNIX); later(lambda: c.connect('\0accept'))
@on('accept, Unix')
def _(): return u.accept()[1] != ''
udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 7002)); later(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'go', ('127.0.0.1', 7002)))
@on('recvfrom')
def _(): return udp.recvfrom(10)[0] != b'go'
d1, d2 = socket.socketpair(type=socket.SOCK_DGRAM); later(lambda: d2.send(b'go'))
@on('recvmsg')
def _(): return d1.recvmsg(10)[0] != b'go'
w1, w2 = socket.socketpair(); w2.send(b'half'); later(lambda: w2.send(b'rest'))
@on('recv, MSG_WAITALL')
def _(): return w1.recv(8, socket.MSG_WAITALL) != b'halfrest'
lim, _lim = socket.socketpair(); lim.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', int(LONG), 0))
@on('recv, SO_RCVTIMEO')
def _():
    try: lim.recv(1); return 1
    except BlockingIOError: return time.monotonic() < started + LONG - 1
# Several.
p1, p2, p3, p4, p5 = (pipe() for _ in range(5))
@on('poll')
def _(): p = select.poll(); p.register(p1, 1); return p.poll() != [(p1, 1)]
@on('poll with a time')
def _(): p = select.poll(); p.register(fr, 8); return p.poll(LONG * 1000) != [] or time.monotonic() < started + LONG
@on('ppoll, interrupted')
def _():
    got = []; signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    result = libc.ppoll(None, 0, None, sigset()); time.sleep(0)
    return result != -1 or ctypes.get_errno() != 4 or not got
later(lambda: os.kill(waiting['ppoll, interrupted'], signal.SIGUSR1))
@on('select')
def _(): return select.select([p2], [], []) != ([p2], [], [])
@on('select with a time')
def _(): return select.select([], [], [], LONG) != ([], [], []) or time.monotonic() < started + LONG
@on('epoll_wait')
def _(): ep = select.epoll(); ep.register(p3, 1); return ep.poll() != [(p3, 1)]
ep = select.epoll(); ep.register(p4, 1)
@on('epoll_wait, shared')
def _(): return ep.poll() != [(p4, 1)]
# Time.
@on('nanosleep')
def _(): call('nanosleep', ctypes.byref(Timespec(int(LONG), int(LONG % 1 * 1e9))), None); return time.monotonic() < started + LONG
@on('clock_nanosleep, absolute')
def _():
    at = started + LONG; call('clock_nanosleep', 1, 1, ctypes.byref(Timespec(int(at), int(at % 1 * 1e9))), None); return time.monotonic() < at
@on('clock_nanosleep, interrupted')
def _():
    signal.signal(signal.SIGUSR1, lambda *_: None); signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    left = Timespec(); result = libc.clock_nanosleep(1, 0, ctypes.byref(Timespec(1000, 0)), ctypes.byref(left))
    return result != 4 or not 900 < left.sec < 1000
later(lambda: os.kill(waiting['clock_nanosleep, interrupted'], signal.SIGUSR1))
@on('clock_nanosleep of processor time')
def _():
    def burn(): 
        burned = time.process_time() + 0.3; burn_go.wait()
        while time.process_time() < burned + 0.3: pass
    burn_go = threading.Event(); threading.Thread(target=burn, daemon=True).start()
    threading.Timer(LONG, burn_go.set).start()
    at = time.process_time() + 0.3; call('clock_nanosleep', 2, 1, ctypes.byref(Timespec(0, int(at * 1e9))), None); return time.process_time() < at
# Signals and children.
@on('pause')
def _(): signal.signal(signal.SIGUSR2, lambda *_: None); signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2]); signal.pause(); return 0
later(lambda: os.kill(waiting['pause'], signal.SIGUSR2))
@on('sigsuspend')
def _():
    got = []; signal.signal(signal.SIGUSR2, lambda *_: got.append(1)); libc.sigsuspend(sigset()); time.sleep(0)
    return not got or signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
later(lambda: os.kill(waiting['sigsuspend'], signal.SIGUSR2))
@on('sigwaitinfo')
def _(): return signal.sigwaitinfo([signal.SIGUSR1]).si_pid != os.getppid()
later(lambda: os.kill(waiting['sigwaitinfo'], signal.SIGUSR1))
@on('sigtimedwait')
def _(): return signal.sigtimedwait([signal.SIGUSR1], LONG) is not None or time.monotonic() < started + LONG
p6, p7 = pipe(), pipe()
@on('wait4')
def _(): pid = child(lambda: os.read(p6, 1) and 3); return os.wait4(pid, 0)[1] != 3 << 8
@on('waitid')
def _(): pid = child(lambda: os.read(p7, 1) and 4); return os.waitid(os.P_PID, pid, os.WEXITED).si_status != 4
# Locks.
lock = open('/tmp/lock', 'w+b'); flocked = open('/tmp/flock', 'w+b'); ofd = open('/tmp/ofd', 'w+b')
fcntl.lockf(lock, fcntl.LOCK_EX); fcntl.flock(flocked, fcntl.LOCK_EX)
flock64 = lambda kind: struct.pack('hhqqi4x', kind, 0, 0, 0, 0)
fcntl.fcntl(ofd, 37, flock64(fcntl.F_WRLCK))
@on('flock')
def _():
    with open('/tmp/flock') as x: fcntl.flock(x, fcntl.LOCK_EX)
@on('F_SETLKW')
def _(): fcntl.lockf(lock, fcntl.LOCK_EX)
@on('F_OFD_SETLKW')
def _():
    with open('/tmp/ofd', 'r+b') as x: fcntl.fcntl(x, 38, flock64(fcntl.F_WRLCK))
later(lambda: fcntl.lockf(lock, fcntl.LOCK_UN)); later(lambda: fcntl.flock(flocked, fcntl.LOCK_UN)); later(lambda: fcntl.fcntl(ofd, 37, flock64(fcntl.F_UNLCK)))
# FIFOs.
os.mkfifo('/tmp/reads'); os.mkfifo('/tmp/writes')
@on('open a FIFO to read')
def _(): return open('/tmp/reads').read() != 'go'
@on('open a FIFO to write')
def _():
    with open('/tmp/writes', 'w') as x: x.write('go')
def fifos():
    with open('/tmp/reads', 'w') as x: x.write('go')
    with open('/tmp/writes') as x: same('FIFO', x.read(), 'go')
later(fifos)
# Futexes, in memory of one's own and shared.
shared = mmap.mmap(-1, 4096); at = ctypes.addressof(ctypes.c_char.from_buffer(shared))
def futex(*args): return libc.syscall(202, *args)
@on('futex, shared')
def _(): return futex(ctypes.c_void_p(at), 0, 0, None)
@on('futex with bits')
def _(): return futex(ctypes.c_void_p(at + 4), 9, 0, None, None, 6)
@on('futex with a time')
def _(): return futex(ctypes.c_void_p(at + 8), 0, 0, ctypes.byref(Timespec(int(LONG), 0))) != -1 or ctypes.get_errno() != 110
def wakes():
    shared[0] = 1; same('woken', futex(ctypes.c_void_p(at), 1, 1), 1); shared[4] = 1; same('bits', (futex(ctypes.c_void_p(at + 4), 10, 1, None, None, 1), futex(ctypes.c_void_p(at + 4), 10, 1, None, None, 4)), (0, 1))
later(wakes)
@on('a thread that is waited for')
def _(): x = threading.Thread(target=lambda: os.read(p5, 2)); x.start(); x.join()
watch = call('inotify_init1', 0); call('inotify_add_watch', watch, b'/tmp', 0x100); later(lambda: open('/tmp/new file', 'w').close())
@on('read an inotify')
def _(): return b'new file' not in os.read(watch, 4096)

wait_until('all wait', lambda: all(state_of(p) == 'S' for p in waiting.values()))
time.sleep(0.2)
early = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
if early: wrong.append(f'{[n for n, p in waiting.items() if p == early.si_pid]} did not wait: {early.si_status}')

ready_and_go()

for f in triggers: f()
left = dict(waiting)
def reap():
    for name, pid in list(left.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: del left[name]; same(name, status, 0)
    return not left
wait_until('all end', reap, 25)
if left: wrong.append(f'still waiting: {list(left)}')
print(len(waiting), 'calls', file=sys.stderr)
finish()
