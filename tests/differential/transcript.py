"""Transcripts, and whether two of them agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

EVENT_NAMES = {
    0x1: "IN",
    0x2: "PRI",
    0x4: "OUT",
    0x8: "ERR",
    0x10: "HUP",
    0x20: "NVAL",
    0x40: "RDNORM",
    0x80: "RDBAND",
    0x100: "WRNORM",
    0x200: "WRBAND",
    0x2000: "RDHUP",
}


def event_names(bits: int) -> str:
    return "|".join(name for bit, name in EVENT_NAMES.items() if bits & bit) or "nothing"


@dataclass
class Edges:
    """What an edge-triggered set reported, by its data. It may repeat what is true, and
    must not keep quiet about what is new: `levels` bounds it from above."""

    events: dict[int, int]
    levels: dict[int, int]

    def allow(self, other: Edges) -> bool:
        for data in self.events.keys() | other.events.keys():
            least = self.events.get(data, 0)
            most = least | self.levels.get(data, 0)
            got = other.events.get(data, 0)
            if least & ~got or got & ~most:
                return False
        return True


@dataclass
class Line:
    label: str
    said: str
    edges: Edges | None = None

    def allows(self, other: Line) -> bool:
        if self.label != other.label:
            return False
        if self.edges and other.edges:
            return self.edges.allow(other.edges)
        return self.said == other.said


@dataclass
class Transcript:
    lines: list[Line] = field(default_factory=list)
    completed: dict[int, set[int]] = field(default_factory=dict)
    """After which step which blocked step had come to its end."""
    fused: bool = False


def differs_at(plain: Transcript, fused: Transcript) -> int | None:
    """The number of the first line in which they do not agree."""
    for number, (one, other) in enumerate(zip_longest(plain.lines, fused.lines)):
        if not one or not other or not one.allows(other):
            return number
    return None


def side_by_side(plain: Transcript, fused: Transcript) -> str:
    """Readable; what differs is marked."""
    text = []
    for one, other in zip_longest(plain.lines, fused.lines):
        mark = " " if one and other and one.allows(other) else ">"
        line = one or other
        assert line
        said = [x.said if x else "(missing)" for x in (one, other)]
        if other and one and one.label != other.label:
            said[1] += f"   ({other.label})"
        shown = said[0] if mark == " " else f"plain: {said[0]}   fused: {said[1]}"
        text.append(f"{mark} {line.label:<60} {shown}")
    return "\n".join(text)
