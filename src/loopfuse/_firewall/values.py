"""Bytes of which some bits are known, and how sure a comparison of them can be. Pure."""

from __future__ import annotations

import enum
import socket
from typing import NamedTuple


class Match(enum.IntEnum):
    """Does a rule match? The least sure of its parts decides: `min` is "and"."""

    NO = 0
    SETTLED = 1
    """Unknown, but the same for a connection's first packet as for all others (a mark, its
    status in connection tracking): whatever it is, the handshake has met it."""
    MAYBE = 2
    """Unknown."""
    YES = 3

    @property
    def negated(self) -> Match:
        return {Match.NO: Match.YES, Match.YES: Match.NO}.get(self, self)


class Bits(NamedTuple):
    """A value in a register."""

    value: bytes
    known: bytes
    """A one for each bit that is known. Unknown bits are zero in `value`."""
    settled: bool = False
    """What is unknown is at least settled (see Match)."""
    label: str = ""
    """What it is, as nft writes it (`tcp dport`); empty: not worth telling."""
    prefix: int | None = None
    """So many leading bits are left of it, the rest was masked out."""

    def slice(self, offset: int, size: int) -> Bits:
        part = slice(offset, offset + size)
        return self._replace(value=self.value[part], known=self.known[part])

    def unsure(self) -> Match:
        return Match.SETTLED if self.settled else Match.MAYBE


def known(value: bytes, label: str = "") -> Bits:
    return Bits(value, b"\xff" * len(value), label=label)


def unknown(size: int, label: str = "", *, settled: bool = False) -> Bits:
    return Bits(bytes(size), bytes(size), settled, label)


def equals(bits: Bits, value: bytes) -> Match:
    """Compares as many bytes as `value` has."""
    certain = True
    for i, wanted in enumerate(value):
        mask = bits.known[i] if i < len(bits.known) else 0
        have = bits.value[i] if i < len(bits.value) else 0
        if (have ^ wanted) & mask:
            return Match.NO
        certain = certain and mask == 0xFF
    return Match.YES if certain else bits.unsure()


def within(bits: Bits, low: bytes, high: bytes) -> Match:
    """Is it from `low` to `high`, both included, as numbers in network order?"""
    size = len(low)
    least = bits.value[:size]
    most = bytes(v | ~k & 0xFF for v, k in zip(least, bits.known, strict=False))
    if most < low or least > high:
        return Match.NO
    return Match.YES if least >= low and most <= high else bits.unsure()


def masked(bits: Bits, mask: bytes, flip: bytes) -> Bits:
    """(bits & mask) ^ flip: what is masked out is known."""
    value = bytes((v & m) ^ f for v, m, f in zip(bits.value, mask, flip, strict=False))
    certain = bytes(k | ~m & 0xFF for k, m in zip(bits.known, mask, strict=False))
    value = bytes(v & k for v, k in zip(value, certain, strict=False))
    return bits._replace(value=value, known=certain, prefix=_prefix(mask))


def _prefix(mask: bytes) -> int | None:
    digits = "".join(f"{byte:08b}" for byte in mask)
    ones = digits.rstrip("0")
    return len(ones) if "0" not in ones else None


def swapped(bits: Bits, size: int) -> Bits:
    """Every word of `size` bytes turned round."""
    return bits._replace(value=_turn(bits.value, size), known=_turn(bits.known, size))


def _turn(data: bytes, size: int) -> bytes:
    return b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))


def written(bits: Bits, value: bytes) -> str:
    """The constant `value`, compared with `bits`, as a person writes it; empty if unknown."""
    kind = bits.label.rpartition(" ")[2]
    if kind in ("sport", "dport"):
        return str(int.from_bytes(value[:2], "big"))
    if kind in ("saddr", "daddr"):
        size = 4 if bits.label.startswith("ip ") else 16
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        mask = bits.prefix if bits.prefix is not None else 8 * len(value)
        address = socket.inet_ntop(family, value[:size].ljust(size, b"\0"))
        return address if mask >= 8 * size else f"{address}/{mask}"
    if kind in ("iifname", "oifname"):
        return value.rstrip(b"\0").decode(errors="replace")
    return ""
