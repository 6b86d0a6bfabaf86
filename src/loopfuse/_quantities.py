"""How a number of bytes, a count and a time are written in few characters."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in at most six characters, in powers of 1024."""
    if count < 1024:
        return str(int(count))
    value = float(count)
    for unit in "KMGTPE":
        value /= 1024
        if value < 1000 or unit == "E":
            break
    return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"


def amount(count: float) -> str:
    """How many, in at most six characters, in powers of 1000."""
    if count < 1000:
        return str(round(count)) if count >= 9.95 or count == int(count) else f"{count:.1f}"
    value = float(count)
    for unit in "kMGTPE":
        value /= 1000
        if value < 999.5 or unit == "E":
            break
    return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"


def time_span(seconds: float) -> str:
    """A short time in at most six characters: `850ns`, `12.3us`, `4.0ms`, `1.5s`."""
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        value = seconds * scale
        if value < 999.5:
            return f"{value:.0f}{unit}" if value >= 99.95 or unit == "ns" else f"{value:.1f}{unit}"
    return f"{seconds:.1f}s" if seconds < 1000 else f"{seconds:.0f}s"
