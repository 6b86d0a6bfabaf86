"""Has two parties act out a program, step by step, and writes the transcript."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from differential.pair import HungError, Pair
from differential.strategies import Program, Step
from differential.streams import READABLE, WRITABLE, Stream
from differential.transcript import Edges, Line, Transcript, differs_at, event_names
from differential.transfer import HELD
from loopfuse._control import order_defuse

SIDES = ("client", "server")
OTHER = {"client": "server", "server": "client"}
SOON, LATE = 0.010, 4.0
"""Seconds: a step that has not returned after the first counts as blocked; one that is known
to return does so before the second."""
_TICKS = 0.02
"""Seconds after a kill: the library tells what was sent before from what was sent after by
clocks that tick so slowly."""
_LONGEST_DRAIN = 20.0
"""Seconds in which plain TCP must have brought all that was sent; else it is not compared."""
_ENDS = 0x8 | 0x10
_ENDS_OF_STREAM = 0x2000 | READABLE
_HANDING_ON = {"pass", "exec reader"}
_PAGE = 4096
"""The kernel takes a send in piece by piece, and may wake a reader in between."""
LARGE = 100_000
NOBODY = "sent to nobody"
"""A send in several parts to a party that was killed: up to timing where in it the news
arrives."""
_MAY_BLOCK = {"send", "receive", "poll", "epoll wait"}
_MADE_OF_SEVERAL = {"sendfile", "splice", "sendmmsg"}
_WAYS = {"SHUT_RD": {"RD"}, "SHUT_WR": {"WR"}, "SHUT_RDWR": {"RD", "WR"}}
_AN_END = {"0", "ECONNRESET"}
_NOT_SHOWN = {"by", "child", "do", "levels", "level"}
_DISTURBING = {
    *("nonblocking", "shutdown", "close", "cover", "reconnect", "fork", "pass", "exec reader"),
    *("exec writer", "fill"),
}
_DISTURBING_OPTIONS = {"SO_RCVTIMEO", "SO_SNDTIMEO", "SO_RCVLOWAT", "TCP_CORK", "SO_RCVBUF"}


@dataclass
class Blocked:
    """A step that has not returned yet."""

    id: int
    step: Step
    label: str

    @property
    def kind(self) -> str:
        return str(self.step["do"])


def _is_left_to_the_kernel(step: Step) -> bool:
    return step["do"] == "epoll ctl" and "EPOLLEXCLUSIVE" in step["events"]


def _is_onto_an_open_number(step: Step) -> bool:
    return bool(step["do"] == "copy" and step["how"] == "dup2")


def label_of(step: Step) -> str:
    who = step["by"] + ("'s child" if step["child"] else "")
    shown = []
    for name, value in step.items():
        if name in _NOT_SHOWN or (name == "handle" and not value) or value in ([], False):
            continue
        text = "|".join(value) if isinstance(value, list) else str(value)
        shown.append(text if name in ("how", "what", "name") else f"{name}={text}")
    return f"{who}: {step['do']} {' '.join(shown)}"


class Parted(Exception):
    """The guide said something else, or what comes next is nobody's promise."""


class Director:
    """One run of one program. `guide` is the plain run's transcript: where a step came to
    its end there, it is waited for here, for `late` seconds; what differs ends the run."""

    def __init__(
        self, pair: Pair, program: Program, guide: Transcript | None = None, late: float = LATE
    ) -> None:
        self._pair = pair
        self._late = late
        self._program = program
        self._guide = guide
        self._transcript = Transcript()
        self._streams = {
            "client": Stream("to server"),
            "server": Stream("to client"),
        }
        """By the side that sends."""
        self._blocked: list[Blocked] = []
        self._children = dict.fromkeys(SIDES, False)
        self._timed = dict.fromkeys(SIDES, False)
        self._edge_sets: set[tuple[str, int]] = set()
        self._held: dict[str, list[str]] = {side: [] for side in SIDES}
        self._disturbed = False
        self._corked = False
        self._disconnected: set[str] = set()
        self._left_the_ring: set[str] = set()
        self._handed_on: set[str] = set()
        self._said_its_last: set[str] = set()
        """FIN is out, with a library behind it: before what else could have left the ring."""
        self._has_copies: set[str] = set()
        self._lowat = dict.fromkeys(SIDES, 1)
        self._shut: dict[str, set[str]] = {side: set() for side in SIDES}
        self._pristine = program.defuse_at is None
        self._may_keep_an_error: set[str] = set()
        """What ends a recvmmsg that has a message is kept for the next call: by the library, if it
        was that of a ring, and a new holder knows only TCP's (docs/semantics.md)."""
        self._may_not_see_the_end: set[str] = set()
        self._closed: set[str] = set()
        """FIN came behind more bytes than TCP's window surely takes: so what errors a send meets
        is open."""
        self._number = 0
        self._port = 0

    def run(self) -> Transcript:
        try:
            self._connect()
            self._act()
        except Parted:
            pass
        except HungError:
            with suppress(Parted):
                self._say("(a party does not answer)", "hung")
        finally:
            self._transcript.fused = self._transcript.fused or self._is_fused()
            for side in SIDES:
                self._pair.parties[side].end_program()
        return self._transcript

    # --- the frame ---

    def _connect(self) -> None:
        program = self._program
        for side in SIDES:
            self._pair.parties[side].start_program()
        before = {side: [o for o in program.before if o["by"] == side] for side in SIDES}
        request = {"do": "listen", "family": program.family, "options": before["server"]}
        self._port, results = self._set_up("server", request)
        self._say_before(before["server"], results)
        request = {
            "do": "connect",
            "family": program.family,
            "blocking": program.blocking_connect,
            "port": self._port,
            "options": before["client"],
        }
        refusal, results = self._set_up("client", request)
        self._say_before(before["client"], results)
        self._say("connect", str(refusal))
        if program.early:
            self._step({"by": "client", "child": False, **_early(program.early)})
        self._say("accept", str(self._set_up("server", {"do": "accept"})))

    def _set_up(self, side: str, request: dict[str, Any]) -> Any:
        """What surely returns, though on a busy machine not soon."""
        return self._ask(side, request | {"window": LATE})["result"]

    def _say_before(self, options: list[Step], results: list[Any]) -> None:
        for option, result in zip(options, results, strict=True):
            self._say(f"{label_of(option)}, before the connection", str(result))
            self._note(option)

    def _act(self) -> None:
        program = self._program
        for number, step in enumerate(program.steps):
            if number == program.pair_at:
                self._encourage_pairing()
            if number == program.defuse_at and self._can_be_defused():
                self._defuse()
            self._step(step)
        if program.pair_at >= len(program.steps):
            self._encourage_pairing()

    def _encourage_pairing(self) -> None:
        if self._blocked or not all(self._pair.parties[side].alive for side in SIDES):
            return
        quiet = all(stream.exact and not stream.unread for stream in self._streams.values())
        kind = self._program.pairing
        if kind == "ping" and (not quiet or self._disturbed):
            kind = "nudge"
        seconds = 0.3 if self._pair.session.broker else 0.0
        for side in SIDES:
            request = {"do": kind, "id": -1, "window": 3.0, "first": side == "client"}
            self._pair.parties[side].tell(request | {"seconds": seconds})
        said = [self._pair.parties[side].hear().get("result") for side in SIDES]
        if "broken" in said:
            self._say("(ping)", "broken")
        self._transcript.fused = self._is_fused()

    def _is_fused(self) -> bool:
        return bool(self._port and self._pair.session.fused_rows(self._port))

    def _defuse(self) -> None:
        broker = self._pair.session.broker
        if broker:
            ids = [row.id for row in broker.rows() if row.server.port == self._port]
            if ids:
                order_defuse(broker.path, ids)
        for side, stream in self._streams.items():
            stream.full = False  # TCP's buffers are empty, whatever lies in the ring
            # And they take some time to fill.
            stream.exact = stream.exact and not self._sending(side)

    # --- one step ---

    def _step(self, step: Step) -> None:
        if not self._pair.parties[step["by"]].alive or not self._makes_sense(step):
            return
        self._number += 1
        label = label_of(step)
        if step["do"] == "kill":
            self._pair.parties[step["by"]].end_program()
            time.sleep(_TICKS)
            self._blocked = [b for b in self._blocked if b.step["by"] != step["by"]]
            self._say(label, "killed")
        elif step["do"] == "drain":
            self._drain(step, label)
        else:
            self._do(step, label)
        self._note(step)
        self._hear_of_blocked()

    def _do(self, step: Step, label: str) -> None:
        request = self._request(step)
        if step["do"] in _HANDING_ON or _is_left_to_the_kernel(step):
            answer = self._ask_while_the_other_attends(step["by"], request)
        else:
            answer = self._ask(step["by"], request)
        if answer["done"]:
            self._finish(step, label, answer)
            self._transcript.completed.setdefault(self._number, set()).add(self._number)
        else:
            self._say(label, "blocks")
            self._blocked.append(Blocked(request["id"], step, label))
            if step["do"] == "receive" and step["size"] == 0:
                raise Parted  # whatever wakes the kernel's loop ends it

    def _request(self, step: Step) -> dict[str, Any]:
        side = step["by"]
        settle = self._settle(self._streams[side], step)
        request = {"id": self._number, "window": self._window(step, settle), **step}
        match step["do"]:
            case "send" | "fill" | "exec writer":
                stream = self._streams[side]
                request |= {"direction": stream.direction, "position": stream.sent}
                request |= {"settle": settle}
            case "receive" | "drain" | "exec reader":
                stream = self._streams[OTHER[side]]
                request |= {"direction": stream.direction, "position": stream.received}
                if step["do"] == "exec reader":
                    request["size"] = min(step["size"], stream.unread)
            case "epoll wait":
                request["levels"] = self._guide is None and self._is_edge_triggered(step)
            case "signal":
                request["target"] = self._target(step).id
            case "fork":
                self._children[side] = True
            case "end child":
                self._children[side] = False
        return request

    def _window(self, step: Step, settle: float) -> float:
        if step["do"] not in _MAY_BLOCK:
            return self._late
        if self._guide and self._number in self._guide.completed.get(self._number, ()):
            return self._late
        if step["do"] == "send" and self._goes_to_nobody(step):
            return self._late
        if step.get("timeout", 0) > 0 or self._timed[step["by"]]:
            return 0.3
        # An eager send may first wait for the pairing, 5 ms as the test has it.
        return SOON + settle + (0.02 if self._program.mode == "eager" else 0.0)

    def _settle(self, stream: Stream, step: Step) -> float:
        if step["do"] not in ("send", "exec writer") or not stream.fits(step.get("size", 0)):
            return 0.0
        return HELD if self._corked or "MSG_MORE" in step.get("flags", ()) else 0.06

    def _hear_of_blocked(self, patient: bool = True) -> None:
        expected = None
        if self._guide and patient:
            expected = self._guide.completed.get(self._number, set())
        for blocked in list(self._blocked):
            if blocked.id == self._number:
                continue
            window = SOON if expected is None or blocked.id not in expected else self._late
            request = {"do": "join", "id": blocked.id, "window": window}
            answer = self._ask(blocked.step["by"], request | {"child": blocked.step["child"]})
            if answer["done"]:
                self._blocked.remove(blocked)
                self._transcript.completed.setdefault(self._number, set()).add(blocked.id)
                self._finish(blocked.step, "... " + blocked.label, answer)
            else:
                self._held[blocked.step["by"]] += answer.get("signals", [])

    def _ask(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        request = {"id": 0, "window": self._late} | request
        return self._pair.parties[side].ask(request)

    def _ask_while_the_other_attends(self, side: str, request: dict[str, Any]) -> dict[str, Any]:
        """Bytes unread in the ring are sent again by TCP at the other party's next call
        (docs/semantics.md), so it makes some."""
        other = self._pair.parties[OTHER[side]]
        self._pair.parties[side].tell({"id": 0, "window": self._late} | request)
        while True:
            try:
                return self._pair.parties[side].hear(0.01)
            except HungError:
                if other.alive:
                    answer = other.ask({"do": "attend", "id": -1, "window": 1.0})
                    self._held[OTHER[side]] += answer.get("signals", [])

    def _say(self, label: str, said: str, edges: Edges | None = None) -> None:
        lines = self._transcript.lines
        lines.append(Line(label, said, edges))
        if self._guide and differs_at(self._guide, self._transcript) == len(lines) - 1:
            raise Parted

    # --- what makes no sense, or is for TCP to decide ---

    def _makes_sense(self, step: Step) -> bool:
        side = step["by"]
        if step["child"] and not self._children[side]:
            return False
        if side in self._disconnected and step["do"] not in ("close", "end child"):
            return False
        if side in self._may_not_see_the_end and step["do"] in ("send", "fill", "exec writer"):
            return False
        if self._may_leave_the_ring(step) and (self._waits_for_room() or self._is_full()):
            return False
        if side in self._may_keep_an_error and step["do"] in {*_HANDING_ON, "exec writer"}:
            return False
        busy = {blocked.kind for blocked in self._blocked if blocked.step["by"] == side}
        out, come = self._streams[side], self._streams[OTHER[side]]
        match step["do"]:
            case "send":
                return "send" not in busy and self._send_makes_sense(step, out)
            case "receive":
                # Messages of no bytes and a signal: the kernel's recvmmsg goes on to the next
                # message with the signal still pending, which a handler outside can't.
                if step["how"] == "recvmmsg" and step["size"] < 6:
                    return False
                # Where the kernel's loop over no bytes ends is an accident, and so is that a
                # sleeper is only woken for SO_RCVLOWAT, though it asks for less.
                # The kernel's is over when anything wakes it: the answer to our FIN, which may
                # have come before.
                if step["size"] == 0 and (come.urgent or "WR" in self._shut[side]):
                    return False
                if come.unread < step["size"] < self._lowat[side]:
                    return False
                # Into a pipe the kernel moves segment by segment, and page by page.
                if step["how"] == "splice" and step["size"] > 4096 and not come.unread:
                    return False
                # How much has come of a send that waits for room is TCP's business.
                if self._sending(OTHER[side]) and step["size"] > come.certain:
                    return False
                if self._may_end_early(side):
                    return False
                return "receive" not in busy and come.exact
            case "fill":
                if self._takes_what_has_come(OTHER[side]) or self._reset_is_ahead(side):
                    return False
                # The reset that comes of its first bytes is told to it or to who waits beside it.
                if busy and (self._is_gone(OTHER[side]) or OTHER[side] in self._said_its_last):
                    return False
                return "send" not in busy and out.exact and not out.urgent
            case "drain":
                if self._may_end_early(side):
                    return False
                return "receive" not in busy and not come.urgent
            case "exec reader":
                quiet = come.exact and not come.urgent and come.unread > 0
                return not busy and quiet and not step["child"] and self._can_be_handed_on(side)
            case "exec writer":
                # Had who is gone not read all, the kernel would know of RST, and would not have
                # told us of its error (docs/semantics.md).
                lost = self._is_gone(OTHER[side]) and out.unread > 0
                # As in _can_be_handed_on.
                lost = lost or bool(self._sending(OTHER[side]))
                lost = lost or (come.unread > 0 and self._shut[side] == {"RD", "WR"})
                # It writes page by page.
                if step["size"] > _PAGE and self._takes_what_has_come(OTHER[side], _PAGE):
                    return False
                return not busy and out.fits(step["size"]) and not step["child"] and not lost
            case "nonblocking":
                # A call that the kernel makes several of looks at the flag whenever it wakes.
                sending = self._sending(side)
                return all(b.step["how"] not in _MADE_OF_SEVERAL for b in sending)
            case "signal":
                # docs/semantics.md tells of it.
                several = any(b.step.get("how") == "recvmmsg" for b in self._targets(step))
                return bool(self._targets(step)) and not (several and step["restart"])
            case "fork":
                return not busy and not self._children[side] and not step["child"]
            case "end child":
                return not busy and self._children[side] and not step["child"]
            case "pass":
                return not busy and out.exact and self._can_be_handed_on(side)
            case "kill":
                sending = any(b.kind == "send" for b in self._blocked)
                # FIN may have to wait behind bytes.
                return not busy and out.exact and not sending
            case "epoll ctl":
                # Left to the kernel, which may have told the library of RST (docs/semantics.md).
                lost = self._is_gone(OTHER[side]) and (out.unread > 0 or not out.exact)
                if not _is_left_to_the_kernel(step):
                    return True
                return not lost and (not come.unread or self._can_be_handed_on(side))
            case "shutdown":
                # A send that has filled the window is reset by TCP's next probe of it, some day.
                both = self._shut[side] | _WAYS[step["how"]]
                if "RD" in both and self._sending(OTHER[side]):
                    return False
                # As in _can_be_defused: the unread bytes have been asked for.
                if both == {"RD", "WR"} and come.unread and not self._pristine:
                    return False
                # Else FIN may have to wait behind bytes, ours or theirs.
                return come.exact and (out.exact or "WR" not in self._shut[side])
            case "reconnect":
                known = out.exact and come.exact
                return not busy and known and not out.unread and not come.unread
            case "close" | "cover":
                # FIN, and RST only when those come who can't know (docs/semantics.md).
                lost = side in self._handed_on and (come.unread > 0 or not come.exact)
                return not busy and not lost
            case "copy":
                return not busy
            case "ask":
                # A reset keeps what was not acknowledged yet, for good.
                gone = self._is_gone(OTHER[side])
                sending = any(b.kind == "send" for b in self._blocked)
                if step["what"] == "SIOCOUTQ" and (sending or gone):
                    return False
                if step["what"] == "state" and not self._state_is_certain(side):
                    return False
                return self._question_makes_sense(side, step["what"])
            case "set option":
                if step["name"] == "SO_RCVLOWAT" and "receive" in busy:
                    return False  # see "receive"
                bound = {"SO_RCVTIMEO": "receive", "SO_SNDTIMEO": "send"}.get(step["name"])
                if bound in busy:
                    return False  # the part that goes on by TCP is bound by it (docs/semantics.md)
                if step["name"] == "SO_TIMESTAMP" and (come.unread or not come.exact):
                    return False  # they may get that of later bytes, which the kernel joins to them
                return step["name"] != "SO_RCVBUF" or come.exact
            case "poll":
                return step["timeout"] >= 0 or not out.writability_is_open
            case "epoll wait":
                if step["timeout"] < 0 and out.writability_is_open:
                    return False
                edge = self._is_edge_triggered(step)
                return not (edge and step["timeout"] < 0) and "epoll wait" not in busy
        return True

    @staticmethod
    def _may_leave_the_ring(step: Step) -> bool:
        leaving = {*_HANDING_ON, "exec writer", "set option", "epoll ctl"}
        return _is_onto_an_open_number(step) or step["do"] in leaving

    def _waits_for_room(self) -> bool:
        """A poll that waits for a full ring: TCP's buffers are empty once that is left."""
        polling = any(b.kind in ("poll", "epoll wait") for b in self._blocked)
        full = any(stream.full for stream in self._streams.values())
        return polling and (full or any(self._sending(side) for side in SIDES))

    def _can_be_defused(self) -> bool:
        """TCP resets where it is to take in again what an end that is shut both ways has not
        read (docs/semantics.md)."""
        shut = any(ways == {"RD", "WR"} for ways in self._shut.values())
        return not self._waits_for_room() and not shut

    def _may_end_early(self, side: str) -> bool:
        """After SHUT_RD a receive says that this is the end whenever it finds nothing, and of a
        send that waits for room more may come at any moment."""
        return "RD" in self._shut[side] and bool(self._sending(OTHER[side]))

    def _is_full(self) -> bool:
        """What fills a ring may be more than TCP takes, and is waited with (docs/semantics.md)."""
        return any(stream.full for stream in self._streams.values())

    def _is_gone(self, side: str) -> bool:
        return not self._pair.parties[side].alive or side in self._left_the_ring

    def _can_be_handed_on(self, side: str) -> bool:
        """The new holder knows only TCP, by which the other party has to send again what this
        one has not read: it must be there, able to send, or have left a copy when it left its
        ring, or have been killed; and room must be in TCP's buffers (docs/semantics.md)."""
        come = self._streams[OTHER[side]]
        sending = bool(self._sending(OTHER[side]))
        able = not self._is_gone(OTHER[side]) or OTHER[side] in self._said_its_last
        able = able or OTHER[side] in self._handed_on
        able = able or (self._was_killed(OTHER[side]) and not self._shut[side])
        able = able and not sending
        out = self._streams[side]
        if self._is_gone(OTHER[side]) and (out.unread or not out.exact):
            return False
        if come.unread and self._shut[side] == {"RD", "WR"}:
            return False  # TCP resets instead of taking them in once more
        if not come.unread and not sending:
            return True
        return able and come.exact and come.unread <= come.certain

    def _was_killed(self, side: str) -> bool:
        """As the only one who held the socket, which had gone nowhere else; and what it had sent
        before there was a ring has been read (docs/semantics.md)."""
        alone = not self._children[side] and side not in self._has_copies
        alone = alone and side not in self._left_the_ring
        by_ring = self._streams[side].received >= self._program.early
        return not self._pair.parties[side].alive and alone and by_ring

    def _says_its_last(self, step: Step) -> bool:
        if step["do"] == "shutdown":
            return "WR" in _WAYS[step["how"]]
        # The only descriptor.
        alone = step["by"] not in self._has_copies and not self._children[step["by"]]
        return step["do"] in ("close", "cover") and alone

    def _send_makes_sense(self, step: Step, out: Stream) -> bool:
        if not out.exact or out.full or self._reset_is_ahead(step["by"]):
            return False
        if step["how"] == "sendmmsg" and any(
            b.kind == "receive" for b in self._blocked_by(OTHER[step["by"]])
        ):
            return False  # it may be woken by the first message, and find one or both
        if "MSG_OOB" in step["flags"]:
            return not out.urgent and not out.unread and not out.adrift
        if out.fits(step["size"]):
            return True
        if self._takes_what_has_come(OTHER[step["by"]]):
            return False
        # TCP counts what its packets take, which may be twice of what is in them; and a reader that
        # has been sent much has let its own buffer grow.
        if out.bounded and step["size"] < (8 << 20 if out.received > out.certain else 4 * LARGE):
            return False
        return step["size"] >= LARGE and not out.urgent and not step["flags"]

    def _reset_is_ahead(self, side: str) -> bool:
        """The other end is shut both ways, so it resets when something comes. Whether FIN has come
        before, past what of its bytes waited for room, decides between EPIPE and ECONNRESET
        (docs/semantics.md)."""
        return self._shut[OTHER[side]] == {"RD", "WR"} and not self._streams[OTHER[side]].exact

    def _takes_what_has_come(self, side: str, at_once: int | None = None) -> bool:
        """A receive that waits has room for more than comes at once: of a large send it takes
        what is there when it wakes."""
        most = self._streams[OTHER[side]].certain if at_once is None else at_once
        receives = [b for b in self._blocked_by(side) if b.kind == "receive"]
        return any(b.step["size"] > most for b in receives)

    def _question_makes_sense(self, side: str, what: str) -> bool:
        out, come = self._streams[side], self._streams[OTHER[side]]
        if what == "FIONREAD":
            return come.exact and not self._sending(OTHER[side])
        return what != "SIOCOUTQ" or out.fits(0)

    def _state_is_certain(self, side: str) -> bool:
        """Not where a FIN may have to wait behind bytes, nor after a death: TCP answers bytes
        that lie unread with RST, the ring keeps that to itself until it matters."""
        exact = self._streams[side].exact and self._streams[OTHER[side]].exact
        return exact and self._pair.parties[OTHER[side]].alive

    def _targets(self, step: Step) -> list[Blocked]:
        mine = [b for b in self._blocked if b.step["by"] == step["by"]]
        return [b for b in mine if b.step["child"] == step["child"]]

    def _target(self, step: Step) -> Blocked:
        return self._targets(step)[0]

    def _is_edge_triggered(self, step: Step) -> bool:
        return (step["by"], step["set"]) in self._edge_sets

    # --- what came of it ---

    def _note(self, step: Step) -> None:
        side = step["by"]
        if step["do"] in _DISTURBING or step.get("name") in _DISTURBING_OPTIONS:
            self._disturbed = True
        if step["do"] == "epoll ctl" and "EPOLLET" in step["events"]:
            self._edge_sets.add((side, step["set"]))
        if self._may_leave_the_ring(step):
            for stream in self._streams.values():
                stream.full = False  # what filled the ring goes by TCP now
        leaving = ("close", "cover", "shutdown", "reconnect", "pass", "exec reader", "exec writer")
        if self._says_its_last(step) and side not in self._left_the_ring:
            self._said_its_last.add(side)
        if step["do"] in leaving:
            self._left_the_ring.add(side)
        if step["do"] in ("copy", "fork"):
            self._has_copies.add(side)
        if step["do"] == "shutdown":
            self._shut[side] |= _WAYS[step["how"]]
        if step["do"] in {*_HANDING_ON, "exec writer"} and side not in self._closed:
            self._handed_on.add(side)
        if step["do"] in ("close", "cover"):
            self._closed.add(side)
        leaves = step["do"] in ("set option", "epoll ctl") or _is_onto_an_open_number(step)
        if leaves or "MSG_OOB" in step.get("flags", ()):
            self._pristine = False
        ends = step["do"] in ("close", "cover", "shutdown")
        # Of an error that a call made of several meets after its first the kernel tells nobody,
        # if that is who wakes first.
        takes = any(b.step["how"] in _MADE_OF_SEVERAL for b in self._sending(OTHER[side]))
        if ends and (takes or not self._streams[side].fits(0)):
            self._may_not_see_the_end.add(OTHER[side])
        if step["do"] == "end child":
            time.sleep(_TICKS)
        if step["do"] == "reconnect" and step["how"] == "AF_UNSPEC":
            self._disconnected.add(side)  # what else can be done with it is no matter of ours
        if step["do"] == "set option":
            self._timed[side] |= step["name"] in ("SO_RCVTIMEO", "SO_SNDTIMEO")
            self._corked |= step["name"] in ("TCP_CORK", "TCP_NODELAY")
            if step["name"] == "SO_RCVLOWAT":
                self._lowat[side] = int.from_bytes(bytes.fromhex(step["value"])[:4], "little")
            if step["name"] == "SO_RCVBUF":
                self._streams[OTHER[side]].certain = 512
            self._streams[side].bounded |= step["name"] == "SO_SNDBUF"

    def _finish(self, step: Step, label: str, answer: dict[str, Any]) -> None:
        result = answer["result"]
        said, edges = str(result), None
        match step["do"]:
            case "send" | "exec writer" | "fill":
                said = self._sent(step, result)
            case "receive" | "exec reader":
                said = self._received(step, result)
            case "poll" if isinstance(result, int):
                said = event_names(result & ~self._open_bits(step["by"]))
            case "epoll wait":
                events, levels = result
                said = str(events)
                if isinstance(events, list):
                    said, edges = self._epoll_events(step, events, levels)
        signals = self._signals_of(step, answer.get("signals", []))
        if said == "sent a part" and step["how"] in _MADE_OF_SEVERAL:
            # Whether the kernel was between two of its sends is a matter of timing.
            signals = [name for name in signals if name != "SIGPIPE"]
        if signals and said != NOBODY:
            said += " and " + " ".join(signals)
        self._say(label, said, edges)
        if signals and step.get("how") == "recvmmsg" and not isinstance(result, str):
            raise Parted  # the kernel hands the next call an errno of its own (ERESTARTSYS)

    def _signals_of(self, step: Step, seen: list[str]) -> list[str]:
        """SIGPIPE belongs to a send: a blocked one may raise it while another step answers."""
        side = step["by"]
        seen = self._held[side] + seen
        self._held[side] = []
        if step["do"] != "send" and any(b.kind == "send" for b in self._blocked_by(side)):
            self._held[side] = [name for name in seen if name == "SIGPIPE"]
            seen = [name for name in seen if name != "SIGPIPE"]
        return seen

    def _sending(self, side: str) -> list[Blocked]:
        return [b for b in self._blocked_by(side) if b.kind == "send"]

    def _blocked_by(self, side: str) -> list[Blocked]:
        return [blocked for blocked in self._blocked if blocked.step["by"] == side]

    def _sent(self, step: Step, result: Any) -> str:
        stream = self._streams[step["by"]]
        if self._goes_to_nobody(step):
            stream.exact = False
            return NOBODY
        if not isinstance(result, int):
            return str(result)
        # Some of it may have been read before it was all sent.
        certain = step["do"] != "fill" and stream.unread >= 0 and stream.fits(step["size"])
        stream.sent += result
        if step["do"] == "fill":
            stream.exact, stream.full, stream.adrift = False, True, True
            return "filled"
        stream.urgent |= "MSG_OOB" in step.get("flags", ())
        if certain:
            return str(result)
        stream.exact, stream.adrift = False, True
        if self._timed[step["by"]]:
            return "sent something"
        return "sent all" if result == step["size"] else "sent a part"

    def _goes_to_nobody(self, step: Step) -> bool:
        in_parts = step.get("size", 0) >= LARGE or step.get("how") == "sendmmsg"
        return in_parts and not self._pair.parties[OTHER[step["by"]]].alive

    def _received(self, step: Step, result: Any) -> str:
        stream = self._streams[OTHER[step["by"]]]
        if isinstance(result, str):
            return result
        if step["by"] in self._may_not_see_the_end and str(result[0]) in _AN_END:
            return "an end"
        count, right, text, seen = result
        flags = step.get("flags", [])
        if step.get("how") == "recvmmsg" and self._is_gone(OTHER[step["by"]]):
            self._may_keep_an_error.add(step["by"])
        if isinstance(count, int) and not {"MSG_PEEK", "MSG_OOB", "MSG_ERRQUEUE"} & set(flags):
            stream.received += count
            stream.full = stream.full and not count
        said = f"{count} {seen}".strip()
        if stream.urgent or ("MSG_OOB" in flags and not stream.adrift):
            said += f" {text!r}"
        elif not right and "MSG_TRUNC" not in flags:
            said += f" WRONG BYTES {text!r}"
        return said

    def _drain(self, step: Step, label: str) -> None:
        stream = self._streams[OTHER[step["by"]]]
        exact, total, why = stream.exact, 0, ""
        began = idle_since = time.monotonic()
        while True:
            result = self._ask(step["by"], self._request(step)).get("result", "hung")
            if not self._guide and time.monotonic() - began > _LONGEST_DRAIN:
                result = "hung"  # through a window of 2 KiB, say
            if isinstance(result, str):
                self._say(label, result)
                return
            count, why = result
            stream.received += count
            total += count
            if count:
                idle_since = time.monotonic()
            self._hear_of_blocked(patient=False)
            sending = any(b.kind == "send" and b.step["by"] != step["by"] for b in self._blocked)
            missing = sending or stream.unread
            # Behind what was more than the window takes FIN comes a moment after the last byte.
            if why != "more may come" or not (missing or step["by"] in self._may_not_see_the_end):
                break
            if time.monotonic() - idle_since > (self._late if self._guide else 0.5):
                why = "bytes missing" if missing else why
                break
        if why == "more may come":
            stream.drained()
        elif step["by"] in self._may_not_see_the_end and why in _AN_END:
            why = "an end"
        self._say(label, f"{total if exact else 'all'}, {why}")

    def _open_bits(self, side: str) -> int:
        open_bits = 0
        if not self._pair.parties[OTHER[side]].alive and not self._streams[side].exact:
            open_bits |= _ENDS  # see NOBODY
        if side in self._may_not_see_the_end:
            open_bits |= _ENDS | _ENDS_OF_STREAM
        sending = any(b.kind == "send" and b.step["by"] == side for b in self._blocked)
        if self._streams[side].writability_is_open or sending:
            open_bits |= WRITABLE
        come = self._streams[OTHER[side]]
        # Behind a ring that has ended fewer will do (docs/semantics.md).
        ended = OTHER[side] in self._left_the_ring or not self._pristine
        too_few = self._lowat[side] > 1 and come.unread and ended
        if not come.exact or too_few:
            open_bits |= READABLE
        if not come.exact and "WR" in self._shut[OTHER[side]]:
            open_bits |= _ENDS_OF_STREAM  # FIN may have to wait for room behind bytes, or not
        return open_bits

    def _epoll_events(
        self, step: Step, events: list[list[int]], levels: dict[str, int]
    ) -> tuple[str, Edges | None]:
        known = ~self._open_bits(step["by"])
        shown = {data: bits & known for data, bits in events if bits & known}
        said = " ".join(f"{data}:{event_names(bits)}" for data, bits in shown.items()) or "nothing"
        if not self._is_edge_triggered(step):
            return said, None
        return said, Edges(shown, {int(data): bits & known for data, bits in levels.items()})


def _early(size: int) -> Step:
    return {"do": "send", "handle": 0, "how": "send", "size": size, "flags": []}
