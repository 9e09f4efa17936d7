"""The real servers behind the mesh: `servers.py http|grpc|websocket PORT [TLS_PORT CERT KEY]`; each runs until it is killed."""

import asyncio
import hashlib
import json
import sys
import time
from concurrent import futures


async def http_application(scope, receive, send):
    """ASGI: tells what arrived, streams, and answers with chosen statuses and trailers."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})  # the handshake is answered with 403
    if scope["type"] != "http":
        return
    digest, length = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    word, _, argument = scope["path"].strip("/").partition("/")
    if word == "bytes":
        await answer(send, 200, [b"x" * 65536] * (int(argument) // 65536))
    elif word == "ticks":
        await answer(send, 200, [b"tick\n"] * int(argument), pause=0.2)
    elif word == "status":
        await answer(send, int(argument), [] if argument in ("204", "304") else [b"as asked\n"])
    else:
        seen = {"method": scope["method"], "path": scope["raw_path"].decode(), "query": scope["query_string"].decode(),
                "version": scope["http_version"], "scheme": scope["scheme"], "sha256": digest.hexdigest(), "length": length,
                "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]]}
        await answer(send, 200, [json.dumps(seen).encode()])


async def answer(send, status, parts, pause=0.0):
    length = str(sum(map(len, parts))).encode()
    headers = [(b"content-type", b"text/plain")] + ([(b"content-length", length)] if parts and not pause else [])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        if pause:
            await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b""})


def serve_http(port, tls_port, certificate, key):
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    def run(bind, tls):
        config = Config()
        config.bind = [f"127.0.0.1:{bind}"]
        config.keep_alive_timeout = 600
        config.keep_alive_max_requests = 1_000_000_000
        config.h2_max_concurrent_streams = 1000
        if tls:
            config.certfile, config.keyfile = certificate, key
        return serve(http_application, config, shutdown_trigger=asyncio.Event().wait)

    async def both():
        await asyncio.gather(run(port, False), run(tls_port, True))

    asyncio.run(both())


def serve_grpc(port):
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    checked = health.HealthServicer()

    def serving(request, context):
        """What the health service says of test.Echo from now on."""
        states = health_pb2.HealthCheckResponse
        checked.set("test.Echo", states.SERVING if request == b"yes" else states.NOT_SERVING)
        return request

    def unary(request, context):
        context.set_trailing_metadata((("echo-trailer", "kept"), ("echo-trailer-bin", b"\x00\xff")))
        return request

    def expand(request, context):
        for index in range(int(request)):
            yield b"message %d" % index

    def collect(requests, context):
        return b",".join(requests)

    def chat(requests, context):
        for request in requests:
            yield b"you said " + request

    def fail(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: é")

    def sleep(request, context):
        time.sleep(float(request))
        return b"slept"

    def watch(request, context):
        """Says hello, then nothing until the given time has passed."""
        yield b"hello"
        time.sleep(float(request))
        yield b"still here"

    def endless(request, context):
        while True:
            yield b"more"
            time.sleep(0.05)

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary), "Expand": grpc.unary_stream_rpc_method_handler(expand),
        "Collect": grpc.stream_unary_rpc_method_handler(collect), "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail), "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Serving": grpc.unary_unary_rpc_method_handler(serving),
        "Watch": grpc.unary_stream_rpc_method_handler(watch), "Endless": grpc.unary_stream_rpc_method_handler(endless),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    health_pb2_grpc.add_HealthServicer_to_server(checked, server)
    serving(b"yes", None)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def serve_websocket(port):
    from websockets.asyncio.server import serve

    async def echo(connection):
        async for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                await connection.close(int(message[6:]), "as asked")
            else:
                await connection.send(message)

    async def run():
        async with serve(echo, "127.0.0.1", port, subprotocols=["echo.test"], max_size=None, ping_interval=None) as server:
            await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    kind, port, *rest = sys.argv[1:]
    if kind == "http":
        serve_http(int(port), int(rest[0]), rest[1], rest[2])
    elif kind == "grpc":
        serve_grpc(int(port))
    elif kind == "websocket":
        serve_websocket(int(port))
    else:
        sys.exit(__doc__)
