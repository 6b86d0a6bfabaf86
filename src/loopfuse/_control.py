"""Asking the broker something: the client side of the JSON requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from loopfuse._broker_start import connect
from loopfuse._errors import BrokerError, NoBrokerError
from loopfuse._messages import (
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

_TIMEOUT = 5.0
_LARGEST_PACKET = 1 << 20
_Reply = TypeVar("_Reply", PsReply, DefuseReply, StatusReply)


def fetch_rows(path: Path) -> list[Row]:
    """Every connection the broker at `path` knows. Raises NoBrokerError, BrokerError."""
    return [row for reply in _ask(path, PsRequest(), PsReply) for row in reply.rows]


def order_defuse(path: Path, ids: list[int] | None) -> list[DefuseAnswer]:
    """Has these connections (None: all that the caller may) go back to TCP, which each
    end does at its next send. Raises NoBrokerError, BrokerError."""
    request = DefuseRequest(ids or [], ids is None)
    return [answer for reply in _ask(path, request, DefuseReply) for answer in reply.results]


def fetch_status(path: Path) -> StatusReply:
    """How the broker at `path` is. Raises NoBrokerError, BrokerError."""
    return next(iter(_ask(path, StatusRequest(), StatusReply)))


def _ask(path: Path, request: Request, kind: type[_Reply]) -> Iterator[_Reply]:
    sock = connect(path, _TIMEOUT)
    if sock is None:
        raise NoBrokerError(f"no broker is running at {path}")
    with sock:
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
