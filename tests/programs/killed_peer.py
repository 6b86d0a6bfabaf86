"""A peer is killed with bytes unread; who knows only TCP gets the socket then.

    killed_peer.py FAMILY SIDE      4, 6 or mapped; which end lives on: s or c

Says what the new holder finds, and what this process finds afterwards; knows nothing of loopfuse.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from mapped import has_a_segment

HOSTS = {"4": "127.0.0.1", "6": "::1", "mapped": "::ffff:127.0.0.1"}
DATA = bytes(range(250)) * 4000
BARE = {"PATH": "/usr/bin:/bin"}


def warm(s: socket.socket, *, leads: bool) -> None:
    """Rounds until the one that lives on has a segment, and a few more."""
    deadline = time.monotonic() + 10
    rest = 50
    while rest:
        if leads:
            s.sendall(b"w")
            byte = s.recv(1)
            rest -= byte == b"m"
        else:
            s.recv(1)
            ready = "LD_PRELOAD" not in os.environ or has_a_segment()
            byte = b"m" if ready or time.monotonic() > deadline else b"w"
            s.sendall(byte)
            rest -= byte == b"m"


def fill(s: socket.socket) -> int:
    """DATA, or as much of it as goes at once."""
    sent = 0
    s.setblocking(False)
    while sent < len(DATA):
        try:
            sent += s.send(DATA[sent:])
        except BlockingIOError:
            break
    return sent


def new_socket(kind: int) -> socket.socket:
    """Of IPv6, one for mapped addresses, too, whatever the default."""
    s = socket.socket(kind)
    if kind == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return s


def send_and_wait(s: socket.socket, write: int) -> None:
    os.write(write, str(fill(s)).encode())
    signal.pause()


def connection(
    family: str, side: str, act: Callable[[socket.socket, int], None] = send_and_wait
) -> tuple[socket.socket, int, int]:
    """The end that lives on; the other process, which acts; a pipe on which that says how much it
    sent."""
    listener = new_socket(socket.AF_INET if family == "4" else socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOSTS[family], 0))
    listener.listen()
    read, write = os.pipe()
    here, there = (accept, connect) if side == "s" else (connect, accept)
    if (child := os.fork()) == 0:
        signal.alarm(60)  # where nobody is left to kill it
        s = there(listener)
        warm(s, leads=True)
        act(s, write)
        os._exit(0)
    os.close(write)
    return here(listener), child, read


def accept(listener: socket.socket) -> socket.socket:
    return listener.accept()[0]


def connect(listener: socket.socket) -> socket.socket:
    s = new_socket(listener.family)
    s.connect(listener.getsockname())
    return s


def attempt(s: socket.socket) -> str:
    """Sends until that fails."""
    for _ in range(100):
        try:
            s.send(b"x", socket.MSG_NOSIGNAL)
        except OSError as e:
            return errno.errorcode[e.errno]
        time.sleep(0.01)
    return "sent"


def main(family: str, side: str) -> None:
    s, child, read = connection(family, side)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    names = s.getpeername(), s.getsockname()
    warm(s, leads=False)
    print("fused" if has_a_segment() else "plain", file=sys.stderr)
    sent = int(os.read(read, 100))
    got = len(s.recv(1000))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    time.sleep(0.05)
    done = subprocess.run(
        ["/usr/bin/sha256sum"], stdin=s, env=BARE, stdout=subprocess.PIPE, text=True, check=True
    )
    print(done.stdout.split()[0] == hashlib.sha256(DATA[got:sent]).hexdigest())
    print(sent, file=sys.stderr)
    print(s.recv(1), s.getpeername() == names[0])
    print(s.getsockname()[0] == names[1][0], side == "s" or s.getsockname() == names[1])
    print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), attempt(s))


if __name__ == "__main__":
    main(*sys.argv[1:])
