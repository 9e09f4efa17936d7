"""What is measured: one row of the table each."""

from dataclasses import dataclass

from . import load


@dataclass(frozen=True)
class Case:
    """CPU per request under keep-alive load, or with a new connection for each request."""

    name: str
    title: str
    listener: str
    path: str
    clients: int
    streams: int = 1
    http1: bool = True
    tls: bool = False
    new_connections: bool = False
    body_bytes: int = 0
    # Requests a second over all clients; None is as fast as they come back.
    rate: int | None = None

    def load(self, port, seconds, realtime, log):
        if self.new_connections:
            return load.wrk_new_connections(port, self.path, self.clients, seconds, self.tls, realtime)
        rate = self.rate / self.clients if self.rate else None
        return load.h2load(port, self.path, self.clients, self.streams, self.http1, self.tls, seconds=seconds,
                           rate_per_client=rate, log=log, realtime=realtime)


KIB, MIB = 1 << 10, 1 << 20

CASES = {case.name: case for case in (
    Case("h1-small", "HTTP/1.1, small body, 64 connections", "h1", "/bench/small", 64),
    Case("h1-1k", "HTTP/1.1, 1 KiB, 64 connections", "h1", "/bench/1k", 64, body_bytes=KIB),
    Case("h1-64k", "HTTP/1.1, 64 KiB, 32 connections", "h1", "/bench/64k", 32, body_bytes=64 * KIB),
    Case("h1-1m", "HTTP/1.1, 1 MiB, 8 connections", "h1", "/bench/1m", 8, body_bytes=MIB),
    Case("h2-small", "HTTP/2 cleartext both sides, small body, 8 x 32", "h2", "/bench/small", 8, 32, http1=False),
    Case("h2-64k", "HTTP/2 cleartext both sides, 64 KiB, 4 x 8", "h2", "/bench/64k", 4, 8, http1=False, body_bytes=64 * KIB),
    Case("tls-h1-small", "TLS front, HTTP/1.1, small body, 64 connections", "tls_h1", "/bench/small", 64, tls=True),
    Case("tls-h1-64k", "TLS front, HTTP/1.1, 64 KiB, 32 connections", "tls_h1", "/bench/64k", 32, tls=True, body_bytes=64 * KIB),
    Case("tls-h2-small", "TLS front, HTTP/2 both sides, small body, 8 x 32", "tls_h2", "/bench/small", 8, 32, http1=False, tls=True),
    Case("h1-new", "HTTP/1.1, a new connection for each request", "h1", "/bench/small", 32, new_connections=True),
    Case("tls-new", "TLS, a full handshake for each request", "tls_h1", "/bench/small", 32, tls=True, new_connections=True),
    Case("tcp-small", "Opaque TCP, small HTTP/1.1 bodies, 64 connections", "tcp", "/bench/small", 64),
    Case("tcp-64k", "Opaque TCP, 64 KiB bodies, 32 connections", "tcp", "/bench/64k", 32, body_bytes=64 * KIB),
    Case("latency", "HTTP/1.1, small body, a fixed 8,000 requests a second over 32 connections", "h1", "/bench/small", 32, rate=8000),
)}

# Not a load but a state: idle, and with many idle keep-alive connections.
MEMORY = "memory"
