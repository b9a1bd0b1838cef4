"""Calls a grpcio server directly and through both security servers, and compares what a client sees of each.

usage: compare.py DIRECT_ADDRESS ENDPOINTS_JSON EXCHANGE_ID_FILE
"""

import concurrent.futures
import json
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import echo_pb2
import echo_pb2_grpc

# What the security servers themselves tell a register or a caller. Everything else must arrive as on a direct connection.
TOLD_BY_US = ("trave-", "x-road-")
# What each client and server says of its own connection.
OF_THE_CONNECTION = ("user-agent",)
FOUR_MIB = 4 * 1024 * 1024

failures = 0


def verdict(holds, what, detail=""):
    global failures
    if not holds:
        failures += 1
    print(f"{'ok  ' if holds else 'FAIL'} grpcio: {what}{'' if holds else ': ' + detail}", flush=True)


def foreign(metadata):
    """Metadata that came from the other end, in order of name; within a name as it came."""
    fields = [
        (name, bytes(value) if isinstance(value, bytes) else value)
        for name, value in metadata or ()
        if not name.startswith(TOLD_BY_US) and name not in OF_THE_CONNECTION
    ]
    return sorted(fields, key=lambda field: field[0])


class Way:
    """One way to the server."""

    def __init__(self, name, address, metadata):
        self.name = name
        self.metadata = tuple(metadata.items())
        self.channel = grpc.insecure_channel(address)
        self.stub = echo_pb2_grpc.EchoStub(self.channel)

    def call(self, request, metadata=(), **options):
        """What the client sees, as a value that can be compared; and the exchange id."""
        try:
            response, call = self.stub.Say.with_call(
                request, metadata=self.metadata + tuple(metadata), **{"timeout": 30, **options}
            )
        except grpc.RpcError as error:
            call, response = error, None
        seen = {
            "code": call.code(),
            "details": call.details(),
            "initial": foreign(call.initial_metadata()),
            "trailing": foreign(call.trailing_metadata()),
        }
        if response is not None:
            seen["payload"] = response.payload
            seen["at the server"] = foreign((field.name, field.value) for field in response.metadata)
        told = dict((call.initial_metadata() or ())) | dict((call.trailing_metadata() or ()))
        return seen, told.get("trave-exchange-id"), response


def shortened(seen):
    return {key: (f"{len(value)} bytes" if key == "payload" else value) for key, value in seen.items()}


def difference(here, there):
    """What is not the same, each side in at most 300 characters."""
    names = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
    return "; ".join(f"{name}: direct {str(here.get(name)):.300}, through {str(there.get(name)):.300}" for name in names)


def compare(direct, through, what, request, metadata=(), expect=None, **options):
    """The same call both ways must look the same, and as expected."""
    here, _, _ = direct.call(request, metadata, **options)
    there, exchange, _ = through.call(request, metadata, **options)
    verdict(here == there, what, difference(here, there))
    if expect is not None:
        verdict(there["code"] == expect, f"{what}: {expect.name}", str(shortened(there)))
    if exchange is None:
        verdict(False, f"{what}: carries an exchange id", str(shortened(there)))
    return exchange


def check_metadata(direct, through):
    metadata = (
        ("say-plain", "value with spaces, commas and =;"),
        ("say-repeated", "first"),
        ("say-repeated", "second"),
        ("say-repeated", "first"),
        ("say-bytes-bin", bytes(range(256))),
        ("say-bytes-bin", b""),
        ("say-bytes-bin", b"\x00,\xff"),
        ("say-long", "x" * 5000),
    )
    request = echo_pb2.SayRequest(payload=b"hello")
    compare(direct, through, "metadata both ways, -bin and repeated keys", request, metadata, grpc.StatusCode.OK)


def check_statuses(direct, through):
    for code in grpc.StatusCode:
        number = code.value[0]
        if number == 0:
            continue
        request = echo_pb2.SayRequest(code=number, message=f"Größe {number} – 漢字 100 % \t\"'\\ end")
        compare(direct, through, f"status {code.name} with its message", request, (("say-why", "1"),), code)


def check_deadlines(direct, through):
    for way in (direct, through):
        _, _, response = way.call(echo_pb2.SayRequest(payload=b"?"), timeout=5)
        remaining = response.seconds_remaining if response else -1
        verdict(4 < remaining <= 5.01, f"a deadline of 5 s reaches the server, {way.name}", f"{remaining} s")
        began = time.monotonic()
        seen, _, _ = way.call(echo_pb2.SayRequest(payload=b"?", seconds=3), timeout=0.5)
        took = time.monotonic() - began
        verdict(
            seen["code"] == grpc.StatusCode.DEADLINE_EXCEEDED and took < 1.5,
            f"DEADLINE_EXCEEDED after 0.5 s, {way.name}",
            f"{seen['code']} after {took:.2f} s: {seen['details']}",
        )


def check_sizes(direct, through):
    # Both fields' headers take 7 bytes: the largest message that grpcio takes by default is 4 MiB as encoded.
    largest = echo_pb2.SayRequest(payload=b"\x5a" * (FOUR_MIB - 7), answer_bytes=1)
    verdict(largest.ByteSize() == FOUR_MIB, "the request is 4 MiB as encoded", str(largest.ByteSize()))
    for way in (direct, through):
        seen, _, response = way.call(largest)
        verdict(response is not None, f"4 MiB to the server, {way.name}", str(shortened(seen)))
        seen, _, response = way.call(echo_pb2.SayRequest(answer_bytes=FOUR_MIB - 4096))
        whole = response is not None and response.payload == b"\xa5" * (FOUR_MIB - 4096)
        verdict(whole, f"4 MiB from the server, {way.name}", str(shortened(seen)))
    both = echo_pb2.SayRequest(payload=bytes(i * 31 % 251 for i in range(FOUR_MIB - 4096)))
    compare(direct, through, "4 MiB both ways, byte for byte", both, expect=grpc.StatusCode.OK)
    compare(direct, through, "an empty message", echo_pb2.SayRequest(), expect=grpc.StatusCode.OK)
    # More than the client takes: the refusal is the client's own. Its text counts bytes, which our metadata adds to.
    refusals = [way.call(echo_pb2.SayRequest(answer_bytes=FOUR_MIB + 1))[0]["code"] for way in (direct, through)]
    verdict(refusals == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2, "more than the client takes", str(refusals))


def check_compression(direct, through):
    request = echo_pb2.SayRequest(payload=b"compressible " * 1000)
    gzip = grpc.Compression.Gzip
    compare(direct, through, "a compressed message", request, expect=grpc.StatusCode.OK, compression=gzip)


def check_unknown_method(direct, through):
    def call(way):
        method = way.channel.unary_unary("/interop.v1.Echo/Sing", bytes, bytes)
        try:
            method(b"", metadata=way.metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return None

    here, there = call(direct), call(through)
    verdict(here == there, "a method that the server does not have", f"direct {here}, through {there}")


def check_health(direct, through):
    """The register's own health service is a service like any other: one answer, and a stream that stays open."""

    def asked(way, service):
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            stub = health_pb2_grpc.HealthStub(way.channel)
            return stub.Check(request, metadata=way.metadata, timeout=30).status
        except grpc.RpcError as error:
            return error.code(), error.details()

    for service in ("", "interop.v1.Echo", "interop.v1.Ill", "nobody"):
        here, there = asked(direct, service), asked(through, service)
        verdict(here == there, f"health of {service or 'the server'}", f"direct {here}, through {there}")

    def watched(way):
        stub = health_pb2_grpc.HealthStub(way.channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), metadata=way.metadata, timeout=30)
        first = next(call).status
        call.cancel()
        return first

    here, there = watched(direct), watched(through)
    verdict(here == there, "health, watched", f"direct {here}, through {there}")


def check_reflection(direct, through):
    """Tools ask a server for its schema: what grpcurl does when it is given none."""

    def asked(way):
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="interop.v1.Echo"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="interop.v1.Nobody"),
        ]
        stub = reflection_pb2_grpc.ServerReflectionStub(way.channel)
        answers = stub.ServerReflectionInfo(iter(requests), metadata=way.metadata, timeout=30)
        return [answer.SerializeToString(deterministic=True) for answer in answers]

    here, there = asked(direct), asked(through)
    verdict(len(here) == 3 and here == there, "reflection", f"direct {here}, through {there}")


def check_concurrency(through):
    def one(number):
        payload = number.to_bytes(4, "big") * 256
        seen, exchange, _ = through.call(echo_pb2.SayRequest(payload=payload))
        return seen.get("payload") == payload, exchange

    with concurrent.futures.ThreadPoolExecutor(max_workers=64) as pool:
        results = list(pool.map(one, range(1000)))
    answered = sum(1 for own, _ in results if own)
    distinct = len({exchange for _, exchange in results})
    verdict(answered == 1000, "1000 calls, 64 at a time, each gets its own answer", f"{answered}")
    verdict(distinct == 1000, "1000 calls have 1000 exchange ids", f"{distinct}")


def main():
    direct_address, endpoints_file, exchange_file = sys.argv[1:]
    with open(endpoints_file, encoding="utf-8") as file:
        call = json.load(file)["call"]
    direct = Way("directly", direct_address, {})
    through = Way("through both security servers", call["address"], call["metadata"])

    request = echo_pb2.SayRequest(payload=b"who asks?")
    exchange = compare(direct, through, "a call", request, expect=grpc.StatusCode.OK)
    check_metadata(direct, through)
    check_statuses(direct, through)
    check_deadlines(direct, through)
    check_sizes(direct, through)
    check_compression(direct, through)
    check_unknown_method(direct, through)
    check_health(direct, through)
    check_reflection(direct, through)
    check_concurrency(through)
    with open(exchange_file, "w", encoding="ascii") as file:
        file.write(f"{exchange}\n")
    print(f"-- grpcio: {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
