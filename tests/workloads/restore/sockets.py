# Unix sockets: options, descriptors under way (sockets that hold each other among them), connections that nobody has accepted,
# senders that wait for room, datagrams with their senders' names; netlink sockets.
import array, signal, socket, struct
from common import *

def send(s, data, *files): s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f if isinstance(f, int) else f.fileno() for f in files]))])
def receive(s):
    data, control, *_ = s.recvmsg(100, 1000)
    fds = array.array('i')
    for level, kind, value in control:
        if kind == socket.SCM_RIGHTS: fds.frombytes(value[:len(value) - len(value) % 4])
    return data, list(fds)
# Options.
a, b = socket.socketpair()
a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000); a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 7))
a.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3); b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
def options(): return [a.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_SNDBUF, socket.SO_PRIORITY)] + [a.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8), b.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)]
before = options()
# Under way: a pipe's end, the only descriptor of a memfd, a socket with data of its own.
c, d = socket.socketpair()
r, w = os.pipe(); mem = os.memfd_create('under way'); os.write(mem, b'contents')
e, f = socket.socketpair(); e.sendall(b'inside')
send(c, b'x', w, mem, f); os.close(w); os.close(mem); f.close()
send(c, b'y', c)
# Two that are only under way to each other.
g, h = socket.socketpair(); send(g, b'g', g); send(h, b'h', h); g.close(); h.close()
# Connections that wait: with data, with a descriptor, of somebody who has gone.
listener = socket.socket(socket.AF_UNIX); listener.bind('/tmp/listener'); listener.listen(5)
clients = []
for i in range(3):
    s = socket.socket(socket.AF_UNIX); s.connect('/tmp/listener'); s.sendall(b'client %d' % i); clients.append(s)
send(clients[1], b'!', r); clients[2].close()
credentials = clients[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
# A listener that takes no more, with somebody who waits.
full = socket.socket(socket.AF_UNIX); full.bind('\0full'); full.listen(0)
first = socket.socket(socket.AF_UNIX); first.connect('\0full')
def connects():
    s = socket.socket(socket.AF_UNIX); s.connect('\0full'); return 0 if s.recv(10) == b'at last' else 1
waiter = child(connects)
# A stream that is full.
m, n = socket.socketpair(); m.setblocking(False); filled = 0
try:
    while True: filled += m.send(b'z' * 1000)
except BlockingIOError: pass
m.setblocking(True)
def sends(): m.sendall(b'the rest'); return 0
sender = child(sends)
# Datagrams with names, and a sender that waits for room with the receiver.
inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); inbox.bind('/tmp/inbox')
named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); named.bind('\0sender'); named.connect('/tmp/inbox')
for i in range(11): named.send(b'%d' % i)
def datagram(): named.send(b'last'); return 0
dsender = child(datagram)
# An error that nobody has seen: of a peer that closed with something unread.
i, j = socket.socketpair(); i.sendall(b'unread'); j.close()
seq1, seq2 = socket.socketpair(type=socket.SOCK_SEQPACKET); seq1.send(b'one'); seq1.send(b'two')
# Netlink: an answer that is there.
nl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); nl.bind((0, 0)); nl.setsockopt(270, 10, 1)
def ask(): nl.send(struct.pack('=IHHIIB3x', 20, 18, 0x301, 42, 0, 0))
ask(); name = nl.getsockname()
time.sleep(0.1)

ready_and_go()

same('options', options(), before)
data, (w2, mem2, f2) = receive(d)
same('under way', (data, os.pread(mem2, 100, 0)), (b'x', b'contents'))
f2 = socket.socket(fileno=f2); same('inside', f2.recv(10), b'inside'); f2.sendall(b'back'); same('back', e.recv(10), b'back')
data, (c2,) = receive(d); os.write(c2, b'itself'); same('itself', d.recv(10), b'itself')
os.write(w2, b'pipe')
for k in range(3):
    s, peer = listener.accept()
    same('peer', peer, '')
    if k == 1:
        data, fds = receive(s); same('with it', (data, fds != [] and os.read(fds[0], 10)), (b'client 1!', b'pipe')) if fds else (same('first', data, b'client 1'), (lambda x: same('with it', (x[0], os.read(x[1][0], 10)), (b'!', b'pipe')))(receive(s)))
    else: same('client', s.recv(100), b'client %d' % k)
    if k == 0: s.sendall(b'hi'); same('answer', clients[0].recv(10), b'hi'); same('credentials', s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], struct.pack('i', os.getpid()))
    if k == 2: same('gone', s.recv(10), b'')
same('credentials', clients[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12), credentials)
full.accept(); s, _ = full.accept(); s.sendall(b'at last'); same('waiter', ended(waiter), 0)
n.setblocking(False); seen = b''
def drained():
    global seen
    try: seen += n.recv(100000)
    except BlockingIOError: pass
    return seen.endswith(b'the rest')
wait_until('the rest', drained); same('all', (len(seen), ended(sender)), (filled + 8, 0))
same('datagrams', [inbox.recvfrom(100) for _ in range(12)], [(b'%d' % i, b'\0sender') for i in range(11)] + [(b'last', b'\0sender')])
same('sender', ended(dsender), 0)
try: i.recv(10); wrong.append('no error')
except ConnectionResetError: pass
same('packets', (seq2.recv(10), seq2.recv(10)), (b'one', b'two'))
def links():
    names, done = [], False
    while not done:
        data = nl.recv(65536)
        while data:
            size, kind = struct.unpack_from('=IH', data); done |= kind == 3
            if kind == 16: names.append(struct.unpack_from('=i', data, 20)[0])
            data = data[(size + 3) & ~3:]
    return names
same('links', 1 in links(), True); same('port', nl.getsockname(), name); ask(); same('links', 1 in links(), True)
same('option', nl.getsockopt(270, 10), 1)
finish()
