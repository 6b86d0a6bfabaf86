"""Two parties whose every byte is known: tapped.py server|client PORT WAY.

The client begins; what both send is a matter of WAY. Each prints what it sent as a digest. A
line on standard input lets the client go on where it pauses.
"""

import hashlib
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path

side, port, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
server = side == "server"
sent = hashlib.blake2b()


def connect():
    if server:
        with socket.create_server(("127.0.0.1", port)) as listener:
            return listener.accept()[0]
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise ConnectionRefusedError


def send(data):
    sent.update(data)
    connection.sendall(data)


def receive(size):
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        assert piece
        got += piece


def turns(sizes, seed):
    """The client sends, the server answers with as much of its own."""
    bytes_of = random.Random(seed + server).randbytes
    for size in sizes:
        if not server:
            send(bytes_of(size))
        receive(size)
        if server:
            send(bytes_of(size))


def pause():
    if not server:
        print("paused", flush=True)
        sys.stdin.readline()


connection = connect()
if way == "sizes":
    turns([1, 7, 255, 1000, 32768, 32769, 65535, 65536, 200_000, 3, 1_000_000], 1)
elif way == "pauses":
    turns([10] * 20, 1)
    pause()
    turns([100] * 20, 2)
    pause()
    turns([1000] * 20, 3)
elif way == "forks":
    # Parent and child send in turn, through the same end.
    turns([50] * 20, 1)
    pause()
    for number in range(10):
        if server:
            sent.update(b"%d" % number)
            if number % 2 == 0:
                connection.sendall(b"%d" % number)
            elif (pid := os.fork()) == 0:
                connection.sendall(b"%d" % number)
                os._exit(0)
            else:
                os.waitpid(pid, 0)
        else:
            receive(1)
elif way == "grandchild":
    # Forked before anybody taps; it sends when somebody does.
    turns([50] * 20, 1)
    pause_over, tell = os.pipe()
    if server and os.fork() == 0:
        os.read(pause_over, 1)
        for _ in range(200):
            connection.sendall(b"c" * 10)
            time.sleep(0.005)
        os._exit(0)
    pause()
    if server:
        receive(2)
        os.write(tell, b"!")
        sent.update(b"c" * 2000)
        os.wait()
    else:
        send(b"go")
        receive(2000)
elif way == "threads":
    turns([10] * 20, 1)
    parts = [bytes([65 + number]) * 1000 for number in range(4)]
    if server:
        receive(4 * 300 * 1000)
    else:
        threads = [
            threading.Thread(
                target=lambda part: [connection.sendall(part) for _ in range(300)], args=(part,)
            )
            for part in parts
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
elif way == "sendfile":
    with Path(__file__).open("rb") as file:
        if server:
            receive(os.fstat(file.fileno()).st_size)
        else:
            sent.update(file.read())
            file.seek(0)
            connection.sendfile(file)
elif way == "unread":
    turns([10] * 20, 1)
    if server:
        receive(1)
        connection.close()
    else:
        connection.sendall(b"x" * 1000)
        time.sleep(0.3)
elif way == "killed":
    turns([10] * 20, 1)
    if not server:
        print("paused", flush=True)
        os.kill(os.getpid(), 9)
connection.close()
print(sent.hexdigest(), flush=True)
