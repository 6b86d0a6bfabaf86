"""One end of an endless conversation: talker.py server|client PORT.

Says "begun" after the first message has gone back and forth, "talking" after a few hundred.
Ends with status 0 when the other end is gone (end of file, or an error that says so).
"""

import contextlib
import socket
import sys

MESSAGE = 500
SAYINGS = {1: "begun", 300: "talking"}
GONE = (ConnectionResetError, BrokenPipeError)


def take(connection: socket.socket) -> bool:
    got = 0
    while got < MESSAGE:
        data = connection.recv(MESSAGE - got)
        if not data:
            return False
        assert data == b"m" * len(data)
        got += len(data)
    return True


def talk(connection: socket.socket, first: bool) -> None:
    rounds = 0
    while True:
        if first:
            connection.sendall(b"m" * MESSAGE)
        if not take(connection):
            return
        if not first:
            connection.sendall(b"m" * MESSAGE)
        rounds += 1
        if rounds in SAYINGS:
            print(SAYINGS[rounds], flush=True)


port = int(sys.argv[2])
if sys.argv[1] == "server":
    with socket.create_server(("127.0.0.1", port)) as listener:
        end, _ = listener.accept()
else:
    end = socket.create_connection(("127.0.0.1", port))
with contextlib.suppress(GONE):
    talk(end, sys.argv[1] == "client")
