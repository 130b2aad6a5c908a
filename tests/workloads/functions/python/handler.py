"""A small function: word counts over HTTP, JSON in and JSON out.

POST / with {"text": "..."} answers {"words": N, "most_common": [[word, count], ...], "pid": ..., "python": "..."}.
Prints "ready PORT" when it listens. Ends on SIGTERM.

With --stdio it speaks HTTP on its standard streams instead, as a function of inetd's does, prints "ready", and ends with its
input: so that every runtime can be sent a request, whatever its network. --heap-mib gives it that much memory that is in use.
"""

import argparse
import collections
import http.server
import json
import os
import platform
import re
import signal
import sys

WORD = re.compile(r"[a-z']+")


def handle(event):
    words = WORD.findall(event.get("text", "").lower())
    return {
        "words": len(words),
        "most_common": collections.Counter(words).most_common(3),
        "pid": os.getpid(),
        "python": platform.python_version(),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = 200, handle(json.loads(body))
        except (ValueError, AttributeError) as error:
            status, answer = 400, {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


class Streams:
    """Standard input and output in the place of a connection."""

    def makefile(self, *_):
        return sys.stdin.buffer

    def sendall(self, data):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--heap-mib", type=int, default=0)
    options = parser.parse_args()
    # Pages of which no two are alike.
    heap = [os.urandom(64 << 10) for _ in range(options.heap_mib * 16)]
    # The first process of a pid namespace does not die of a signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.stdio:
        print("ready", flush=True)
        Handler(Streams(), ("stdio", 0), heap)
        return
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        print("ready", server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
