"""An echo server that reverses what it gets: servers.py fork|prefork|thread PORT."""

import os
import signal
import socket
import sys
import threading

CHILDREN = 4


def serve(connection: socket.socket) -> None:
    while data := connection.recv(1000):
        connection.sendall(data[::-1])
    connection.close()


def fork_per_connection(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve(connection)
            os._exit(0)
        connection.close()


def prefork(listener: socket.socket) -> None:
    for _ in range(CHILDREN):
        if os.fork() == 0:
            while True:
                serve(listener.accept()[0])
    signal.pause()


def thread_per_connection(listener: socket.socket) -> None:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


shapes = {"fork": fork_per_connection, "prefork": prefork, "thread": thread_per_connection}
shapes[sys.argv[1]](socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=1000))
