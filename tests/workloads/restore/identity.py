# What must differ between two copies of one image, and what must not go back: printed after a restore.
import ctypes, os, socket, sys, time
go = sys.argv[1]
libc = ctypes.CDLL(None); libc.getauxval.restype = ctypes.c_ulong
def at_random(): return ctypes.string_at(libc.getauxval(25), 16)
at, mono, boot = at_random(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
boot_id = open('/proc/sys/kernel/random/boot_id').read()
print('ready', flush=True)
while not os.path.exists(go): time.sleep(0.01)
assert time.monotonic() >= mono and time.clock_gettime(time.CLOCK_BOOTTIME) >= boot
assert at_random() != at and open('/proc/sys/kernel/random/boot_id').read() != boot_id
print(os.getrandom(16).hex(), at_random().hex(), open('/dev/urandom', 'rb').read(16).hex())
print(open('/proc/sys/kernel/random/boot_id').read().strip(), open('/proc/sys/kernel/random/uuid').read().strip())
print(time.time(), socket.gethostname(), os.getpid())
