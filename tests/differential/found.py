"""Programs that hunts have found to differ, shortened; each was mended then."""

from __future__ import annotations

import dataclasses
from typing import Any

from differential.strategies import Program, Step


def _by(side: str, do: str, **what: Any) -> Step:
    return {"by": side, "child": False, "do": do, "handle": 0} | what


def _program(*steps: Step, early: int = 0, defuse_at: int | None = None) -> Program:
    return Program(
        mode="lazy",
        family="ipv4",
        blocking_connect=True,
        early=early,
        before=[],
        pairing="ping",
        pair_at=0,
        defuse_at=defuse_at,
        steps=list(steps),
    )


def _enter(side: str, *events: str, into: int = 0) -> Step:
    return _by(side, "epoll ctl", how="add", set=into, nested=False, events=list(events))


def _await(side: str, how: str, timeout: int, among: int = 0) -> Step:
    step = {"by": side, "child": False, "do": "epoll wait", "how": how}
    return step | {"set": among, "timeout": timeout, "levels": False}


def _send(side: str, how: str, size: int, *flags: str) -> Step:
    return _by(side, "send", how=how, size=size, flags=list(flags))


def _receive(side: str, size: int, *flags: str) -> Step:
    return _by(side, "receive", how="recvfrom", size=size, flags=list(flags))


def _splice(side: str, size: int, *flags: str) -> Step:
    return _by(side, "receive", how="splice", size=size, flags=list(flags))


def _option(side: str, name: str, value: str) -> Step:
    return _by(side, "set option", level="SOL_SOCKET", name=name, value=value)


FOUND = {
    "a ONESHOT entry, and the peer is killed with bytes unread": _program(
        _enter("server", "EPOLLIN", "EPOLLONESHOT", "EPOLLPRI", "EPOLLRDHUP"),
        _send("server", "write", 4095),
        _by("client", "kill"),
        _await("server", "epoll_wait", 0),
    ),
    "an entry of a socket that is passed after it was declined": _program(
        _enter("server", "EPOLLIN", "EPOLLPRI"),
        _by("client", "cover"),
        _option("server", "SO_OOBINLINE", "01000000"),
        _by("server", "pass"),
        _await("server", "epoll_pwait2", 30),
    ),
    "a low-water mark beyond the end of a ring": _program(
        _by("client", "fork"),
        _option("server", "SO_RCVLOWAT", "d0070000"),
        _receive("server", 4096),
        _send("client", "send", 100) | {"child": True},
        _by("client", "exec writer", size=88),
    ),
    "a send to the dead, and a second set": _program(
        _by("server", "kill"),
        _by("client", "poll", how="poll", events=["EPOLLIN", "EPOLLRDHUP"], timeout=0),
        _enter("client"),
        _send("client", "sendto", 1, "MSG_DONTWAIT"),
        _await("client", "epoll_pwait", -1, among=1),
        _enter("client", into=1),
    ),
    "a ring that is left before a byte was in it": _program(
        _by("server", "ask", what="FIONREAD"),
        _send("client", "sendto", 16),
        _receive("server", 1000, "MSG_PEEK", "MSG_DONTWAIT"),
        _receive("server", 1000, "MSG_DONTWAIT"),
        early=7,
        defuse_at=1,
    ),
    "the end of a ring that had to be taken in turns": _program(
        _send("server", "sendmmsg", 13),
        _by("server", "exec writer", size=790),
        _by("client", "copy", how="dup2"),
        _receive("client", 100000),
    ),
    "a peer killed with bytes unread in a ring that had ended": _program(
        _send("server", "write", 3),
        _enter("server", "EPOLLONESHOT", into=1),
        _enter("server") | {"handle": 1},
        _by("client", "kill"),
        _by("server", "fill"),
    ),
    "a signal to a send that began blocking and goes on by TCP": _program(
        _send("server", "write", 16 << 20),
        _option("client", "SO_OOBINLINE", "01000000"),
        _by("server", "nonblocking", how="ioctl", on=True),
        _by("server", "signal", restart=False),
    ),
    "splices from a peer killed with bytes unread in a ring that had ended": _program(
        _send("server", "write", 21),
        _option("server", "SO_OOBINLINE", "01000000"),
        _send("client", "write", 5),
        _receive("server", 1000),
        _by("client", "kill"),
        _splice("server", 1000),
        _splice("server", 1000),
    ),
    "a splice that is told of a reset by a ring that had ended": _program(
        _send("server", "write", 21),
        _option("server", "SO_OOBINLINE", "01000000"),
        _send("client", "write", 500),
        _by("client", "kill"),
        _by("server", "poll", how="poll", events=["EPOLLIN", "EPOLLRDHUP"], timeout=30),
        _splice("server", 200),
        _splice("server", 1000),
        _splice("server", 1000),
        _splice("server", 1000),
    ),
    "a peer killed that had wished its unread bytes back": _program(
        _send("server", "write", 3),
        _by("client", "copy", how="dup2"),
        _by("client", "kill"),
        _receive("server", 1000),
        _receive("server", 1000),
    ),
    "an option after a peer was killed that had wished its unread bytes back": _program(
        _send("server", "write", 3),
        _by("client", "copy", how="dup2"),
        _by("client", "kill"),
        _option("server", "SO_OOBINLINE", "01000000"),
        _receive("server", 1000),
        _send("server", "write", 3),
    ),
    "a signal to a receive whose peer has passed its socket": dataclasses.replace(
        _program(
            _receive("client", 100000),
            _by("server", "pass"),
            _by("client", "signal", restart=True),
            _by("client", "poll", how="select", events=["EPOLLIN", "EPOLLOUT"], timeout=0),
        ),
        pairing="nudge",
    ),
    "a low-water mark that TCP and the ring reach together": dataclasses.replace(
        _program(
            _send("client", "send", 1000),
            _send("client", "send", 4096),
            _by("server", "poll", how="ppoll", events=["EPOLLIN", "EPOLLOUT"], timeout=30),
            _enter("server", "EPOLLIN", "EPOLLET"),
            _await("server", "epoll_wait", 30),
            _receive("server", 500),
            _await("server", "epoll_wait", 0),
        ),
        before=[_option("server", "SO_RCVLOWAT", "d0070000")],
        pair_at=1,
    ),
    "a peer that has shut down for reading leaves its ring": _program(
        _send("server", "sendto", 5000, "MSG_DONTWAIT"),
        _by("server", "shutdown", how="SHUT_RD"),
        _by("server", "pass"),
        _by("client", "exec reader", size=1067),
    ),
    "a FIN that had come before its entry is told of twice": _program(
        _by("client", "shutdown", how="SHUT_WR"),
        _enter("server", "EPOLLIN", "EPOLLOUT", "EPOLLET") | {"handle": 1},
        _await("server", "epoll_pwait2", 30),
        _by("client", "exec writer", size=500),
        _await("server", "epoll_pwait2", 0),
    ),
    "a receive that goes on by TCP, and is begun anew under O_NONBLOCK": _program(
        _by("server", "pass"),
        _receive("client", 100000),
        _by("client", "nonblocking", how="ioctl", on=True),
        _by("client", "signal", restart=True),
    ),
    "a splice that goes on by TCP, and is begun anew under O_NONBLOCK": _program(
        _by("server", "pass"),
        _splice("client", 29),
        _by("client", "nonblocking", how="ioctl", on=True),
        _by("client", "signal", restart=True),
    ),
    "a vfork child's program writes what a peer has asked for to come first": _program(
        _send("server", "sendfile", 30),
        _by("client", "copy", how="dup2"),
        _by("server", "exec writer", size=1299),
        _by("client", "drain"),
    ),
    "a write of no bytes to a peer that was killed": _program(
        _send("client", "send", 1000),
        _by("server", "kill"),
        _send("client", "write", 0),
    ),
    "a reset that the kernel told before the peer was killed": _program(
        _send("server", "write", 100),
        _by("server", "shutdown", how="SHUT_RDWR"),
        _by("client", "exec writer", size=2),
        _by("server", "poll", how="ppoll", events=["EPOLLRDNORM"], timeout=0),
        _by("client", "kill"),
        _receive("server", 1000),
        _receive("server", 1000),
        _receive("server", 1000),
    ),
    "a splice that began blocking and goes on by TCP": _program(
        _splice("server", 29),
        _by("server", "nonblocking", how="ioctl", on=True),
        _splice("client", 29, "MSG_DONTWAIT"),
        _send("client", "write", 29),
        defuse_at=2,
    ),
    "a signal to a receive of several messages": _program(
        _send("client", "sendmsg", 5),
        _by("server", "receive", how="recvmmsg", size=1 << 16, flags=["MSG_WAITALL"]),
        _by("server", "signal", restart=False),
        _send("client", "sendmsg", 7),
        _receive("server", 1000),
    ),
    "a receive buffer that one process has filled": _program(
        _by("server", "fork"),
        _option("client", "SO_RCVBUF", "00000100"),
        _by("server", "fill") | {"child": True},
        _by("server", "poll", how="poll", events=["EPOLLOUT"], timeout=0),
    ),
    "a receive of more than comes before urgent data": _program(
        _send("client", "sendmmsg", 37, "MSG_OOB"),
        _receive("server", 8 << 20, "MSG_WAITALL"),
    ),
    "a peek of more than comes before urgent data": _program(
        _send("client", "sendmmsg", 37, "MSG_OOB"),
        _receive("server", 8 << 20, "MSG_WAITALL", "MSG_PEEK"),
    ),
    "a peer killed after another program had its socket": _program(
        _send("server", "write", 21),
        _by("client", "exec writer", size=700),
        _by("client", "kill"),
        _receive("server", 1000),
        _receive("server", 1000),
        _receive("server", 1000),
    ),
    "the same with more than TCP has room for": _program(
        _send("server", "sendmsg", 1 << 20),
        _by("client", "exec writer", size=75),
        _by("client", "kill"),
        _by("server", "drain"),
    ),
    "the same behind a FIN": _program(
        _send("server", "write", 21),
        _by("server", "shutdown", how="SHUT_WR"),
        _by("client", "exec writer", size=700),
        _by("client", "kill"),
        _by("server", "poll", how="poll", events=["EPOLLIN", "EPOLLRDHUP"], timeout=0),
    ),
    "a second connect that tells of a reset": dataclasses.replace(
        _program(
            _by("server", "kill"),
            _send("client", "writev", 1 << 20),
            _by("client", "reconnect", how="AF_INET"),
            _by("client", "drain"),
            _by("client", "drain"),
        ),
        blocking_connect=False,
    ),
    "a receive goes on by TCP, and O_NONBLOCK has been set and taken back": _program(
        _receive("client", 9000),
        _option("client", "SO_OOBINLINE", "01000000"),
        _by("client", "nonblocking", how="fcntl", on=True),
        _by("server", "drain"),
        _by("client", "nonblocking", how="ioctl", on=False) | {"handle": 1},
        _by("client", "signal", restart=True),
    ),
    "room in the ring and bytes behind it are told once, together": _program(
        _send("server", "sendmsg", 10, "MSG_OOB"),
        _enter("client", "EPOLLIN", "EPOLLONESHOT", "EPOLLOUT"),
        _await("client", "epoll_wait", 0),
    ),
    "a send that goes on by TCP, and a signal that restarts calls": _program(
        _send("client", "write", 16 << 20),
        _by("server", "copy", how="dup"),
        _by("server", "copy", how="dup2") | {"handle": 1},
        _by("client", "signal", restart=True),
    ),
    "a receive of all that goes on by TCP, and a signal that restarts calls": dataclasses.replace(
        _program(
            _receive("server", 9000, "MSG_WAITALL"),
            _send("client", "send", 100),
            _by("client", "copy", how="dup2"),
            _by("server", "signal", restart=True),
        ),
        defuse_at=2,
    ),
    "a receive of all goes on by TCP, and O_NONBLOCK has been set meanwhile": _program(
        _by("server", "receive", how="recvfrom", size=100_000, flags=["MSG_WAITALL"]),
        _by("server", "nonblocking", how="ioctl", on=True),
        _send("client", "send", 100),
        defuse_at=2,
    ),
}
