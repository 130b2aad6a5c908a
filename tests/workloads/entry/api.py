# A client of the Lambda Runtime API that is no library's: it tries what those do not. Its image is taken where it waits to be
# restored.
import http.client, json, os, select, socket, struct
address = os.environ['AWS_LAMBDA_RUNTIME_API']
host, port = address.split(':'); port = int(port)
base = '/2018-06-01/runtime/'
def connect(family=socket.AF_INET, host=host):
    s = socket.socket(family); s.settimeout(20); s.connect((host, port))
    return s
def raw(data, s=None):
    s = s or connect(); s.sendall(data); answer = b''
    while more := s.recv(65536): answer += more
    return answer

# Requests one after the other, by name, and cut anywhere.
c = http.client.HTTPConnection(address)
for method, path, status in [('GET', '/', 404), ('PUT', base + 'invocation/next', 405), ('POST', base + 'invocation/1/response', 400)]:
    c.request(method, path, body='{}'); r = c.getresponse(); r.read()
    assert r.status == status, (path, r.status)
s = connect()
for byte in b'GET /x HTTP/1.0\r\nA: b\r\n\r\n': s.send(bytes([byte]))
assert raw(b'', s).startswith(b'HTTP/1.1 404 ')
# What is none.
assert raw(b'\x16\x03\x01\0\0').startswith(b'HTTP/1.1 400 ')
assert raw(b'GET /' + b'a' * 20000).startswith(b'HTTP/1.1 431 ')
head = b'POST ' + base.encode() + b'init/error HTTP/1.1\r\n'
assert raw(head + b'Content-Length: 7000000\r\n\r\n').startswith(b'HTTP/1.1 413 ')
assert raw(head + b'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n').startswith(b'HTTP/1.1 400 ')
s = connect(); s.sendall(head + b'Content-Length: 7000000\r\n\r\n' + b'x' * 3000000)
assert s.recv(12) == b'HTTP/1.1 413'; s.close()

# It is a socket like others.
s = connect()
assert s.getpeername() == (host, port) and s.getsockname()[0] == '127.0.0.1' and s.getsockname()[1] > 1024
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
try: s.connect((host, port)); assert False
except OSError as e: assert e.errno == 106
poll = select.epoll(); poll.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
assert poll.poll(0) == [(s.fileno(), select.EPOLLOUT)]
s.send(b'GET /x HTTP/1.1\r\nConnection: close\r\n\r\n')
assert poll.poll(5)[0][1] & (select.EPOLLIN | select.EPOLLRDHUP) == select.EPOLLIN | select.EPOLLRDHUP
first = s.recv(9, socket.MSG_PEEK); assert first == b'HTTP/1.1 ' == s.recv(9)
assert raw(b'', s).endswith(b'}\n') and s.recv(1) == b''
s = connect(); s.shutdown(socket.SHUT_WR); assert s.recv(1) == b''
try: s.send(b'x'); assert False
except BrokenPipeError: pass
s = socket.socket(); s.setblocking(False)
assert s.connect_ex((host, port)) in (0, 115) and select.select([], [s], [], 5)[1] == [s]
six = connect(socket.AF_INET6, '::ffff:' + host)
assert six.getpeername()[:2] == ('::ffff:' + host, port)
assert raw(b'GET /x HTTP/1.0\r\n\r\n', six).startswith(b'HTTP/1.1 404 ')
# Nothing else is there, and others are still others.
try: socket.create_connection((host, port + 1)); assert False
except ConnectionRefusedError: pass
listener = socket.create_server(('127.0.0.1', 0)); there = socket.create_connection(listener.getsockname()); there.send(b'x')
assert listener.accept()[0].recv(9) == b'x'
# As many as there may be.
crowd = []
try:
    while len(crowd) < 1000: crowd.append(connect())
    assert False
except ConnectionRefusedError: pass
del crowd

os.write(1, b'tried\n')
c.request('GET', base + 'restore/next'); r = c.getresponse(); r.read()
assert r.status == 200
os.write(1, b'restored\n')
# Chunks, and a wait for a word; the next request is there before the answer to the first.
while True:
    c.request('GET', base + 'invocation/next'); r = c.getresponse(); event = r.read()
    id = r.getheader('Lambda-Runtime-Aws-Request-Id')
    s = connect()
    s.sendall(f'POST {base}invocation/{id}/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n'.encode())
    assert s.recv(4096) == b'HTTP/1.1 100 Continue\r\n\r\n'
    s.sendall(b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in (event[:3], event[3:]) if p) + b'0\r\n\r\nGET /x HTTP/1.0\r\n\r\n')
    answers = raw(b'', s)
    assert answers.startswith(b'HTTP/1.1 202 ') and b'\nHTTP/1.1 404 ' in answers, answers
