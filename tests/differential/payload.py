"""What travels: byte p of a direction depends on p alone, so the receiver can tell a lost,
doubled or overtaken byte whatever the sizes were."""

from __future__ import annotations

import hashlib

_PERIOD = 65521  # prime: no ring, page or buffer size divides it
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LETTERS = bytes(_ALPHABET[i & 63] for i in range(256))


def _one_period(direction: str) -> bytes:
    return hashlib.shake_128(direction.encode()).digest(_PERIOD).translate(_LETTERS)


PERIODS = {direction: _one_period(direction) for direction in ("to server", "to client")}


def payload(direction: str, position: int, size: int) -> bytes:
    """The `size` bytes from `position` on."""
    start = position % _PERIOD
    copies = (start + size) // _PERIOD + 1
    return (PERIODS[direction] * copies)[start : start + size]
