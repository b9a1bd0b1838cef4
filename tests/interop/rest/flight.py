"""pyarrow's Flight client: list, get and put, directly and through both security servers' gRPC doors.

usage: flight.py DIRECT_ADDRESS ENDPOINTS_JSON
"""

import json
import sys

import pyarrow
import pyarrow.flight as flight


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        call = json.load(file)["call"]
    metadata = [(name.encode(), value.encode()) for name, value in call["metadata"].items()]
    ways = [
        (flight.connect(f"grpc://{sys.argv[1]}"), flight.FlightCallOptions(timeout=60)),
        (flight.connect(f"grpc://{call['address']}"), flight.FlightCallOptions(timeout=60, headers=metadata)),
    ]
    failures = 0

    def same(what, do):
        nonlocal failures
        here, there = (do(client, options) for client, options in ways)
        failures += here != there
        print(f"{'ok  ' if here == there else 'FAIL'} rest: Flight {what}", flush=True)

    def listed(client, options):
        return [(info.descriptor.path, info.total_records) for info in client.list_flights(options=options)]

    def put(client, options):
        table = pyarrow.table({"zahl": range(200_000)})
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("zahlen"), table.schema, options)
        writer.write_table(table, max_chunksize=20_000)
        writer.close()
        return client.do_get(flight.Ticket("zahlen"), options).read_all().equals(table)

    same("list", listed)
    same("get", lambda client, options: client.do_get(flight.Ticket("betriebe"), options).read_all())
    same("put, and get of what was put", lambda client, options: put(client, options) or object())
    same("list after put", listed)
    print(f"-- pyarrow {pyarrow.__version__}: {failures} failed")
    return failures


sys.exit(1 if main() else 0)
