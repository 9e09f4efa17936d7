"""Python websockets, client and server: text, binary, pings, close codes, and silence."""

import socket
import ssl
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from mesh import PORT


def websocket(mesh, way, service="ws", **options):
    """Through the gateway by address; through a sidecar as an HTTP proxy (CONNECT)."""
    options["subprotocols"] = ["echo.test"]
    if way.proxied:
        return connect(f"ws://{way.host(service)}:{PORT}/chat?x=1", proxy=way.proxy(), max_size=None, **options)
    context = ssl.create_default_context(cafile=mesh.ca) if way.tls else None
    if context:
        # This client reads and writes in two threads, of which OpenSSL knows nothing: a session ticket of TLS 1.3, which comes after
        # the handshake, can make it lose the request that it writes at that moment. In TLS 1.2 tickets come earlier.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return connect(f"{'wss' if way.tls else 'ws'}://{way.host(service)}/chat?x=1", ssl=context, proxy=None, max_size=None,
                   sock=socket.create_connection(("127.0.0.1", way.port)), **options)


def messages_come_back(mesh, way):
    """websockets: text, binary, empty and big messages come back as they were sent"""
    with websocket(mesh, way) as connection:
        assert connection.subprotocol == "echo.test", connection.subprotocol
        for message in ("hello", "", "naïve ☃", b"\x00\xff" * 10, b"", "x" * 70_000, b"y" * 5_000_000):
            connection.send(message)
            back = connection.recv(timeout=30)
            assert back == message and type(back) is type(message), (len(back), len(message))


def pings_are_answered(mesh, way):
    """websockets: a ping is answered by the server"""
    with websocket(mesh, way) as connection:
        assert connection.ping(b"are you there").wait(30), "no pong"


def close_codes_survive(mesh, way):
    """websockets: close codes and reasons pass in both directions"""
    with websocket(mesh, way) as connection:
        connection.send("close 4001")
        try:
            connection.recv(timeout=30)
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as asked"), closed
    with websocket(mesh, way) as connection:
        connection.close(4002, "enough")
        assert connection.close_code == 4002, connection.close_code


def many_at_once(mesh, way):
    """websockets: 50 connections at once, each with its own messages"""
    connections = [websocket(mesh, way) for _ in range(50)]
    try:
        for number, connection in enumerate(connections):
            connection.send(f"number {number}")
        for number, connection in enumerate(connections):
            assert connection.recv(timeout=30) == f"number {number}"
    finally:
        for connection in connections:
            connection.close()


def a_refused_upgrade_shows_its_status(mesh, way):
    """websockets: a server that does not upgrade shows its own status"""
    try:
        with websocket(mesh, way, "h1"):
            raise AssertionError("a server without WebSockets upgraded")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused


def silence_is_no_reason_to_close(mesh, way):
    """websockets: a connection that is silent for 40 seconds stays up"""
    with websocket(mesh, way, ping_interval=None) as connection:
        connection.send("before")
        assert connection.recv(timeout=30) == "before"
        time.sleep(40)
        connection.send("after")
        assert connection.recv(timeout=30) == "after"


silence_is_no_reason_to_close.patient = True

CHECKS = (messages_come_back, pings_are_answered, close_codes_survive, many_at_once, a_refused_upgrade_shows_its_status,
          silence_is_no_reason_to_close)
