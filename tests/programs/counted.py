"""Two ends that say a script to each other: counted.py PORT server|client WORD...

send:N:SIZE      the client sends so many messages, the server answers once it has all
late:N:MS        the same with one byte each, MS milliseconds apart (20 at least)
pingpong:N       one byte there and back
flood:SIZE       one send while the server is late to read
wait:HOW         how the server waits from then on: block, poll or epoll

When all is said the client prints "done"; both stay until its input ends.
"""

from __future__ import annotations

import select
import socket
import sys
import time

port, side, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]


def receive(sock: socket.socket, size: int, how: str) -> None:
    while size:
        if how == "poll":
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            poll.poll()
        elif how == "epoll":
            epoll.poll()
        got = sock.recv(min(size, 1 << 16))
        if not got:
            sys.exit("the other end has gone")
        size -= len(got)


def server(sock: socket.socket) -> None:
    how = next((word.split(":")[1] for word in words if word.startswith("wait:")), "block")
    for word in words:
        kind, *numbers = word.split(":")
        if kind == "send":
            receive(sock, int(numbers[0]) * int(numbers[1]), how)
            sock.sendall(b"!")
        elif kind == "late":
            receive(sock, int(numbers[0]), how)
            sock.sendall(b"!")
        elif kind == "pingpong":
            for _ in range(int(numbers[0])):
                receive(sock, 1, how)
                sock.sendall(b"!")
        elif kind == "flood":
            time.sleep(0.3)
            receive(sock, int(numbers[0]), how)
            sock.sendall(b"!")
    sock.recv(1)


def client(sock: socket.socket) -> None:
    for word in words:
        kind, *numbers = word.split(":")
        if kind == "send":
            message = bytes(int(numbers[1]))
            for _ in range(int(numbers[0])):
                sock.sendall(message)
            sock.recv(1)
        elif kind == "late":
            for _ in range(int(numbers[0])):
                time.sleep(max(int(numbers[1]), 20) / 1000)
                sock.sendall(b"?")
            sock.recv(1)
        elif kind == "pingpong":
            for _ in range(int(numbers[0])):
                sock.sendall(b"?")
                sock.recv(1)
        elif kind == "flood":
            sock.sendall(bytes(int(numbers[0])))
            sock.recv(1)
    time.sleep(0.1)  # the server lies down
    print("done", flush=True)
    sys.stdin.read()


if side == "server":
    with socket.create_server(("127.0.0.1", port)) as listener:
        accepted, _ = listener.accept()
        epoll = select.epoll()
        epoll.register(accepted, select.EPOLLIN)
        server(accepted)
else:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        client(sock)
