"""Calls a greeter once and reads a stream of it, with grpcio: `grpc_client.py HOST:PORT...`."""

import sys

import grpc

for destination in sys.argv[1:]:
    with grpc.insecure_channel(destination) as channel:
        answer, call = channel.unary_unary("/test.Greeter/Greet").with_call(destination.encode(), timeout=20)
        print(answer.decode(), dict(call.trailing_metadata()))
        print(*(number.decode() for number in channel.unary_stream("/test.Greeter/Count")(b"100", timeout=20)))
