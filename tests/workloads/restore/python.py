# What a Python program has when it is checkpointed, and finds again: threads, servers, sockets of all kinds, epoll, shared
# memory, a child, a timer, an event loop. It waits for the file that its argument names.
import asyncio, http.server, mmap, os, select, signal, socket, sys, threading, time, queue, urllib.request, subprocess
go = sys.argv[1]
# Threads that wait for each other.
asked, answers = queue.Queue(), queue.Queue()
def worker(name):
    while True:
        answers.put((name, asked.get() * 2))
for i in range(8): threading.Thread(target=worker, args=(i,), daemon=True).start()
# A server in a thread.
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'served %d' % os.getpid())
    def log_message(self, *args): pass
    def handle(self):
        try: super().handle()
        except ConnectionResetError: pass # The other end of the connection that a restore resets.
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8123), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
# A TCP connection, which a restore resets.
lost = socket.create_connection(('127.0.0.1', 8123))
# Unix sockets: a pair with unread data, a listener by path and an abstract one.
a, b = socket.socketpair(); a.sendall(b'unread')
d1, d2 = socket.socketpair(type=socket.SOCK_DGRAM); d1.send(b'one'); d1.send(b'two')
path = socket.socket(socket.AF_UNIX); path.bind('/tmp/listener'); path.listen()
abstract = socket.socket(socket.AF_UNIX); abstract.bind('\0abstract'); abstract.listen()
half, gone = socket.socketpair(); gone.sendall(b'last'); gone.close()
udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 8124))
# epoll, level and edge, and what it watches.
r, w = os.pipe()
ep = select.epoll(); ep.register(r, select.EPOLLIN); ep.register(b, select.EPOLLIN | select.EPOLLET)
# Shared memory, with a child that waits.
shared = mmap.mmap(-1, 1 << 20); shared[0:5] = b'hello'
cr, cw = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(cw)
    os.read(cr, 1); shared[0:5] = b'child'; os._exit(7)
os.close(cr)
# Files without a name: one that never had one, a removed new one, a removed one of the image.
import tempfile
never = tempfile.TemporaryFile(); never.write(b'never named'); never.flush()
with open('/tmp/removed', 'w+b') as f: f.write(b'x' * 300000 + b'removed')
removed = open('/tmp/removed', 'rb'); os.remove('/tmp/removed')
lower = open('/etc/passwd', 'rb'); start = lower.read(4); os.remove('/etc/passwd')
# Locks: of a descriptor table, and of an open file.
import fcntl
locked = open('/tmp/locked', 'w+b'); fcntl.lockf(locked, fcntl.LOCK_EX, 10, 5)
flocked = open('/tmp/flocked', 'w+b'); fcntl.flock(flocked, fcntl.LOCK_EX)
def refused(f):
    try: f()
    except OSError: return True
def other():
    a, b = open('/tmp/locked', 'r+b'), open('/tmp/flocked', 'r+b')
    taken = refused(lambda: fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14))
    free = not refused(lambda: fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 15))
    return taken and free and refused(lambda: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB))
# A timer that is not due yet.
fired = []
signal.signal(signal.SIGALRM, lambda *_: fired.append(1)); signal.setitimer(signal.ITIMER_REAL, 1.5)
# asyncio in a thread.
loop = asyncio.new_event_loop(); threading.Thread(target=loop.run_forever, daemon=True).start()
async def later(): await asyncio.sleep(0.01); return 'async'
before = time.monotonic()
print('ready', flush=True)
while not os.path.exists(go): time.sleep(0.02)
assert time.monotonic() >= before
for i in range(20): asked.put(i)
print(sorted(answers.get()[1] for _ in range(20)))
print(urllib.request.urlopen('http://127.0.0.1:8123/').read())
try: lost.sendall(b'x'); print('sent', lost.recv(10))
except OSError as e: print(type(e).__name__)
print(b.recv(100), d2.recv(10), d2.recv(10), half.recv(10), half.recv(10))
for listener, name in ((path, '/tmp/listener'), (abstract, '\0abstract')):
    c = socket.socket(socket.AF_UNIX); c.connect(name); s, _ = listener.accept(); c.sendall(b'hi'); print(s.recv(9))
socket.socket(type=socket.SOCK_DGRAM).sendto(b'udp', ('127.0.0.1', 8124)); print(udp.recv(9))
os.write(w, b'x'); print((r, select.EPOLLIN) in ep.poll(1))
never.seek(0); removed.seek(300000); print(never.read(), removed.read(), start + lower.read(1), os.path.exists('/etc/passwd'))
probe = os.fork()
if probe == 0: os._exit(3 if other() else 4)
print('locks', os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]))
os.close(cw); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shared[0:5])
while not fired: time.sleep(0.01)
print('alarm', asyncio.run_coroutine_threadsafe(later(), loop).result())
print(subprocess.run(['/bin/echo', 'fork'], capture_output=True).stdout)
