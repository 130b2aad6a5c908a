# Timers: of timer_create(2) on several clocks, with overruns, to a thread; of processor time; processor time itself.
import signal, threading
from common import *

class Spec(ctypes.Structure): _fields_ = [(n, ctypes.c_long) for n in ('isec', 'insec', 'sec', 'nsec')]
class Event(ctypes.Structure):
    _fields_ = [('value', ctypes.c_void_p), ('signo', ctypes.c_int), ('notify', ctypes.c_int), ('tid', ctypes.c_int), ('pad', ctypes.c_int * 11)]
SIG = signal.SIGRTMIN
def create(clock, signo, notify=0, tid=0):
    event, timer = Event(1234, signo, notify, tid), ctypes.c_void_p()
    # The raw call: the C library keeps numbers of its own.
    number = ctypes.c_int()
    call('syscall', 222, clock, ctypes.byref(event), ctypes.byref(number))
    return number.value
def settime(timer, first, every=0.0):
    def parts(s): return int(s), int(s % 1 * 1e9)
    spec = Spec(*parts(every), *parts(first)); call('syscall', 223, timer, 0, ctypes.byref(spec), None)
def left(timer):
    spec = Spec(); call('syscall', 224, timer, ctypes.byref(spec)); return spec.sec + spec.nsec / 1e9, spec.isec + spec.insec / 1e9

signal.pthread_sigmask(signal.SIG_BLOCK, [SIG, SIG + 1, SIG + 2, SIG + 3])
soon, far, none, virtual = create(1, SIG), create(7, SIG + 1), create(0, 0, 1), create(2, SIG + 2)
settime(soon, 0.05, 0.01); settime(far, 1000, 7); settime(none, 500); settime(virtual, 0.3)
# To a thread that waits for it.
told, tid = [], []
def thread():
    tid.append(threading.get_native_id())
    info = signal.sigwaitinfo([SIG + 3]); told.append((info.si_signo, threading.get_native_id()))
t = threading.Thread(target=thread); t.start()
while not tid: time.sleep(0.001)
to_thread = create(1, SIG + 3, 4, tid[0]); settime(to_thread, 1.0)
# Of processor time.
prof, vt = [], []
signal.signal(signal.SIGPROF, lambda *_: prof.append(1)); signal.signal(signal.SIGVTALRM, lambda *_: vt.append(1))
signal.setitimer(signal.ITIMER_PROF, 0.4, 0.05); signal.setitimer(signal.ITIMER_VIRTUAL, 0.3)
end = time.process_time() + 0.1
while time.process_time() < end: pass
used, times = time.process_time(), os.times()
time.sleep(0.1)

ready_and_go()

same('processor time goes on', time.process_time() >= used and os.times().user >= times.user, True)
info = signal.sigwaitinfo([SIG])
same('signal', (info.si_signo, info.si_code), (SIG, -2))
same('overrun', call('syscall', 225, soon) > 3, True)
signal.sigwaitinfo([SIG])
settime(soon, 0)
l, every = left(far); same('far', (900 < l <= 1000, every), (True, 7.0))
l, every = left(none); same('none', (400 < l <= 500, every), (True, 0.0))
while not vt or len(prof) < 3 or SIG + 2 not in signal.sigpending(): pass
same('virtual', signal.sigwaitinfo([SIG + 2]).si_code, -2)
t.join(20); same('thread', told, [(SIG + 3, tid[0])])
another = create(1, SIG); same('number', another > to_thread, True)
call('syscall', 226, another); call('syscall', 226, soon)
finish()
