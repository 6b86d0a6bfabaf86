"""Both ends of a connection, in a process that has set up an io_uring or not."""

import ctypes
import socket
import sys
import time

from mapped import has_a_segment

SYS_IO_URING_SETUP = 425

if sys.argv[1] == "ring":
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_IO_URING_SETUP, 4, ctypes.create_string_buffer(120)) < 0:
        print("no io_uring here:", ctypes.get_errno())
        sys.exit()
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()

# On a busy machine the broker takes its time.
deadline = time.monotonic() + (0.5 if sys.argv[1] == "ring" else 10)
over = False
while not over:
    over = has_a_segment() or time.monotonic() > deadline
    for _ in range(100):
        client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)
print("done")
