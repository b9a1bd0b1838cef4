"""A register of large files: GET gives the file, PUT takes whatever comes and answers with its SHA-256.

usage: server.py ADDRESS_FILE FILE
"""

import hashlib
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

PIECE = 1 << 18


class Register(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(sys.argv[2], "rb") as file:
            length = os.fstat(file.fileno()).st_size
            self.send_response(200)
            self.send_header("content-length", str(length))
            self.send_header("content-type", "application/octet-stream")
            self.end_headers()
            self.connection.sendfile(file)

    def do_PUT(self):
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        answer = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def pieces(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            yield from self.read(int(self.headers["content-length"]))
            return
        while length := int(self.rfile.readline().split(b";")[0], 16):
            yield from self.read(length)
            self.rfile.readline()
        self.rfile.readline()

    def read(self, left):
        while left:
            piece = self.rfile.read1(min(left, PIECE))
            if not piece:
                raise ConnectionError("the body ended early")
            left -= len(piece)
            yield piece

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


with Server(("127.0.0.1", 0), Register) as server:
    with open(sys.argv[1] + ".new", "w", encoding="ascii") as told:
        told.write("%s:%d" % server.server_address)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()
