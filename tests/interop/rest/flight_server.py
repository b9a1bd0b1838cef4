"""Arrow's Flight server with the tables that were put into it. usage: flight_server.py ADDRESS_FILE"""

import sys

import pyarrow
import pyarrow.flight as flight


class Tables(flight.FlightServerBase):
    def __init__(self):
        super().__init__("grpc://127.0.0.1:0")
        self.tables = {"betriebe": pyarrow.table({"firma": ["Tischlerei Wellenschlag"] * 50_000, "nr": range(50_000)})}

    def list_flights(self, context, criteria):
        for name, table in sorted(self.tables.items()):
            descriptor = flight.FlightDescriptor.for_path(name)
            endpoint = flight.FlightEndpoint(name, [])
            yield flight.FlightInfo(table.schema, descriptor, [endpoint], table.num_rows, -1)

    def do_get(self, context, ticket):
        return flight.RecordBatchStream(self.tables[ticket.ticket.decode()])

    def do_put(self, context, descriptor, reader, writer):
        self.tables[descriptor.path[0].decode()] = reader.read_all()


server = Tables()
with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write(f"127.0.0.1:{server.port}")
server.serve()
