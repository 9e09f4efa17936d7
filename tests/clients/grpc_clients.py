"""Python grpcio, client and server: all four kinds of call, trailers, statuses, deadlines, a server that dies."""

import threading
import time

import grpc


def channel(mesh, way, service="grpc"):
    authority = way.host(service)
    options = [("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{way.port}"
    if way.tls:
        credentials = grpc.ssl_channel_credentials(mesh.ca.read_bytes())
        return grpc.secure_channel(target, credentials, options + [("grpc.ssl_target_name_override", authority)])
    return grpc.insecure_channel(target, options)


def unary(on, method, request, **options):
    return on.unary_unary(f"/test.Echo/{method}").with_call(request, timeout=options.pop("timeout", 30), **options)


def all_kinds_of_call(mesh, way):
    """grpcio: unary, server, client and bidirectional streams"""
    with channel(mesh, way) as on:
        assert unary(on, "Unary", b"hello")[0] == b"hello"
        assert unary(on, "Unary", b"x" * 3_000_000)[0] == b"x" * 3_000_000
        expanded = list(on.unary_stream("/test.Echo/Expand")(b"500", timeout=30))
        assert expanded == [b"message %d" % index for index in range(500)], expanded[:3]
        collected = on.stream_unary("/test.Echo/Collect")(iter([b"a", b"b", b"c"]), timeout=30)
        assert collected == b"a,b,c", collected
        chat_in_turns(on)


def chat_in_turns(on):
    """Each message is sent only after the answer to the one before, so nothing on the way may hold one back."""
    answered = threading.Semaphore(1)

    def messages():
        for index in range(20):
            assert answered.acquire(timeout=30)
            yield b"%d" % index

    for index, answer in enumerate(on.stream_stream("/test.Echo/Chat")(messages(), timeout=30)):
        assert answer == b"you said %d" % index, answer
        answered.release()
    assert index == 19, index


def trailers_and_statuses(mesh, way):
    """grpcio: trailing metadata, error statuses and messages, unknown methods"""
    with channel(mesh, way) as on:
        _, call = unary(on, "Unary", b"x", metadata=(("ask", "a"), ("ask-bin", b"\x01\x02")))
        trailing = dict(call.trailing_metadata())
        assert trailing["echo-trailer"] == "kept" and trailing["echo-trailer-bin"] == b"\x00\xff", trailing
        error = error_of(lambda: unary(on, "Fail", b""))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: é"), error
        error = error_of(lambda: unary(on, "Missing", b""))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    with channel(mesh, way, "nobody") as on:
        error = error_of(lambda: unary(on, "Unary", b""))
        assert error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE), error


def deadlines(mesh, way):
    """grpcio: a deadline that passes is DEADLINE_EXCEEDED, and the connection goes on"""
    with channel(mesh, way) as on:
        error = error_of(lambda: unary(on, "Sleep", b"20", timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert unary(on, "Unary", b"after")[0] == b"after"


def many_calls_at_once(mesh, way):
    """grpcio: 400 calls from 16 threads over one connection, none failed"""
    failures = []

    def work(on, name):
        for index in range(25):
            try:
                assert unary(on, "Unary", b"%d %d" % (name, index))[0] == b"%d %d" % (name, index)
            except Exception as failure:
                failures.append(failure)

    with channel(mesh, way) as on:
        threads = [threading.Thread(target=work, args=(on, name)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures, failures[:3]


def a_killed_server_is_unavailable(mesh, way):
    """grpcio: a server killed mid-stream is UNAVAILABLE, and it is reached again once it is back"""
    server = mesh.start_server("grpc", mesh.spare_grpc_port).wait_for(mesh.spare_grpc_port)
    with channel(mesh, way, "spare") as on:
        stream = until_reached(lambda: on.unary_stream("/test.Echo/Endless")(b"", timeout=60))
        server.kill()
        error = error_of(lambda: list(stream))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        error = error_of(lambda: unary(on, "Unary", b"x"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        server = mesh.start_server("grpc", mesh.spare_grpc_port).wait_for(mesh.spare_grpc_port)
        again = until_reached(lambda: on.unary_stream("/test.Echo/Expand")(b"2", timeout=60))
        assert list(again) == [b"message 1"]
    server.kill()


def a_server_that_is_not_serving_gets_no_calls(mesh, way):
    """grpcio: a server whose health service says NOT_SERVING gets no calls until it says SERVING"""
    with channel(mesh, way, "grpc") as on, channel(mesh, way, "checked") as checked:
        # Another way's check may have left it failing a moment ago.
        eventually(lambda: unary(checked, "Unary", b"x"))
        unary(on, "Serving", b"no")
        error = eventually(lambda: error_of(lambda: unary(checked, "Unary", b"x")))
        assert error.code() == grpc.StatusCode.UNAVAILABLE and "health check" in error.details(), error
        unary(on, "Serving", b"yes")
        eventually(lambda: unary(checked, "Unary", b"x"))


def eventually(call):
    """What the call gives once it no longer raises."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except (grpc.RpcError, AssertionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def until_reached(call):
    """A stream whose first message has come; an ejected endpoint may take a while to be tried again."""
    until = time.monotonic() + 60
    while True:
        stream = call()
        try:
            next(stream)
            return stream
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise
            time.sleep(0.2)


def an_idle_watch_stays_up(mesh, way):
    """grpcio: a watch that is silent for 40 seconds stays up"""
    with channel(mesh, way) as on:
        assert list(on.unary_stream("/test.Echo/Watch")(b"40", timeout=90)) == [b"hello", b"still here"]


an_idle_watch_stays_up.patient = True


def error_of(call):
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it succeeded: {answer}")


CHECKS = (all_kinds_of_call, trailers_and_statuses, deadlines, many_calls_at_once, a_killed_server_is_unavailable,
          a_server_that_is_not_serving_gets_no_calls, an_idle_watch_stays_up)
