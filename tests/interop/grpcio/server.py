"""A register in another language: a gRPC server by grpcio, with stubs of a .proto that no security server ever saw."""

import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import echo_pb2
import echo_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


def as_bytes(value):
    return value if isinstance(value, bytes) else value.encode("ascii")


class Echo(echo_pb2_grpc.EchoServicer):
    def Say(self, request, context):
        fields = [
            echo_pb2.Field(name=name, value=as_bytes(value))
            for name, value in context.invocation_metadata()
        ]
        own = tuple((name, value) for name, value in context.invocation_metadata() if name.startswith("say-"))
        context.send_initial_metadata(own)
        context.set_trailing_metadata(own + (("answered-by", "grpcio"), ("answered-bin", bytes(range(256)))))
        remaining = context.time_remaining()
        if request.seconds:
            time.sleep(request.seconds)
        if request.code:
            context.abort(CODES[request.code], request.message)
        payload = b"\xa5" * request.answer_bytes if request.answer_bytes else request.payload
        return echo_pb2.SayResponse(
            payload=payload, metadata=fields, seconds_remaining=-1.0 if remaining is None else remaining
        )


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=80), compression=grpc.Compression.NoCompression
    )
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    watched = health.HealthServicer()
    watched.set("interop.v1.Echo", health_pb2.HealthCheckResponse.SERVING)
    watched.set("interop.v1.Ill", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(watched, server)
    reflection.enable_server_reflection(("interop.v1.Echo", reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write(f"127.0.0.1:{port}\n")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
