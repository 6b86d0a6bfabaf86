"""order.py ROUNDS: an epoll server and a client with several connections, one process each.

Each round sends on one connection, then on another that is answered. Prints how often the
server, asleep or idle when the first bytes came, was shown the second ones first.
"""

import os
import selectors
import socket
import sys
import time

QUIET = 4
"""Connections that are not answered."""


def serve(listener: socket.socket) -> int:
    poll = selectors.EpollSelector()
    for place in range(QUIET + 1):
        sock, _ = listener.accept()
        sock.setblocking(False)
        poll.register(sock, selectors.EVENT_READ, place)
    got = late = 0
    while True:
        for key, _ in poll.select():
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(4096)
            if key.data < QUIET:
                got += len(data)
            elif not data:
                return late
            else:
                late += got < int.from_bytes(data, "big")
                key.fileobj.send(b"k")


def main(rounds: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        print(serve(listener), flush=True)
        os._exit(0)
    address = listener.getsockname()
    quiet = [socket.create_connection(address) for _ in range(QUIET)]
    answered = socket.create_connection(address)
    for sent in range(1, rounds + 1):
        quiet[sent % QUIET].send(b"x")
        answered.send(sent.to_bytes(8, "big"))
        answered.recv(1)
        time.sleep(0.0005)
    answered.close()
    os.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
