"""A thread with connections in an epoll set, in rounds: the first one wakes it, and so many others
have news while it is awake.

Prints the client's port of the first and those of the others when all rounds are over, then waits
for a line.
"""

import os
import resource
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


def send_in_turn(first: socket.socket, others: list[socket.socket], awake: int, sent: int) -> None:
    for _ in range(ROUNDS):
        time.sleep(0.02)  # until it sleeps; if it does not, nobody is rung for
        first.send(b"a")
        os.read(awake, 1)
        for other in others:
            other.send(b"b")
        os.write(sent, b"x")
        os.read(awake, 1)  # it has them all


def receive(first: socket.socket, others: list[socket.socket], awake: int, sent: int) -> None:
    epoll = select.epoll()
    epoll.register(first, select.EPOLLIN)
    by_number = {other.fileno(): other for other in others}
    for number in by_number:
        epoll.register(number, select.EPOLLIN)
    for _ in range(ROUNDS):
        while first.fileno() not in dict(epoll.poll()):
            pass
        first.recv(1)
        os.write(awake, b"x")
        os.read(sent, 1)
        silent = set(by_number)
        while silent:
            for number, _ in epoll.poll():
                by_number[number].recv(1)
                silent.remove(number)
        os.write(awake, b"x")


def main(count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", 0))
    first, *others = (connect(listener) for _ in range(1 + count))
    ports = [client.getsockname()[1] for client, _ in (first, *others)]
    is_awake, awake = os.pipe()
    is_sent, sent = os.pipe()
    child = os.fork()
    mine = 0 if child == 0 else 1
    for pair in (first, *others):
        pair[1 - mine].close()
    ends = [pair[mine] for pair in others]
    if child == 0:
        send_in_turn(first[mine], ends, is_awake, sent)
        os.read(is_awake, 1)
        os._exit(0)
    receive(first[mine], ends, awake, is_sent)
    print("done", *ports, flush=True)
    sys.stdin.readline()
    os.write(awake, b"x")
    os.waitpid(child, 0)


main(int(sys.argv[1]))
