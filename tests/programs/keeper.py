"""One end of a connection that stays: for whoever looks at it from outside.

    keeper.py server PORT          accepts one connection and echoes
    keeper.py client PORT ROUNDS   makes so many round trips of a byte

Says "ready" once it is done with that, and holds the connection until its input ends.
"""

import socket
import sys
import threading

port = int(sys.argv[2])


def echo() -> None:
    listener = socket.create_server(("127.0.0.1", port))  # stays, as a real server's does
    sock, _ = listener.accept()
    while data := sock.recv(100):
        sock.sendall(data)


if sys.argv[1] == "server":
    threading.Thread(target=echo, daemon=True).start()
else:
    sock = socket.create_connection(("127.0.0.1", port))
    for _ in range(int(sys.argv[3])):
        sock.sendall(b"x")
        sock.recv(1)
print("ready", flush=True)
sys.stdin.read()
