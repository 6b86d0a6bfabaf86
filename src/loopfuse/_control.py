"""Asking the broker something: the client side of the JSON requests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from loopfuse._broker_start import connect
from loopfuse._errors import BrokerError, NoBrokerError
from loopfuse._messages import (
    BrokerStatus,
    DefuseAnswer,
    DefuseReply,
    DefuseRequest,
    ErrorReply,
    PsReply,
    PsRequest,
    Request,
    Row,
    StatusReply,
    StatusRequest,
)

TIMEOUT = 5.0
"""Seconds to wait for a broker's answer."""
_LARGEST_PACKET = 1 << 20
_Reply = TypeVar("_Reply", PsReply, DefuseReply, StatusReply)


class Conversation:
    """Asks one broker again and again on one connection, and makes a new one after the broker
    has been away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def fetch_rows(self, *, counters: bool) -> list[Row]:
        """Every connection the broker knows. Raises NoBrokerError, BrokerError."""
        if self._sock is None:
            self._sock = reach(self._path)
        try:
            replies = list(_ask(self._path, self._sock, PsRequest(counters), PsReply))
        except BaseException:
            self.close()
            raise
        return [row for reply in replies for row in reply.rows]

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def reach(path: Path, timeout: float = TIMEOUT) -> socket.socket:
    """A connection to the broker at `path`, each of whose answers may take `timeout` seconds.
    Raises NoBrokerError, BrokerError."""
    sock = connect(path, timeout)
    if sock is None:
        raise NoBrokerError(f"no broker is running at {path}")
    return sock


def fetch_rows(path: Path, *, counters: bool = False) -> list[Row]:
    """Every connection the broker at `path` knows. Raises NoBrokerError, BrokerError."""
    return [row for reply in _ask_once(path, PsRequest(counters), PsReply) for row in reply.rows]


def order_defuse(path: Path, ids: list[int] | None) -> list[DefuseAnswer]:
    """Has these connections (None: all that the caller may) go back to TCP, which each
    end does at its next send. Raises NoBrokerError, BrokerError."""
    request = DefuseRequest(ids or [], ids is None)
    replies = _ask_once(path, request, DefuseReply)
    return [answer for reply in replies for answer in reply.results]


def fetch_status(path: Path) -> BrokerStatus:
    """How the broker at `path` is. Raises NoBrokerError, BrokerError."""
    return next(iter(_ask_once(path, StatusRequest(), StatusReply))).status


def _ask_once(path: Path, request: Request, kind: type[_Reply]) -> Iterator[_Reply]:
    with reach(path) as sock:
        yield from _ask(path, sock, request, kind)


def _ask(path: Path, sock: socket.socket, request: Request, kind: type[_Reply]) -> Iterator[_Reply]:
    try:
        sock.send(msgspec.json.encode(request))
        last = False
        while not last:
            reply = _decode(path, sock.recv(_LARGEST_PACKET), kind)
            last = reply.last
            yield reply
    except OSError as error:
        raise _no_answer(path, str(error.strerror or "it takes too long")) from error


def _decode(path: Path, packet: bytes, kind: type[_Reply]) -> _Reply:
    if not packet:
        raise _no_answer(path, "it hung up")
    try:
        return msgspec.json.decode(packet, type=kind)
    except msgspec.DecodeError as error:
        reason = str(error)
    with contextlib.suppress(msgspec.DecodeError):
        reason = msgspec.json.decode(packet, type=ErrorReply).error
    raise _no_answer(path, reason)


def _no_answer(path: Path, why: str) -> BrokerError:
    return BrokerError(
        f"the broker at {path} gave no proper answer: {why}",
        hint="If it was started by another loopfuse version, end it; the next "
        "`loopfuse run` starts a new one.",
    )
