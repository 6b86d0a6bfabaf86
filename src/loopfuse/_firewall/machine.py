"""What one rule does to a packet: its registers, whether it matches, what it sees.

A rule is a list of steps; each takes the machine and does to it what the kernel's expression
does to a packet, as far as that can be told.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from loopfuse._firewall.packet import Packet
from loopfuse._firewall.values import Bits, Match, unknown

_REGISTER_BYTES = 80


class Kind(str, enum.Enum):
    """In what way a rule concerns itself with payload."""

    COUNTER = "counter"
    QUOTA = "quota"
    LIMIT = "limit"
    CONNBYTES = "connbytes"
    CONTENT = "content"
    LENGTH = "length"
    SAMPLE = "sample"
    TIME = "time"
    MANGLE = "mangle"
    LOG = "log"
    COPY = "copy"
    QUEUE = "queue"
    SET = "set"
    DROP = "drop"
    TC = "tc"
    BPF = "bpf"


WORDS = {
    Kind.COUNTER: "counts packets",
    Kind.QUOTA: "counts bytes against a quota",
    Kind.LIMIT: "limits or measures a rate, or counts connections",
    Kind.CONNBYTES: "decides by the bytes of a connection",
    Kind.CONTENT: "looks into payload",
    Kind.LENGTH: "looks at the lengths or numbers of packets",
    Kind.SAMPLE: "picks packets at random or in turn",
    Kind.TIME: "decides by the time of day",
    Kind.MANGLE: "changes packets",
    Kind.LOG: "logs packets",
    Kind.COPY: "copies or redirects packets",
    Kind.QUEUE: "hands packets to a program",
    Kind.SET: "notes packets in a set",
    Kind.DROP: "drops packets of established connections",
    Kind.TC: "traffic control on lo",
    Kind.BPF: "an eBPF program sees packets on lo",
}


class Action(enum.IntEnum):
    """Verdicts, as nftables numbers them."""

    DROP = 0
    ACCEPT = 1
    CONTINUE = -1
    JUMP = -3
    GOTO = -4
    RETURN = -5


class Verdict(NamedTuple):
    action: Action
    chain: str = ""


class Machine:
    """The state while one rule is applied to one packet."""

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.match = Match.YES
        self.words: list[str] = []
        """Which packets it is about, as nft writes it."""
        self.seen: list[Kind] = []
        """What the rule has seen or done by the time its matching ended."""
        self.verdicts: list[tuple[Verdict, Match]] = []
        self.implicit_counters = False
        """Does every rule here have a counter, wanted or not (iptables)?"""
        self._value = bytearray(_REGISTER_BYTES)
        self._known = bytearray(_REGISTER_BYTES)
        self._notes: dict[int, Bits] = {}

    def need(self, match: Match) -> None:
        """The rule goes on only if this holds."""
        self.match = min(self.match, match)

    def see(self, kind: Kind) -> None:
        """The rule looks at the packet in this way."""
        if kind not in self.seen:
            self.seen.append(kind)

    def end(self, verdict: Verdict, match: Match = Match.YES) -> None:
        """A verdict, given that the rule matches and `match` holds too."""
        sure = min(self.match, match)
        if sure > Match.NO and verdict.action != Action.CONTINUE:
            self.verdicts.append((verdict, sure))

    def load(self, register: int, bits: Bits) -> None:
        at = offset(register)
        size = len(bits.value)
        padded = size + -size % 4
        if at + padded > _REGISTER_BYTES:
            return
        self._value[at : at + padded] = bits.value.ljust(padded, b"\0")
        self._known[at : at + padded] = bits.known.ljust(padded, b"\xff")
        for place in range(at, at + padded, 4):
            self._notes.pop(place, None)
        self._notes[at] = bits._replace(value=b"", known=b"")

    def read(self, register: int, size: int) -> Bits:
        at = offset(register)
        if at + size > _REGISTER_BYTES:
            return unknown(size)
        part = slice(at, at + size)
        notes = [note for place, note in self._notes.items() if at <= place < at + size]
        first = self._notes.get(at, Bits(b"", b""))
        label = " . ".join(note.label for note in notes) if len(notes) > 1 else first.label
        settled = any(note.settled for note in notes)
        value, certain = bytes(self._value[part]), bytes(self._known[part])
        return Bits(value, certain, settled, label, first.prefix)


Step = Callable[[Machine], None]


def offset(register: int) -> int:
    """The place of a register: four of 16 bytes, or twenty of 4, over the same memory."""
    return (register - 4) * 4 if register >= 8 else register * 16
