# What the programs here share: they make something, say that they are ready, wait for the file that their argument names, and
# check that everything is as it was. Each says `ok` at its end, or what is wrong.
import ctypes, os, sys, time

libc = ctypes.CDLL(None, use_errno=True)
go, wrong = sys.argv[1], []

def call(name, *args):
    """A function of the C library; an error is an exception."""
    result = getattr(libc, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), f'{name}: {os.strerror(ctypes.get_errno())}')
    return result

def same(what, is_now, expected):
    if is_now != expected:
        wrong.append(f'{what}: {is_now!r}, not {expected!r}')

def ready_and_go():
    print('ready', flush=True)
    while not os.path.exists(go):
        time.sleep(0.02)

def wait_until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            wrong.append(f'{what}: it did not happen')
            return
        time.sleep(0.005)

def state_of(pid):
    """The letter in /proc/PID/stat."""
    with open(f'/proc/{pid}/stat') as f:
        return f.read().rsplit(')', 1)[1].split()[0]

def child(run):
    """A child that runs a function; its exit code is what that returns."""
    pid = os.fork()
    if pid:
        return pid
    try:
        code = run() or 0
    except BaseException as e:
        os.write(2, f'{run.__name__}: {e!r}\n'.encode())
        code = 99
    os._exit(code)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def finish():
    print('\n'.join(wrong) or 'ok', flush=True)
    os._exit(1 if wrong else 0)
