# Programs in the middle of what they do: a database in a transaction, a server with a large heap, a pipeline.
import hashlib, http.server, sqlite3, subprocess, threading, urllib.request
from common import *

# A transaction that is neither committed nor rolled back, with another connection that reads: both map the same memory.
db = sqlite3.connect('/tmp/database', isolation_level=None)
db.execute('pragma journal_mode = wal')
db.executescript('create table t (a integer primary key, b text); insert into t (b) values ("before");')
reader = sqlite3.connect('/tmp/database', isolation_level=None)
db.execute('pragma cache_size = 10'); db.execute('begin immediate')
db.executemany('insert into t (b) values (?)', ((str(i) * 500,) for i in range(2000)))
cursor = db.execute('select b from t order by a'); first = cursor.fetchone()
# A handler with 64 MiB of heap.
heap = [os.urandom(1 << 20) for _ in range(64)]
digest = hashlib.blake2b(b''.join(heap)).hexdigest()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = hashlib.blake2b(b''.join(heap)).hexdigest().encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8200), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def served(): return urllib.request.urlopen('http://127.0.0.1:8200/', timeout=20).read().decode()
same('served before', served(), digest)
# A pipeline of which one half is done.
pipeline = subprocess.Popen(['/bin/bash', '-c', 'for i in {1..3000}; do echo "line $i"; done | while read -r a b; do '
    '[ "$b" = 1000 ] && { echo half; until [ -e "$0" ]; do sleep 0.01; done; }; echo "$b"; done | sort -n | tail -n 1', go],
    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
# `half` goes through sort: what is waited for is the reader's sleeping.
def sleeps():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as f:
                if f.read().startswith(b'sleep\0'): return True
        except OSError: pass
    return False
wait_until('half', lambda: sleeps() or os.path.exists(go), 50)

ready_and_go()

same('served', served(), digest)
same('first', (first, cursor.fetchone()), (('before',), ('0' * 500,)))
same('not seen', reader.execute('select count(*) from t').fetchone(), (1,))
db.execute('insert into t (b) values ("after")'); db.execute('commit')
same('committed', reader.execute('select count(*), max(b) from t').fetchone()[0], 2002)
same('sound', reader.execute('pragma integrity_check').fetchone(), ('ok',))
same('pipeline', (pipeline.communicate(timeout=50)[0], pipeline.returncode), (b'3000\n', 0))
finish()
