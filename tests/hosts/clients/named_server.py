"""Answers each request with its own name, and writes the bodies of POSTs down: `named_server.py PORT NAME TAKEN`."""

import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

taken = open(sys.argv[3], "a", buffering=1)


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128


class Named(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer that waits for the acknowledgement of its head takes 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if body:
            taken.write(body.decode() + "\n")
        # As long as an application takes, so that there is always something under way.
        time.sleep(0.005)
        name = sys.argv[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    do_POST = do_GET

    def log_message(self, *_):
        """Silence: the tests read answers, not logs."""


Server(("::", int(sys.argv[1])), Named).serve_forever()
