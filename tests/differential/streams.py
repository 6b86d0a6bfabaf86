"""What plain TCP leaves open: the director's idea of each direction.

`exact` means that both runs must have the same number of bytes under way. A send that
need not fit ends that, and a drain brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass

READABLE = 0x1 | 0x40
WRITABLE = 0x4 | 0x100 | 0x200


@dataclass
class Stream:
    direction: str
    sent: int = 0
    received: int = 0
    certain: int = 16384
    """So many unread bytes find room in any case."""
    exact: bool = True
    full: bool = False
    """Not a byte finds room, and nobody has read since."""
    adrift: bool = False
    """Once more was sent in one run than in the other, so its bytes are others from there on."""
    bounded: bool = False
    """SO_SNDBUF was set, to 65,536."""
    urgent: bool = False
    """MSG_OOB was used: positions mean nothing any more."""

    @property
    def unread(self) -> int:
        return self.sent - self.received

    def fits(self, size: int) -> bool:
        return self.exact and self.unread + size <= self.certain

    @property
    def writability_is_open(self) -> bool:
        # A zero-window probe has the receiver squeeze what it holds together (tcp_collapse() in
        # net/ipv4/tcp_input.c): then more fits, which may be the third of a small buffer. And once
        # a reader has made room, buffers go on growing with each acknowledgement
        # (tcp_new_space()), those that the other side's bytes bring among them.
        sure = self.full and not self.bounded and not self.received
        return not self.fits(0) and not sure

    def drained(self) -> None:
        self.exact = True
        self.full = False
