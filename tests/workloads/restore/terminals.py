# Pairs of terminals: input in lines and without, output that nobody has read, settings, the window's size, a session with a
# foreground group and readers that wait, a slave whose master has gone.
import fcntl, pty, select, signal, struct, termios, tty
from common import *

def attr(fd): return termios.tcgetattr(fd)
def size(fd): return struct.unpack('HHHH', fcntl.ioctl(fd, termios.TIOCGWINSZ, b' ' * 8))
def queued(fd): return struct.unpack('i', fcntl.ioctl(fd, termios.FIONREAD, b' ' * 4))[0]

# Canonical: a line, the beginning of another, output with its carriage return.
m1, s1 = pty.openpty()
fcntl.ioctl(s1, termios.TIOCSWINSZ, struct.pack('HHHH', 31, 97, 5, 6))
os.write(m1, b'first line\nsecond ha'); wait_until('echo', lambda: queued(m1) == 21); os.write(s1, b'out\n')
echoed = b'first line\r\nsecond haout\r\n'
name1 = os.ttyname(s1)
# Raw, with VMIN and VTIME.
m2, s2 = pty.openpty()
tty.setraw(s2); settings = attr(s2); settings[6][termios.VMIN] = 3; termios.tcsetattr(s2, termios.TCSANOW, settings)
os.write(m2, b'\x03\x1ab'); os.write(s2, b'\n')
settings2 = attr(s2)
# Packet mode, output stopped.
m3, s3 = pty.openpty()
fcntl.ioctl(m3, termios.TIOCPKT, struct.pack('i', 1)); os.write(m3, b'\x13'); select.select([m3], [], [], 20)
# A slave without its master, and a master without its slave.
m4, s4 = pty.openpty(); os.close(m4)
m5, s5 = pty.openpty(); os.write(s5, b'left'); os.close(s5)

# A session with a terminal: a reader in the foreground, and one in the background that is stopped for trying.
m6, s6 = pty.openpty()
def session():
    os.setsid(); fcntl.ioctl(s6, termios.TIOCSCTTY, 0)
    for fd in range(3): os.dup2(s6, fd)
    def background():
        os.setpgid(0, 0)
        return 7 if os.read(0, 100) == b'to the background\n' else 1
    def foreground():
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        quits = []
        signal.signal(signal.SIGINT, lambda *_: quits.append(1))
        os.write(1, b'reading\n')
        line = os.read(0, 100)
        os.write(1, b'got it\n')
        while not quits: time.sleep(0.005)
        return 5 if line == b'to the foreground\n' else 1
    b = child(background)
    os.waitpid(b, os.WUNTRACED)
    f = child(foreground)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    first = ended(f)
    # Now it is the background's turn.
    os.tcsetpgrp(0, b); os.kill(b, signal.SIGCONT); os.write(1, b'next\n')
    second = ended(b)
    os.tcsetpgrp(0, os.getpgrp())
    with open('/dev/tty', 'r+b', 0) as t: t.write(b'by /dev/tty\n')
    return first * 10 + second
leader = child(session)
def expect(fd, end):
    seen = b''
    while not seen.endswith(end):
        if not select.select([fd], [], [], 20)[0]:
            wrong.append(f'waiting for {end!r}: {seen!r}'); break
        seen += os.read(fd, 100)
    return seen
expect(m6, b'reading\r\n')
while os.tcgetpgrp(m6) == leader: time.sleep(0.005)
group = os.tcgetpgrp(m6)
# A reader of a raw terminal that waits for the third byte.
m7, s7 = pty.openpty(); tty.setraw(s7)
settings = attr(s7); settings[6][termios.VMIN] = 3; termios.tcsetattr(s7, termios.TCSANOW, settings)
os.write(m7, b'ab')
third = child(lambda: 0 if os.read(s7, 10) == b'abc' else 1)

ready_and_go()

same('size', size(s1), (31, 97, 5, 6))
same('name', (name1, os.ttyname(s1), os.path.exists(name1)), (name1, name1, True))
same('output', os.read(m1, 100), echoed)
os.write(m1, b'lf\n')
same('lines', (os.read(s1, 100), os.read(s1, 100)), (b'first line\n', b'second half\n'))
same('settings', attr(s2), settings2)
same('raw', (queued(s2), os.read(s2, 10), os.read(m2, 10)), (3, b'\x03\x1ab', b'\n'))
same('packet', (os.read(m3, 10), select.select([], [s3], [], 0)[1]), (b'\x04', []))
os.write(m3, b'\x11'); same('started', (os.read(m3, 10), os.write(s3, b'x'), os.read(m3, 10)), (b'\x08', 1, b'\0x'))
same('hung up', os.read(s4, 10), b'')
try: os.write(s4, b'x'); wrong.append('a terminal that was hung up takes output')
except OSError as e: same('hung up', e.errno, 5)
same('closed', os.read(m5, 10), b'left')
try: os.read(m5, 10); wrong.append('a slave that was closed is open')
except OSError as e: same('closed', e.errno, 5)
same('group', (os.tcgetpgrp(m6), struct.unpack('i', fcntl.ioctl(m6, 0x5429, b' ' * 4))[0]), (group, leader))
os.write(m6, b'to the foreground\n'); expect(m6, b'got it\r\n'); os.write(m6, b'\x03')
expect(m6, b'next\r\n')
os.write(m6, b'to the background\n')
expect(m6, b'by /dev/tty\r\n')
same('session', ended(leader), 57)
os.write(m7, b'c'); same('third byte', ended(third), 0)
m8, s8 = pty.openpty(); same('a new pair', os.ttyname(s8) != name1, True)
finish()
