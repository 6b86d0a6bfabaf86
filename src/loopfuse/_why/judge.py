"""From what was seen of a connection to why it is not fused.

Looks at nothing itself; only a `Process` looks up what it is asked for the first time.

What the broker has said of a connection counts first, if it was definite. "No counterpart" and
"not verified" are not: they only say what the broker missed, and the tables say why.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from loopfuse._listings import Cause
from loopfuse._messages import Row
from loopfuse._reasons import Reason
from loopfuse._sockdiag import State
from loopfuse._why.causes import OF_OBSTACLE, Circumstance, explain
from loopfuse._why.links import End, Link

Side = Literal["client", "server"]
_VAGUE = (Reason.NO_COUNTERPART.code, Reason.NOT_VERIFIED.code)
_OF_CODE = {reason.code: reason for reason in Reason}


class Surroundings(NamedTuple):
    """What judging one connection takes besides its two ends."""

    row: Row | None
    """What a broker knows of it."""
    broker: str
    """Path of the socket of the broker that its programs go by."""
    failure: str | None
    """What happened when it was asked; None: it has answered."""
    crosses_users: bool
    """Is it root's?"""
    other_end_is_local: bool
    """Is the address of an end that was not found one of this host's?"""
    other_end_is_abroad: bool
    """Was it found in another network namespace?"""
    users: dict[int, str]
    """Names of users."""


def judge(link: Link, around: Surroundings) -> list[Cause]:
    """Why it is not fused, the first thing to change first; at least one cause."""
    row = around.row
    if row is not None and row.reason not in _VAGUE:
        return [_broker_says(row)]
    causes = _missing(link, around) or _unfinished(link) or _unable(link, around)
    if not causes and row is not None and row.reason == Reason.NOT_VERIFIED.code:
        return [_broker_says(row)]
    return causes or _between(link, around) or _silent(link, row)


def _broker_says(row: Row) -> Cause:
    code = row.reason or Reason.NONE.code
    reason = _OF_CODE.get(code, Reason.CORRUPT)
    words, what_to_change = explain(reason, "")
    return Cause(code, None, words, what_to_change, row.detail)


def _cause(code: Reason | Circumstance, end: Side | None = None, who: str = "") -> Cause:
    words, what_to_change = explain(code, who)
    return Cause(code.code if isinstance(code, Reason) else code.value, end, words, what_to_change)


def _missing(link: Link, around: Surroundings) -> list[Cause]:
    """There is no other end in this namespace."""
    if link.client.endpoint == link.server.endpoint:
        return [_cause(Circumstance.SELF_CONNECTION)]
    here = [end.socket for end in link.ends if end.socket is not None]
    if len(here) == 2:
        return []
    if any(one.state == State.SYN_SENT for one in here):
        return [_cause(Circumstance.NOT_ACCEPTED)]
    if any(one.state != State.ESTABLISHED for one in here):
        return [_cause(Reason.TOO_LATE)]
    if around.other_end_is_abroad:
        return [_cause(Circumstance.OTHER_NAMESPACE)]
    if not around.other_end_is_local:
        return [_cause(Circumstance.REMOTE_HOST)]
    return [_cause(Circumstance.NO_OTHER_END)]


def _unfinished(link: Link) -> list[Cause]:
    """It has not begun, or ends."""
    sockets = [end.socket for end in link.ends if end.socket is not None]
    if any(one.state != State.ESTABLISHED for one in sockets):
        return [_cause(Reason.TOO_LATE)]
    if any(not one.inode for one in sockets):
        return [_cause(Circumstance.NOT_ACCEPTED)]
    return []


def _unable(link: Link, around: Surroundings) -> list[Cause]:
    """Programs that can't fuse, or were not told to."""
    sides: tuple[tuple[Side, End], ...] = (("client", link.client), ("server", link.server))
    found = []
    for side, end in sides:
        code = _inability(end)
        if code is not None:
            found.append(_cause(code, side, _who(side, end, around.users)))
    return _merged(found)


def _merged(found: list[Cause]) -> list[Cause]:
    """One cause where the same is to be said of both ends."""
    if len(found) == 2 and found[0].words == found[1].words:
        return [msgspec.structs.replace(found[0], end=None)]
    return found


def _inability(end: End) -> Reason | Circumstance | None:
    if not end.has_library:
        if not end.holders or any(process.has_library is None for process in end.holders):
            return Circumstance.HIDDEN_PROCESS
        obstacle = end.holders[0].obstacle
        return OF_OBSTACLE[obstacle] if obstacle else Circumstance.NO_LIBRARY
    if any(process.has_polled_ring for process in end.holders):
        return Reason.IO_OUTSIDE_LIBC
    return None


def _who(side: Side, end: End, users: dict[int, str]) -> str:
    if end.holders:
        return end.holders[0].comm or f"the {side}"
    if end.uid is None:
        return f"the {side}"
    return f"user {users.get(end.uid, end.uid)}"


def _between(link: Link, around: Surroundings) -> list[Cause]:
    """Each program could, but not with the other."""
    if link.client.uid != link.server.uid and not around.crosses_users:
        return [_cause(Reason.FOREIGN_USER)]
    one, other = (set(end.brokers) for end in link.ends)
    if one and other and one.isdisjoint(other):
        return [_cause(Circumstance.OTHER_BROKER)]
    if around.failure is not None:
        cause = _cause(Circumstance.NO_BROKER, who=around.broker)
        return [msgspec.structs.replace(cause, detail=around.failure)]
    return []


def _silent(link: Link, row: Row | None) -> list[Cause]:
    """Nothing stands against it, but somebody has not asked."""
    sides: tuple[tuple[Side, End], ...] = (("client", link.client), ("server", link.server))
    claimed = {side for side, end in sides if row is not None and _has_claimed(row, end)}
    found = []
    for side, end in sides:
        if side in claimed:
            continue
        shared = len(end.holders) > 1
        code = Reason.SHARED_DESCRIPTOR if shared else Circumstance.NOT_ASKED
        found.append(_cause(code, side, _who(side, end, {})))
    return _merged(found) or [_cause(Reason.NO_COUNTERPART)]


def _has_claimed(row: Row, end: End) -> bool:
    return any(
        told.pid is not None
        and (told.addr, told.port) == (end.endpoint.text(), end.endpoint.port)
        for told in (row.client, row.server)
    )  # fmt: skip
