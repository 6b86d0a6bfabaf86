"""A peer is killed with bytes unread, and the socket is inherited by a program that does not read.

    after_kill.py SCENARIO      restart, whole, stopped, epoll, poll

Knows nothing of loopfuse; see killed_peer.py.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import killed_peer
from mapped import has_a_segment

killed_peer.DATA *= 4


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def read_to_end(s: socket.socket) -> int:
    count = 0
    while part := s.recv(1 << 16):
        count += len(part)
    return count


def restart(s: socket.socket, child: int, sent: int) -> None:
    """The peer was a server; the next one takes its port."""
    address = s.getpeername()
    end(child)
    inherit(s)
    with socket.socket(s.family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    print(read_to_end(s) == sent)


def whole(s: socket.socket, child: int, sent: int) -> None:
    """Who goes on with it reads all, however much that is."""
    end(child)
    inherit(s)
    print(read_to_end(s) == sent)


def stopped(s: socket.socket, child: int, sent: int) -> None:
    """It is killed while the socket is being handed on."""
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.3, end, [child]).start()
    done = subprocess.run(
        ["/usr/bin/sha256sum"], stdin=s, env=killed_peer.BARE, stdout=subprocess.PIPE, check=True
    )
    wanted = hashlib.sha256(killed_peer.DATA[:sent]).hexdigest()
    print(done.stdout.split()[0].decode() == wanted)


def epoll(s: socket.socket, child: int, sent: int) -> None:
    """A thread that wants to hear of errors alone hears of none."""
    with select.epoll() as epoll:
        epoll.register(s, 0)
        told_meanwhile(s, child, sent, lambda: epoll.poll(1))


def poll(s: socket.socket, child: int, sent: int) -> None:
    """The same."""
    poll = select.poll()
    poll.register(s, 0)
    told_meanwhile(s, child, sent, lambda: poll.poll(1000))


def told_meanwhile(
    s: socket.socket, child: int, sent: int, wait: Callable[[], list[tuple[int, int]]]
) -> None:
    end(child)
    told: list[tuple[int, int]] = []
    waiter = threading.Thread(target=lambda: told.extend(wait()))
    waiter.start()
    time.sleep(0.2)
    inherit(s)
    waiter.join()
    print(not told and read_to_end(s) == sent)


def inherit(s: socket.socket) -> None:
    time.sleep(0.05)  # FIN is on its way
    s.set_inheritable(True)
    subprocess.run(["/bin/true"], close_fds=False, env=killed_peer.BARE, check=True)


def main(scenario: str) -> None:
    if scenario != "whole":
        killed_peer.DATA = killed_peer.DATA[:30_000]
    s, child, read = killed_peer.connection("4", "c")
    killed_peer.warm(s, leads=False)
    sent = int(os.read(read, 100))
    print("fused" if has_a_segment() else "plain", file=sys.stderr)
    for act in (restart, whole, stopped, epoll, poll):
        if act.__name__ == scenario:
            act(s, child, sent)


if __name__ == "__main__":
    main(*sys.argv[1:])
