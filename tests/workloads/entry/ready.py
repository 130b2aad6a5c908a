# Becomes ready in the way that its first argument names. It has printed `before` by then, and prints `after` when it goes on;
# a visitor comes when the file is there that the second argument names.
import os, select, socket, sys, threading, time
what, go = sys.argv[1:]
inet = (socket.AF_INET, ('127.0.0.1', 0)); unix = (socket.AF_UNIX, '/tmp/socket')
def bound(family, address):
    s = socket.socket(family); s.bind(address)
    return s
def visit(family, address):
    while not os.path.exists(go): time.sleep(0.01)
    with socket.socket(family) as s:
        s.connect(address)
        assert s.recv(9) == b'welcome'
def say(text): os.write(1, text.encode() + b'\n')

if what.startswith('listen'):
    # One that does not listen, and pipes, are no reason.
    other = bound(*inet); os.pipe()
    s = bound(*(unix if what == 'listen-unix' else inet))
    say('before'); s.listen(); say('after')
elif what.startswith('signal'):
    say('before'); os.kill(os.getpid(), int(what.split('-')[1])); say('after')
elif what == 'line':
    os.write(1, b'x\nready\nbefore\n'); say('after')
elif what == 'large':
    # More than a pipe holds: the line is out long before the rest is.
    assert os.write(1, b'ready\n' + b'0123456789abcdef' * (1 << 16)) == 6 + (1 << 20)
    say('after')
else:
    family, address = unix if what.endswith('unix') else inet
    s = bound(family, address); s.listen()
    threading.Thread(target=visit, args=(family, s.getsockname())).start()
    how = what.split('-')[0]
    # Waiting for something else is no reason.
    select.poll().poll(10); select.select([os.pipe()[0]], [], [], 0.01); select.epoll().poll(0.01)
    say('before')
    if how == 'poll':
        poll = select.poll(); poll.register(os.pipe()[0], select.POLLIN); poll.register(s, select.POLLIN)
        assert poll.poll() == [(s.fileno(), select.POLLIN)]
    elif how == 'select':
        assert select.select([os.pipe()[0], s], [], []) == ([s], [], [])
    elif how == 'epoll':
        inner, outer = select.epoll(), select.epoll()
        inner.register(s, select.EPOLLIN); outer.register(inner, select.EPOLLIN)
        assert outer.poll() == [(inner.fileno(), select.EPOLLIN)]
    visitor, _ = s.accept(); visitor.send(b'welcome'); visitor.close()
    say('after')
