"""Memory of an idle proxy, and of one that holds many keep-alive connections which have each done one request."""

import resource
import socket
import time

from .peers import HOST

REQUEST = f"GET /bench/small HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def measure(peer, connections, settle_seconds):
    allow_files(connections + 1000)
    idle = settled_pss(peer, settle_seconds / 2)
    sockets = []
    try:
        for _ in range(connections):
            sockets.append(one_request(peer.listener("h1")))
        held = settled_pss(peer, settle_seconds)
        closed = sum(1 for each in sockets if is_closed(each))
    finally:
        for each in sockets:
            each.close()
    if closed:
        raise RuntimeError(f"{peer.name} closed {closed} of {connections} idle connections")
    after = settled_pss(peer, settle_seconds / 2)
    return {"idle_bytes": idle, "held_bytes": held, "after_bytes": after, "connections": connections,
            "per_connection_bytes": (held - idle) / connections}


def allow_files(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"{wanted} connections need as many open files; the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def one_request(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(REQUEST)
    answer = b""
    while b"hello, world\n" not in answer:
        part = client.recv(4096)
        if not part:
            raise RuntimeError(f"the connection ended after {answer!r}")
        answer += part
    return client


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def settled_pss(peer, seconds):
    """Its memory after it has had `seconds` to give back what it does not need."""
    time.sleep(seconds)
    return peer.process.pss_bytes()
