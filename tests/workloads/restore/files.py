# Files of all sorts: memfds with seals and shared mappings, FIFOs and their openers, watches, pidfds, files that send signals,
# files of the image that were moved.
import fcntl, mmap, select, signal, stat, threading
from common import *

F_ADD_SEALS, F_GET_SEALS = 1033, 1034
# A memfd that may not be changed, one that is shared, one that is only a mapping, one that is executed.
sealed = os.memfd_create('sealed', os.MFD_ALLOW_SEALING); os.write(sealed, b'x' * 200000 + b'end')
fcntl.fcntl(sealed, F_ADD_SEALS, 2 | 4 | 8)
shared = os.memfd_create('shared', os.MFD_ALLOW_SEALING); os.ftruncate(shared, 1 << 20)
m = mmap.mmap(shared, 1 << 20); m[0:5] = b'hello'; m[1000000:1000004] = b'late'
fcntl.fcntl(shared, F_ADD_SEALS, 16)
only = os.memfd_create('only'); os.ftruncate(only, 8192); alone = mmap.mmap(only, 8192); alone[5000:5003] = b'map'; os.close(only)
twice = os.open(f'/proc/self/fd/{shared}', os.O_RDONLY); os.lseek(twice, 3, 0)
r, w = os.pipe()
def shares():
    os.read(r, 1); m[0:5] = b'child'; alone[5000:5003] = b'CHI'
pid = child(shares)
# FIFOs: with contents, opened for both, for reading without a writer, removed; openers that wait.
for name in 'abcdef': os.mkfifo('/tmp/' + name)
both = os.open('/tmp/a', os.O_RDWR | os.O_NONBLOCK); os.write(both, b'in the fifo')
early = os.open('/tmp/b', os.O_RDONLY | os.O_NONBLOCK)
gone_r = os.open('/tmp/c', os.O_RDONLY | os.O_NONBLOCK); gone_w = os.open('/tmp/c', os.O_WRONLY); os.write(gone_w, b'gone'); os.unlink('/tmp/c')
def reads(): return 0 if os.read(os.open('/tmp/d', os.O_RDONLY), 100) == b'to who waits' else 1
def writes(): os.write(os.open('/tmp/e', os.O_WRONLY), b'from who waits')
reader, writer = child(reads), child(writes)
# Watches.
import struct
os.mkdir('/tmp/watched'); watch = call('inotify_init1', 0o4000)
wd = call('inotify_add_watch', watch, b'/tmp/watched', 0x302)
wd2 = call('inotify_add_watch', watch, b'/etc/passwd', 0x2)
open('/tmp/watched/before', 'w').close()
# Pidfds: of who lives, of who has been reaped.
r2, w2 = os.pipe(); alive = child(lambda: os.read(r2, 1) and 3); pidfd = os.pidfd_open(alive)
dead = child(lambda: 0); deadfd = os.pidfd_open(dead); os.waitpid(dead, 0)
# After the children, who would keep it open.
pair_r = os.open('/tmp/f', os.O_RDONLY | os.O_NONBLOCK); pair_w = os.open('/tmp/f', os.O_WRONLY)
# Signals.
io, got = os.pipe(), []
signal.signal(signal.SIGIO, lambda *_: got.append('io'))
fcntl.fcntl(io[0], fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(io[0], fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
# The image's own files: moved, with a second name, a directory that was moved with what is in it.
os.rename('/etc/passwd', '/passwd'); os.link('/etc/hosts', '/hosts') if os.path.exists('/etc/hosts') else open('/hosts', 'w').close()
moved = open('/passwd').read()
listing = sorted(os.listdir('/etc/python3.11')); os.mkdir('/new'); os.mkdir('/new/dir'); os.rename('/etc/python3.11', '/new/dir/moved'); open('/new/dir/moved/added', 'w').write('added')
mode = stat.S_IMODE(os.stat('/passwd').st_mode)
time.sleep(0.05)

ready_and_go()

same('seals', (fcntl.fcntl(sealed, F_GET_SEALS), fcntl.fcntl(shared, F_GET_SEALS)), (14, 16))
same('sealed', (os.pread(sealed, 10, 200000), os.fstat(sealed).st_size), (b'end', 200003))
for what in (lambda: os.write(sealed, b'x'), lambda: os.ftruncate(sealed, 5), lambda: os.pwrite(shared, b'x', 0)):
    try: what(); wrong.append('a sealed file was changed')
    except PermissionError: pass
same('mapped', (m[0:5], m[1000000:1000004], os.read(twice, 2)), (b'hello', b'late', b'lo'))
same('names', [os.readlink(f'/proc/self/fd/{fd}') for fd in (sealed, twice)], ['/memfd:sealed (deleted)', '/memfd:shared (deleted)'])
os.write(w, b'x'); same('child', ended(pid), 0)
same('shared', (m[0:5], os.pread(shared, 5, 0), alone[5000:5003]), (b'child', b'child', b'CHI'))
same('fifo', os.read(os.open('/tmp/a', os.O_RDONLY), 100), b'in the fifo')
p = select.poll(); p.register(early, select.POLLIN); same('no hangup yet', p.poll(0), [])
late = os.open('/tmp/b', os.O_WRONLY | os.O_NONBLOCK); os.write(late, b'now'); os.close(late)
same('hangup', (os.read(early, 10), p.poll(0)), (b'now', [(early, select.POLLHUP)]))
same('removed', os.read(gone_r, 10), b'gone'); os.write(gone_w, b'more'); same('removed', os.read(gone_r, 10), b'more')
os.write(pair_w, b'pair'); same('pair', os.read(pair_r, 10), b'pair'); os.close(pair_w); same('end', os.read(pair_r, 10), b'')
# Who waits is there for who does not.
d = os.open('/tmp/d', os.O_WRONLY | os.O_NONBLOCK); os.write(d, b'to who waits'); same('reader', ended(reader), 0)
e = os.open('/tmp/e', os.O_RDONLY); same('writer', os.read(e, 100), b'from who waits'); same('writer', ended(writer), 0)
def events():
    data, out = os.read(watch, 4096), []
    while data:
        n, mask, _, size = struct.unpack('iIII', data[:16]); out.append((n, mask, data[16:16 + size].rstrip(b'\0'))); data = data[16 + size:]
    return out
same('event', events(), [(wd, 0x100, b'before')])
os.unlink('/tmp/watched/before')
with open('/passwd', 'a') as f: f.write('more\n')
same('events', events(), [(wd, 0x200, b'before'), (wd2, 2, b'')])
same('new watch', call('inotify_add_watch', watch, b'/tmp', 2), 3)
p = select.poll(); p.register(pidfd, select.POLLIN); p.register(deadfd, select.POLLIN)
same('pidfd', [(fd, bool(e & select.POLLIN)) for fd, e in p.poll(0)], [(deadfd, True)])
os.write(w2, b'x'); same('pidfd', os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status, 3)
same('pidfd of nobody', 'Pid:\t-1' in open(f'/proc/self/fdinfo/{deadfd}').read(), True)
os.write(io[1], b'x'); wait_until('SIGIO', lambda: got)
same('owner', (fcntl.fcntl(io[0], fcntl.F_GETOWN), bool(fcntl.fcntl(io[0], fcntl.F_GETFL) & os.O_ASYNC)), (os.getpid(), True))
same('moved', (open('/passwd').read(), os.path.exists('/etc/passwd')), (moved + 'more\n', False))
same('moved directory', (sorted(os.listdir('/new/dir/moved')), os.path.exists('/etc/python3.11')), (sorted(listing + ['added']), False))
same('links', os.stat('/hosts').st_ino == os.stat('/etc/hosts').st_ino and os.stat('/hosts').st_nlink, 2)
with open('/hosts', 'a') as f: f.write('one file\n')
same('one file', open('/etc/hosts').read().endswith('one file\n'), True)
same('mode', stat.S_IMODE(os.stat('/passwd').st_mode), mode)
finish()
