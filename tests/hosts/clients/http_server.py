"""Answers each request with what it saw of it: `http_server.py PORT`, on IPv4 and IPv6.

All but the field Connection, which is about one connection and not about the request.
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


class Mirror(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fields = [f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "connection"]
        answer = "\n".join([self.requestline, *fields, body.decode(), ""]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_):
        """Silence: the tests read answers, not logs."""


Server(("::", int(sys.argv[1])), Mirror).serve_forever()
