"""An end leaves its ring with bytes unread there, and goes on by TCP; then the other one moves.

    both_move.py LEAVES READS UNREAD MORE

LEAVES: exec, child (whose stdout it is), pass (SCM_RIGHTS), closes (by an exec; MORE is 0), or an
option; of which some hold up what TCP gets then: corked, paced, repair. READS: exec, pass, or how
this process reads on: all (MSG_WAITALL), peek, pieces, edges (epoll), polled. Says whether each
byte came; knows nothing of loopfuse.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import select
import socket
import subprocess
import sys
import termios
import time

from killed_peer import BARE, accept, connect, warm
from mapped import has_a_segment

HEADER = b"Greetings\n"
SO_MAX_PACING_RATE, TCP_REPAIR = 47, 19


def unread(n: int) -> bytes:
    return (bytes(range(1, 251)) * (n // 250 + 1))[:n]


def passed(s: socket.socket) -> socket.socket:
    """The same, out of a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, s:
        socket.send_fds(ours, [b"x"], [s.fileno()])
        return socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0])


def leave(s: socket.socket, how: str, more: int) -> None:
    """Sends `more` zeros behind what is unread."""
    zeros = ["/usr/bin/head", "-c", str(more), "/dev/zero"]
    if how == "exec":
        os.dup2(s.fileno(), 1)
        os.execve(zeros[0], zeros, BARE)
    elif how == "child":
        subprocess.run(zeros, stdout=s, env=BARE, check=True)
    elif how == "pass":
        passed(s).sendall(bytes(more))
    elif how == "closes":
        os.execve("/bin/true", ["true"], BARE)
    else:
        set_options(s, how)
        s.sendall(bytes(more))


def set_options(s: socket.socket, how: str) -> None:
    if how == "corked":
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    if how == "paced":
        s.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 400_000)
    elif how == "repair":
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    else:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if how != "option":
        time.sleep(0.6)  # what is held up comes meanwhile


def queued(s: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(s, termios.FIONREAD, count)
    return count[0]


def by_edges(s: socket.socket) -> bytes:
    s.setblocking(False)
    got = b""
    with select.epoll() as epoll:
        epoll.register(s, select.EPOLLIN | select.EPOLLET)
        while epoll.poll(10):
            try:
                while part := s.recv(1000):
                    got += part
                return got
            except BlockingIOError:
                pass
    return got


def by_polls(s: socket.socket) -> bytes:
    got = b""
    poll = select.poll()
    poll.register(s, select.POLLIN)
    while poll.poll(10_000):
        try:
            part = s.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            print(f"nothing to read after all, behind {len(got)}")
            continue
        if not part:
            break
        got += part
    return got


def by_pieces(s: socket.socket) -> bytes:
    got = b""
    while part := s.recv(700):
        before = queued(s)
        ahead = len(s.recv(700, socket.MSG_PEEK | socket.MSG_DONTWAIT)) if before else 0
        if ahead != min(before, 700):
            print(f"{ahead} of {before} bytes shown")
        got += part
    return got


def everything(s: socket.socket, how: str, n: int) -> bytes:
    if how == "all":
        return s.recv(n, socket.MSG_WAITALL)
    if how == "peek":
        shown = s.recv(n, socket.MSG_PEEK)
        return shown if s.recv(n, socket.MSG_WAITALL)[: len(shown)] == shown else b""
    if how == "pieces":
        return by_pieces(s)
    return by_polls(s) if how == "polled" else by_edges(s)


def checksum(s: socket.socket) -> None:
    os.dup2(s.fileno(), 0)
    os.execve("/usr/bin/sha256sum", ["sha256sum"], BARE)


def main(leaves: str, reads: str, n: int, more: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    out = os.dup(1)
    if os.fork() == 0:
        s = connect(listener)
        listener.close()
        warm(s, leads=True)
        s.sendall(HEADER + unread(n))
        leave(s, leaves, more)
        os._exit(0)
    s = accept(listener)
    listener.close()
    warm(s, leads=False)
    print("fused" if has_a_segment() else "plain", file=sys.stderr)
    header = s.recv(len(HEADER), socket.MSG_WAITALL)
    if leaves == "closes":
        s.shutdown(socket.SHUT_WR)  # then no new connection can bring what is unread
    time.sleep(0.15)
    data = unread(n) + bytes(more)
    os.write(out, f"{header!r} {hashlib.sha256(data).hexdigest()}\n".encode())
    if reads in ("exec", "pass"):
        checksum(passed(s) if reads == "pass" else s)
    got = everything(s, reads, len(data))
    print(len(got), got == data, s.recv(1))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
