"""A peer is killed with bytes unread, and the socket is inherited by a program that does not read.

    after_kill.py SCENARIO      restart, whole, stopped, epoll, poll, firewall, last_number,
                                forks

Knows nothing of loopfuse; see killed_peer.py.
"""

from __future__ import annotations

import hashlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import killed_peer
from mapped import has_a_segment

killed_peer.DATA *= 4
NO_SYN = """
add table closed
add chain closed input { type filter hook input priority 0; }
add rule closed input tcp flags syn drop
"""


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
    """The peer's port is a server's again: who wants to have it tries for a while."""
    end(child)
    told: list[tuple[int, int]] = []
    waiter = threading.Thread(target=lambda: told.extend(wait()))
    with socket.create_server(s.getpeername()):
        waiter.start()
        time.sleep(0.2)
        inherit(s)
        waiter.join()
    print(not told and read_to_end(s) == sent)


def firewall(s: socket.socket, child: int, sent: int) -> None:
    """Nobody can connect to anybody any more. To be run in a network namespace."""
    end(child)
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        ["nft", "-f", "-"], input=NO_SYN, env=path, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print("no firewall:", done.stderr)
        return
    inherit_by_fork(s)
    print(read_to_end(s) == sent)


def last_number(s: socket.socket, child: int, sent: int) -> None:
    """There is a number for one descriptor more."""
    end(child)
    time.sleep(0.05)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        os.close(taken.pop())
    inherit_by_fork(s)
    print(read_to_end(s) == sent)


class Forks(threading.Thread):
    """Makes processes, which live on and close their copy of the socket."""

    def __init__(self, s: socket.socket) -> None:
        super().__init__()
        self.enough = threading.Event()
        self.made: list[int] = []
        self._s = s

    def run(self) -> None:
        while not self.enough.is_set() and len(self.made) < 60:
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                self._s.close()
                signal.pause()
            self.made.append(child)


def forks(s: socket.socket, child: int, sent: int) -> None:
    """Another thread makes processes meanwhile. To be run in a network namespace.

    The peer's port is a server's again: who wants to have it tries for a while.
    """
    end(child)
    server = socket.create_server(s.getpeername())
    time.sleep(0.05)
    before = listeners()
    others = Forks(s)
    s.set_inheritable(True)
    others.start()
    time.sleep(0.003)
    os.system("true")  # which inherits it, and does not read
    others.enough.set()
    others.join()
    s.settimeout(2)
    try:
        print(read_to_end(s) == sent, listeners() - before)
    finally:
        server.close()
        for other in others.made:
            end(other)


def listeners() -> int:
    """How many there are in this namespace."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[3] == "0A" for line in lines)


def inherit(s: socket.socket) -> None:
    time.sleep(0.05)  # FIN is on its way
    s.set_inheritable(True)
    subprocess.run(["/bin/true"], close_fds=False, env=killed_peer.BARE, check=True)


def inherit_by_fork(s: socket.socket) -> None:
    """This process does nothing for it, and needs no number."""
    time.sleep(0.05)
    s.set_inheritable(True)
    if (child := os.fork()) == 0:
        os.execve("/bin/true", ["true"], killed_peer.BARE)
    os.waitpid(child, 0)


def main(scenario: str) -> None:
    if scenario != "whole":
        killed_peer.DATA = killed_peer.DATA[:30_000]
    s, child, read = killed_peer.connection("4", "c")
    killed_peer.warm(s, leads=False)
    sent = int(os.read(read, 100))
    print("fused" if has_a_segment() else "plain", file=sys.stderr)
    SCENARIOS[scenario](s, child, sent)


SCENARIOS = {
    "restart": restart,
    "whole": whole,
    "stopped": stopped,
    "epoll": epoll,
    "poll": poll,
    "firewall": firewall,
    "last_number": last_number,
    "forks": forks,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
