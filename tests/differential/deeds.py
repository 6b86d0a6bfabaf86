"""Party side: every step there is, by name."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterable
from typing import Any

from differential import readiness, transfer
from differential.libc import Result, call
from differential.payload import payload
from programs.mapped import has_a_segment

NO_DESCRIPTOR = "no descriptor"
_MISSING = {"SO_TIMESTAMP": 29, "SO_BUSY_POLL": 46, "MSG_WAITFORONE": 0x10000}
"""Linux's numbers for what Python's modules have no name for."""
_SIOCATMARK, _SIOCOUTQ = 0x8905, 0x5411
_FIN_WAIT_1 = 4
_AF_UNSPEC = struct.pack("H14x", 0)
_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "mapped": socket.AF_INET}
_HOSTS = {"ipv4": "127.0.0.1", "ipv6": "::1", "mapped": "127.0.0.1"}

Deed = dict[str, Any]


def constant(module: object, name: str) -> int:
    return _MISSING[name] if name in _MISSING else int(getattr(module, name))


def bits(module: object, names: Iterable[str]) -> int:
    """The constants of these names, or'ed."""
    total = 0
    for name in names:
        total |= constant(module, name)
    return total


class Deeds:
    """The descriptors that one process of a party has, and what it can do with them."""

    def __init__(self) -> None:
        self.listener: socket.socket | None = None
        self.fds: list[int] = []
        self.sets: dict[int, select.epoll] = {}
        self._entered: dict[int, int] = {}
        self._signals: list[int] = []
        for number in (signal.SIGPIPE, signal.SIGUSR1):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
            signal.siginterrupt(number, False)

    def signals_seen(self) -> list[str]:
        """Names of the signals since the last time."""
        seen, self._signals = self._signals, []
        return [signal.Signals(number).name for number in seen]

    def prepare(self, deed: Deed) -> Callable[[], Any]:
        """What is still to be called, which may block."""
        name = deed["do"].replace(" ", "_")
        if "handle" not in deed:
            return lambda: getattr(self, f"do_{name}")(deed)
        if not self.fds:
            return lambda: NO_DESCRIPTOR
        fd = self.fds[deed["handle"] % len(self.fds)]
        if deed["do"] == "send":
            return self._prepare_send(deed, fd)
        return lambda: getattr(self, f"do_{name}")(deed, fd)

    # --- the connection ---

    def do_listen(self, deed: Deed) -> list[Any]:
        family = socket.AF_INET if deed["family"] == "ipv4" else socket.AF_INET6
        self.listener = socket.socket(family)
        if deed["family"] == "mapped":
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        results = self._set_options(self.listener, deed["options"])
        self.listener.bind(("" if deed["family"] != "ipv4" else "127.0.0.1", 0))
        self.listener.listen()
        port: int = self.listener.getsockname()[1]
        return [port, results]

    def _set_options(self, made: socket.socket, options: list[Deed]) -> list[Result]:
        return [self.do_set_option(option, made.fileno()) for option in options]

    def do_connect(self, deed: Deed) -> Any:
        made = socket.socket(_FAMILIES[deed["family"]])
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        results = self._set_options(made, deed["options"])
        if not deed["blocking"]:
            made.setblocking(False)
        refusal = made.connect_ex((_HOSTS[deed["family"]], deed["port"]))
        if not deed["blocking"]:
            readiness.poll(made.fileno(), "poll", select.POLLOUT, 1000)
            refusal = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            made.setblocking(True)
        self.fds.append(made.detach())
        return [refusal, results]

    def do_accept(self, deed: Deed) -> str:
        assert self.listener
        made, _ = self.listener.accept()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listener.close()
        self.fds.append(made.detach())
        return "accepted"

    def do_ping(self, deed: Deed) -> str:
        """Rounds of one byte with the other party, of which `first` sends first, until
        there is no more to be had from them."""
        if not self.fds:
            return NO_DESCRIPTOR
        fd = self.fds[0]
        deadline = time.monotonic() + deed["seconds"]
        byte = b"w"
        rounds = 0
        while byte == b"w":
            if deed["first"]:
                rounds += 1
                over = rounds >= 12 and (has_a_segment() or time.monotonic() > deadline)
                byte = b"W" if over and rounds % 4 == 0 else b"w"
                transfer.LIBC.send(fd, byte, 1, 0)
                answer = transfer.receive(fd, "recv", 1, 0).data
            else:
                answer = byte = transfer.receive(fd, "recv", 1, 0).data
                transfer.LIBC.send(fd, byte, 1, 0)
            if answer != byte or not byte:
                return "broken"
        return "pinged"

    def do_nudge(self, deed: Deed) -> str:
        """Calls that move no byte, so that bytes of before stay unread in TCP."""
        deadline = time.monotonic() + deed["seconds"]
        for turn in range(12 if self.fds else 0):
            transfer.receive(self.fds[0], "recv", 1, transfer.MSG_PEEK | transfer.MSG_DONTWAIT)
            if turn >= 8 and not has_a_segment() and time.monotonic() < deadline:
                time.sleep(0.001)
        return "nudged"

    def do_attend(self, deed: Deed) -> str:
        """A call on each socket that does nothing, but lets the library look around."""
        for fd in self.fds:
            transfer.receive(fd, "recv", 1, transfer.MSG_PEEK | transfer.MSG_DONTWAIT)
        return "attended"

    # --- bytes ---

    def _prepare_send(self, deed: Deed, fd: int) -> Callable[[], Result]:
        flags = bits(socket, deed["flags"])
        send = transfer.prepare_send(
            deed["how"], deed["direction"], deed["position"], deed["size"], flags
        )

        def send_and_settle() -> Result:
            sent = send(fd)
            transfer.settle(fd, deed["settle"])
            return sent

        return send_and_settle

    def do_receive(self, deed: Deed, fd: int) -> Any:
        got = transfer.receive(fd, deed["how"], deed["size"], bits(socket, deed["flags"]))
        right = got.data == payload(deed["direction"], deed["position"], len(got.data))
        return [got.result, right, got.data.decode("latin1")[:40], got.seen]

    def do_fill(self, deed: Deed, fd: int) -> int:
        return transfer.fill(fd, deed["direction"], deed["position"])

    def do_drain(self, deed: Deed, fd: int) -> tuple[int, str]:
        return transfer.drain(fd, deed["direction"], deed["position"])

    # --- readiness ---

    def do_poll(self, deed: Deed, fd: int) -> Result:
        return readiness.poll(fd, deed["how"], bits(select, deed["events"]), deed["timeout"])

    def do_epoll_ctl(self, deed: Deed, fd: int) -> Result:
        target, data = fd, deed["handle"]
        if deed["nested"]:
            target, data = self._set(1 - deed["set"]), 100 + deed["set"]
        else:
            self._entered[data] = fd
        events = bits(select, deed["events"])
        return readiness.epoll_ctl(self._set(deed["set"]), deed["how"], target, events, data)

    def do_epoll_wait(self, deed: Deed) -> Any:
        events = readiness.epoll_wait(self._set(deed["set"]), deed["how"], deed["timeout"])
        levels = {}
        if deed["levels"]:
            levels = {data: readiness.level(fd) for data, fd in self._entered.items()}
        return [events, levels]

    def _set(self, number: int) -> int:
        return self.sets.setdefault(number, select.epoll()).fileno()

    # --- options and questions ---

    def do_set_option(self, deed: Deed, fd: int) -> Result:
        level = getattr(socket, deed["level"])
        name = constant(socket, deed["name"])
        value = bytes.fromhex(deed["value"])
        return call("setsockopt", fd, level, name, value, len(value))

    def do_nonblocking(self, deed: Deed, fd: int) -> Result:
        if deed["how"] == "ioctl":
            on = struct.pack("i", deed["on"])
            return call("ioctl", fd, ctypes.c_ulong(termios.FIONBIO), on)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK
        return call("fcntl", fd, fcntl.F_SETFL, flags | (os.O_NONBLOCK if deed["on"] else 0))

    def do_ask(self, deed: Deed, fd: int) -> Any:
        match deed["what"]:
            case "FIONREAD" | "SIOCATMARK" as what:
                number = termios.FIONREAD if what == "FIONREAD" else _SIOCATMARK
                return int(struct.unpack("i", fcntl.ioctl(fd, number, bytes(4)))[0])
            case "SIOCOUTQ":
                return self._unacknowledged(fd)
            case "state":
                return self._state(fd)
            case "F_GETFL":
                return fcntl.fcntl(fd, fcntl.F_GETFL)
            case "getpeername":
                size = ctypes.c_uint(64)
                name = ctypes.create_string_buffer(64)
                return call("getpeername", fd, name, ctypes.byref(size))
            case option:
                value = get_option(fd, socket.SOL_SOCKET, getattr(socket, option), 4)
                return struct.unpack("i", value)[0]

    def _state(self, fd: int) -> int:
        """Of TCP; after a FIN, once that is acknowledged."""
        deadline = time.monotonic() + 0.3
        while True:
            state = get_option(fd, socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0]
            if state != _FIN_WAIT_1 or time.monotonic() > deadline:
                return state
            time.sleep(0.002)

    def _unacknowledged(self, fd: int) -> int:
        """After the delayed ACK, which TCP may take its time with."""
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            queued = int(struct.unpack("i", fcntl.ioctl(fd, _SIOCOUTQ, bytes(4)))[0])
            if queued == 0:
                break
            time.sleep(0.002)
        return queued

    # --- ends ---

    def do_shutdown(self, deed: Deed, fd: int) -> Result:
        return call("shutdown", fd, getattr(socket, deed["how"]))

    def do_close(self, deed: Deed, fd: int) -> Result:
        self.fds.remove(fd)
        return call("close", fd)

    def do_reconnect(self, deed: Deed, fd: int) -> Result:
        """connect on a connected socket: an error, or with AF_UNSPEC the end."""
        if deed["how"] == "AF_UNSPEC":
            return call("connect", fd, _AF_UNSPEC, 16)
        return call("connect", fd, struct.pack("!HH12x", 0x0200, 9), 16)

    # --- descriptors ---

    def do_copy(self, deed: Deed, fd: int) -> str:
        match deed["how"]:
            case "dup":
                copy = os.dup(fd)
            case "F_DUPFD":
                copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 30)
            case _:
                copy = os.dup2(fd, os.open("/dev/null", os.O_RDONLY))
        self.fds.append(copy)
        return "copied"

    def do_cover(self, deed: Deed, fd: int) -> str:
        """Something else takes the number: the socket is closed by dup2."""
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, fd)
        self.fds.remove(fd)
        answer = f"reads {len(os.read(fd, 10))}"
        os.close(fd)
        os.close(nothing)
        return answer

    def do_pass(self, deed: Deed, fd: int) -> str:
        """Through AF_UNIX to itself; the first one is closed."""
        one, other = socket.socketpair()
        with one, other:
            socket.send_fds(one, [b"x"], [fd])
            os.close(fd)
            _, (passed,), _, _ = socket.recv_fds(other, 10, 1)
        self.fds[self.fds.index(fd)] = passed
        return "passed"

    def do_exec_reader(self, deed: Deed, fd: int) -> Any:
        """A program that takes `size` bytes, which are there."""
        command = ["head", "-c", str(deed["size"])]
        done = subprocess.run(command, stdin=fd, stdout=subprocess.PIPE, check=False)
        right = done.stdout == payload(deed["direction"], deed["position"], len(done.stdout))
        return [len(done.stdout), right, "", f"status {done.returncode}"]

    def do_exec_writer(self, deed: Deed, fd: int) -> Result:
        text = payload(deed["direction"], deed["position"], deed["size"]).decode()
        done = subprocess.run(["printf", "%s", text], stdout=fd, stderr=-3, check=False)
        transfer.settle(fd, deed["settle"])
        return deed["size"] if done.returncode == 0 else f"status {done.returncode}"


def get_option(fd: int, level: int, name: int, size: int) -> bytes:
    value, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    call("getsockopt", fd, level, name, value, ctypes.byref(length))
    return value.raw
