"""Acts out one cell: forks the two parties, tells them what to do, writes down what they say."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from typing import Any

from teardown.cells import Cell
from teardown.loopback import own_namespace, set_loopback
from teardown.parties import BUFFER, SETTLE, Goer, Stayer

ENDED = "ended"
"""The answer of a party that is no more."""
LIVES_ON = {"shut-wr", "shut-rd", "shut-rdwr", "shut-rdwr-both", "destroy-there", "destroy-here"}
"""Ways after which the one that went is there and can say what it sees."""
_PATIENCE = 15.0


class Party:
    """A forked process that does the methods of `role` on demand."""

    def __init__(self, role: Callable[[], Any]) -> None:
        orders, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(orders[1])
            os.close(answers[0])
            _serve(role, orders[0], answers[1])
        os.close(orders[0])
        os.close(answers[1])
        self._write, self._read = orders[1], answers[0]

    def tell(self, what: str) -> None:
        os.write(self._write, what.encode() + b"\n")

    def hear(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._read], [], [], _PATIENCE)[0]:
                return "hung"
            if not (part := os.read(self._read, 4096)):
                return ENDED
            line += part
        return line.decode().strip().replace("\\n", "\n")

    def ask(self, what: str) -> str:
        self.tell(what)
        return self.hear()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._write)
        os.close(self._read)


def _serve(make: Callable[[], Any], read: int, write: int) -> None:
    """Does not return."""
    try:
        role = make()
        while line := os.read(read, 100):
            said = getattr(role, line.decode().strip())()
            os.write(write, f"{said}\n".encode())
    except BaseException:
        os.write(write, (traceback.format_exc().replace("\n", "\\n") + "\n").encode())
    os._exit(0)


def _destroy(port: int, peer: int) -> None:
    """`ss -K`. Raises RuntimeError where the kernel can't."""
    ss = shutil.which("ss", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not ss:
        raise RuntimeError("ss is not installed: scripts/debian test")
    which = f"sport = :{port} and dport = :{peer}"
    done = subprocess.run(
        [ss, "-Ktn", which], capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if str(port) not in done.stdout:
        raise RuntimeError(f"ss -K: {done.stderr.strip() or 'destroyed nothing'}")


def _quiet_kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Play:
    """One cell with its two parties."""

    def __init__(self, cell: Cell, broker: int, all_ready: Callable[[], object]) -> None:
        self._cell, self._broker, self._all_ready = cell, broker, all_ready
        self.mapped = False
        """Has the end that stays a segment?"""
        if cell.way == "interface-down":
            own_namespace()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.port: int = listener.getsockname()[1]
        with listener, socket.socket() as finder:
            finder.bind(("127.0.0.1", 0))
            self._peer_port: int = finder.getsockname()[1]
            finder.close()
            self._goer = Party(lambda: Goer(_only(listener.accept()[0], listener), cell))
            self._stayer = Party(lambda: Stayer(_connected(self.port, self._peer_port), cell))

    def act(self) -> str:
        """The outcome, in words."""
        cell, stayer, goer = self._cell, self._stayer, self._goer
        for order in ("warm", "prepare"):
            goer.tell(order)
            said = stayer.ask(order) + goer.hear()
            assert not said, said
        # Only now: the other end's preparations may make room.
        said = stayer.ask("fill") + stayer.ask("begin")
        assert not said, said
        if cell.doing == "idle" or cell.way.endswith("unread"):
            time.sleep(SETTLE)
        self.mapped = stayer.ask("mapped") == "True"
        said = stayer.ask("in_place")
        assert not said, said
        self._go()
        said = self._while_down() if cell.way == "interface-down" else ""
        said += self._first(stayer.ask("look"))
        said += stayer.ask("follow")
        if cell.way in LIVES_ON:
            said += f". There: {goer.ask('follow')}"
        return said

    def _go(self) -> None:
        way = self._cell.way
        if way == "destroy-there":
            _destroy(self.port, self._peer_port)
        elif way == "destroy-here":
            _destroy(self._peer_port, self.port)
        elif way == "broker-gone":
            self._all_ready()
            if self._broker:
                _quiet_kill(self._broker)
        else:
            if way == "interface-down":
                set_loopback(up=False)
            self._goer.tell("go")
            if way == "shut-rdwr-both":
                self._stayer.ask("shut")
            self._goer.hear()

    def _while_down(self) -> str:
        self._goer.ask("read_all")
        seen = self._stayer.ask("peek") if self._cell.doing in ("idle", "epoll") else ""
        first = self._stayer.ask("look")
        set_loopback(up=True)
        time.sleep(2.0)  # TCP sends again at growing intervals
        return f"down: {', '.join(filter(None, (seen, first)))}. Up: "

    def _first(self, first: str) -> str:
        """What the call under way came to, sooner or later."""
        if first != "waits":
            return f"{first}; " if first else ""
        there = self._goer.ask("farewell")
        return f"waits, then {self._stayer.ask('look_again')} (there: send {there}); "

    def end(self) -> None:
        self._goer.end()
        self._stayer.end()


def _only(sock: socket.socket, listener: socket.socket) -> socket.socket:
    listener.close()
    return sock


def _connected(port: int, own: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.bind(("127.0.0.1", own))
    sock.connect(("127.0.0.1", port))
    return sock
