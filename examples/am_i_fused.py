"""Asks of its own socket whether it is fused: run it plain, and under loopfuse.

    python examples/am_i_fused.py
    loopfuse run -- python examples/am_i_fused.py

Shows `is_fused`. A program may use it to choose between compressing and not, for example.
"""

import socket
import sys
import threading

import loopfuse


def echo(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    with sock:
        while data := sock.recv(4096):
            sock.sendall(data)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,))
        thread.start()
        with socket.create_connection(listener.getsockname()) as sock:
            print("at first:", "fused" if loopfuse.is_fused(sock) else "plain TCP")
            for _ in range(2000):
                sock.sendall(b"x")
                sock.recv(1)
            print("after 2000 round trips:", "fused" if loopfuse.is_fused(sock) else "plain TCP")
        thread.join()


if __name__ == "__main__":
    try:
        main()
    except loopfuse.LoopfuseError as error:
        sys.exit(f"{error}")
