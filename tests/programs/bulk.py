"""Many bytes one way, hashed at both ends: bulk.py server PORT | bulk.py client PORT BYTES."""

import hashlib
import os
import socket
import sys
import time

CHUNK = 1 << 20
port = int(sys.argv[2])
digest = hashlib.blake2b()
if sys.argv[1] == "server":
    with socket.create_server(("127.0.0.1", port)) as listener:
        connection, _ = listener.accept()
    while data := connection.recv(CHUNK):
        digest.update(data)
else:
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    else:
        raise ConnectionRefusedError(f"nobody listens on port {port}")
    left = int(sys.argv[3])
    chunk = os.urandom(CHUNK)
    while left:
        piece = chunk[: min(left, CHUNK)]
        digest.update(piece)
        connection.sendall(piece)
        left -= len(piece)
    connection.close()
print(digest.hexdigest())
