# Several processes and threads that are never idle, and check all the time that nothing is lost: numbers go around a ring of
# processes by pipes and sockets, threads hand each other work, a file is rewritten and read, children are born and die. Is
# checkpointed at random moments. Ends when the file exists that its argument names.
import os, queue, signal, socket, sys, threading, time

go, checked = sys.argv[1], [0] * 5
def stop(why): os.write(2, f'{os.getpid()}: {why}\n'.encode()); os._exit(1)
def check(ok, why):
    if not ok: stop(why)
def forever(step, i):
    def run():
        try:
            while True: step(); checked[i] += 1
        except BaseException as e: stop(f'{step.__name__}: {e!r}')
    threading.Thread(target=run, daemon=True).start()

def whole(fd, n):
    data = b''
    while len(data) < n:
        piece = os.read(fd, n - len(data)); check(piece, 'a channel ended'); data += piece
    return data

# A ring: we, a child behind a pipe, a child behind a socket pair.
def relay(source, sink):
    while True:
        n = int.from_bytes(whole(source, 8), 'little'); os.write(sink, (n + 1).to_bytes(8, 'little'))
r1, w1 = os.pipe(); s1, s2 = socket.socketpair(); r3, w3 = os.pipe()
for source, sink in ((r1, s1.fileno()), (s2.fileno(), w3)):
    if os.fork() == 0: relay(source, sink)
at = [0]
def ring():
    os.write(w1, at[0].to_bytes(8, 'little'))
    n = int.from_bytes(whole(r3, 8), 'little'); check(n == at[0] + 2, f'the ring: {n} after {at[0]}'); at[0] = n

work, done = queue.Queue(), queue.Queue()
def worker():
    n = work.get(); time.sleep(0.0005); done.put(n * n)
def boss():
    for i in range(10): work.put(i)
    check(sorted(done.get() for _ in range(10)) == [i * i for i in range(10)], 'the threads')
def file():
    text = str(time.monotonic_ns()) * 50
    with open('/tmp/file', 'w') as f: f.write(text)
    with open('/tmp/file') as f: check(f.read() == text, 'the file')
def births():
    pid = os.fork()
    if pid == 0: os._exit(pid & 0x7f | 5)
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5, 'a child')
last = [time.monotonic()]
def clock():
    now = time.monotonic(); check(now >= last[0], 'the clock went back'); last[0] = now; time.sleep(0.001)

for i, step in enumerate((ring, boss, file, births, clock)): forever(step, i)
for _ in range(3): threading.Thread(target=lambda: [worker() for _ in iter(int, 1)], daemon=True).start()
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
print('ready', flush=True)
while not os.path.exists(go): time.sleep(0.005)
for what in range(5):
    before = checked[what]
    while checked[what] < before + 3: time.sleep(0.001)
check(len(ticks) > 3, 'no ticks')
print('ok', flush=True)
os._exit(0)
