"""activating_client.py PORT: talks to an activated holder (holder.c), says what it heard."""

import socket
import sys

ROUNDS = 400
COUNT = 3000


def main():
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
        for number in range(ROUNDS):
            byte = b"w" if number < ROUNDS - 1 else b"W"
            sock.sendall(byte)
            assert sock.recv(1) == byte
        sock.sendall(bytes(range(250)) * (COUNT // 250))
        with sock.makefile("rb") as stream:
            print(stream.readline())
            sock.sendall(b"more!")
            print(stream.read())


if __name__ == "__main__":
    main()
