"""A greeter with one answer or a stream of them: `grpc_server.py PORT`, on IPv4 and IPv6."""

import sys
from concurrent import futures

import grpc


def greet(request, context):
    context.set_trailing_metadata([("greeted", request.decode())])
    return b"hello, " + request


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Greeter", {
    "Greet": grpc.unary_unary_rpc_method_handler(greet),
    "Count": grpc.unary_stream_rpc_method_handler(count),
})])
server.add_insecure_port(f"[::]:{sys.argv[1]}")
server.start()
server.wait_for_termination()
