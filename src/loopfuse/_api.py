"""What programs can do with loopfuse besides running under it; public in the package's root.

Each function asks the broker anew, which takes about a millisecond, and remembers nothing. The
broker is the one `loopfuse ps` would ask: LOOPFUSE_BROKER, or the user's own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopfuse._control import fetch_rows, order_defuse
from loopfuse._elf import find_program
from loopfuse._errors import DefuseError, NoBrokerError, ProgramError, SocketError
from loopfuse._kernel import SO_NETNS_COOKIE, query_socket_option, socket_address
from loopfuse._matching import endpoint
from loopfuse._messages import DefuseAnswer, Row
from loopfuse._paths import is_file, whole
from loopfuse._preload import library_path, preload_environment
from loopfuse._run import insist_on
from loopfuse._runtime_dir import broker_path, ensure_broker

_FAILURES = {"not-found": "is not known", "not-permitted": "belongs to another user"}


def connections() -> list[Row]:
    """The connections the broker knows, those that closed within the last minute included,
    in the order of their ids. Empty if no broker is running: nothing is fused then.

    Raises BrokerError if a broker is there but does not answer as it should.
    """
    return _rows(counters=True)


def defuse(*which: int | Row, everything: bool = False) -> list[DefuseAnswer]:
    """Sends connections back to plain TCP, for good; nothing is lost. Each end goes with its
    next send, so `connections()` may call them fused for a while.

    `which` are ids or what `connections()` returned; `everything` instead means all that this
    user may. The answers are in the order of `which`; `result` is `defused`, or `already` if it
    was not fused.

    Raises DefuseError if one is not known or belongs to another user (all others have been sent
    back nevertheless), NoBrokerError, BrokerError, and ValueError unless there is either `which`
    or `everything`.
    """
    if bool(which) == everything:
        raise ValueError("name the connections to defuse, or everything=True")
    ids = [one.id if isinstance(one, Row) else one for one in which]
    answers = order_defuse(broker_path(), None if everything else ids)
    failed = [f"{one.id} {_FAILURES[one.result]}" for one in answers if one.result in _FAILURES]
    if failed:
        raise DefuseError(
            f"connection {', '.join(failed)}",
            answers=answers,
            hint="loopfuse.connections() lists those there are.",
        )
    return answers


def is_fused(sock: socket.socket | int) -> bool:
    """Does the payload of this TCP connection go through shared memory now?

    `sock` is a socket or descriptor of this very process, or anything with `fileno()`. False
    for what is not connected, and while the connection waits for its next bytes to be sent the
    new way. Only a process that runs under loopfuse has sockets for which this is ever True.

    Raises SocketError if it is no open TCP socket, BrokerError.
    """
    fd = sock if isinstance(sock, int) else sock.fileno()
    try:
        here = socket_address(fd, peer=False)
        kind = _native(query_socket_option(fd, socket.SOL_SOCKET, socket.SO_TYPE, bytes(4)))
    except OSError as error:
        raise SocketError(
            f"descriptor {fd} can't be asked about: {error.strerror}",
            hint="Give a socket that is open in this process.",
        ) from error
    if kind != socket.SOCK_STREAM or _native(here[:2]) not in (socket.AF_INET, socket.AF_INET6):
        raise SocketError(
            f"descriptor {fd} is a socket, but not of TCP",
            hint="Only TCP connections can be fused.",
        )
    try:
        there = socket_address(fd, peer=True)
    except OSError:
        return False  # ENOTCONN: it is not connected yet, or no longer
    netns = _netns_of(fd)
    ends = {_end_of(here), _end_of(there)}
    return any(
        row.state == "fused"
        and row.netns_cookie == netns
        and {(row.client.addr, row.client.port), (row.server.addr, row.server.port)} == ends
        for row in _rows(counters=False)
    )


def _rows(*, counters: bool) -> list[Row]:
    try:
        return fetch_rows(broker_path(), counters=counters)
    except NoBrokerError:
        return []


def _native(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


def _netns_of(fd: int) -> int:
    try:
        return _native(query_socket_option(fd, socket.SOL_SOCKET, SO_NETNS_COOKIE, bytes(8)))
    except OSError:
        return 0  # before Linux 5.14, where the broker says the same


def _end_of(sockaddr: bytes) -> tuple[str, int]:
    """Address and port as the broker writes them."""
    port = int.from_bytes(sockaddr[2:4], "big")
    if _native(sockaddr[:2]) == socket.AF_INET:
        end = endpoint(socket.AF_INET, sockaddr[4:8], port)
    else:
        end = endpoint(socket.AF_INET6, sockaddr[8:24], port)
    return end.text(), end.port


def environment(
    base: Mapping[str, str] | None = None,
    *,
    eager: bool = False,
    after: int | None = None,
    policy: str | os.PathLike[str] | None = None,
    metrics: str | None = None,
) -> dict[str, str]:
    """The environment in which a program has its TCP connections on this host fused: a copy of
    `base` (None: of this process's) with what loads the library. A broker is started if none
    answers. For `subprocess.Popen(..., env=loopfuse.environment())`.

    `eager`: fuse before the first payload byte; else after `after` I/O calls on each side (None:
    8). `policy` is the policy file that the broker must go by, `metrics` the HOST:PORT (or PORT)
    at which it must serve metrics for Prometheus.

    Raises ProgramError if loopfuse is installed without its library, RuntimeDirError, BrokerError,
    PolicyError if the file can't be read or the broker that is running goes by another,
    MetricsError if it serves no metrics there, and ValueError for an `after` below 0.
    """
    if not is_file(library_path()):
        raise ProgramError(
            f"the library {library_path()} is missing", hint="Install loopfuse anew."
        )
    if after is not None and after < 0:
        raise ValueError(f"after is a number of calls, at least 0, not {after}")
    if policy is not None or metrics is not None:
        insist_on(whole(Path(policy)) if policy is not None else None, metrics)
    plain = dict(os.environ if base is None else base)
    return preload_environment(plain, ensure_broker(), eager=eager, after=after)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    eager: bool = False,
    after: int | None = None,
    policy: str | os.PathLike[str] | None = None,
    metrics: str | None = None,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Runs a program with its TCP connections on this host fused, and waits for it.

    `eager`, `after`, `policy`, `metrics` and `env` are as in `environment()`; `options` and what is
    returned are those of `subprocess.run`. A program that can't load the library (a static one)
    runs over plain TCP; `loopfuse doctor PROGRAM` tells.

    Raises ProgramError if there is no such program or it can't be started, what `environment()`
    raises, and with `check` or `timeout` what `subprocess.run` raises.
    """
    words = [os.fspath(word) for word in argv]
    if not words:
        raise ValueError("argv is empty: it begins with the program")
    if find_program(words[0]) is None:
        raise ProgramError(
            f"{words[0]}: no such program on PATH", hint="Give its path, or install it."
        )
    fused = environment(env, eager=eager, after=after, policy=policy, metrics=metrics)
    try:
        return subprocess.run(words, env=fused, **options)
    except OSError as error:
        raise ProgramError(f"{words[0]}: can't be run: {error.strerror}") from error
