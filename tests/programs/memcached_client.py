"""Sets and gets over memcached's text protocol: memcached_client.py PORT."""

import socket
import sys

COUNT = 3000
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as server:
    for i in range(COUNT):
        value = b"v%d" % i * (1 + i % 50)
        server.sendall(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(value), value))
        assert server.recv(100) == b"STORED\r\n"
        server.sendall(b"get k%d\r\n" % i)
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += server.recv(4096)
        assert answer == b"VALUE k%d 0 %d\r\n%s\r\nEND\r\n" % (i, len(value), value)
print(COUNT, "ok")
