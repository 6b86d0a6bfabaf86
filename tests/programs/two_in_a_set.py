"""A thread with two connections in an epoll set, in rounds: the first one wakes it, and the
second has news while it is awake.

Prints the client's ports of the first and of the second when all rounds are over, then waits for
a line.
"""

import os
import select
import socket
import sys
import time

ROUNDS = 20


def connect(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def send_in_turn(first: socket.socket, second: socket.socket, awake: int, sent: int) -> None:
    for _ in range(ROUNDS):
        time.sleep(0.02)  # until it sleeps; if it does not, nobody is rung for
        first.send(b"a")
        os.read(awake, 1)
        second.send(b"b")
        os.write(sent, b"x")


def receive(first: socket.socket, second: socket.socket, awake: int, sent: int) -> None:
    epoll = select.epoll()
    epoll.register(first, select.EPOLLIN)
    epoll.register(second, select.EPOLLIN)
    for _ in range(ROUNDS):
        while first.fileno() not in dict(epoll.poll()):
            pass
        first.recv(1)
        os.write(awake, b"x")
        os.read(sent, 1)
        while second.fileno() not in dict(epoll.poll()):
            pass
        second.recv(1)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    first, second = connect(listener), connect(listener)
    ports = [pair[0].getsockname()[1] for pair in (first, second)]
    is_awake, awake = os.pipe()
    is_sent, sent = os.pipe()
    child = os.fork()
    if child == 0:
        first[1].close()
        second[1].close()
        send_in_turn(first[0], second[0], is_awake, sent)
        os.read(is_awake, 1)
        os._exit(0)
    first[0].close()
    second[0].close()
    receive(first[1], second[1], awake, is_sent)
    print("done", *ports, flush=True)
    sys.stdin.readline()
    os.write(awake, b"x")
    os.waitpid(child, 0)


main()
