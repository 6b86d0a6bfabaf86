"""Capture filters in libpcap's own language (pcap-filter(7)), compiled and run by libpcap.

Three functions through ctypes, loaded when the first filter is used: docs/libraries.md.
"""

from __future__ import annotations

import ctypes

from loopfuse._errors import FilterError

_NAMES = ("libpcap.so.0.8", "libpcap.so.1")
"""As Debian and its children call it, and as the others do."""
_DLT_RAW = 12
_SNAP = 262144
_NETMASK_UNKNOWN = 0xFFFFFFFF


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class _Timeval(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))


class _Header(ctypes.Structure):
    _fields_ = (
        ("time", _Timeval),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


class Filter:
    """One compiled filter. Raises FilterError if `text` is none, or libpcap is not there."""

    def __init__(self, text: str) -> None:
        if "\0" in text:
            raise FilterError("a filter can't contain a zero byte")
        self._library = _load()
        handle = self._library.pcap_open_dead(_DLT_RAW, _SNAP)
        if not handle:
            raise FilterError("libpcap could not begin to compile a filter")
        self._program = _Program()
        try:
            done = self._library.pcap_compile(
                handle, ctypes.byref(self._program), text.encode(), 1, _NETMASK_UNKNOWN
            )
            if done != 0:
                said = self._library.pcap_geterr(handle) or b"?"
                raise FilterError(
                    f"`{text}` is not a capture filter: {said.decode(errors='replace')}",
                    hint="pcap-filter(7) describes the language, for example `tcp port 6379`.",
                )
        finally:
            self._library.pcap_close(handle)

    def matches(self, packet: bytes, length: int) -> bool:
        """Does it let this packet pass, which had `length` bytes before it was cut off?"""
        header = _Header(_Timeval(0, 0), len(packet), length)
        run = self._library.pcap_offline_filter
        return bool(run(ctypes.byref(self._program), ctypes.byref(header), packet))


def _load() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        library.pcap_close.argtypes = [ctypes.c_void_p]
        library.pcap_close.restype = None
        library.pcap_geterr.argtypes = [ctypes.c_void_p]
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_compile.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        ]
        library.pcap_offline_filter.argtypes = [
            ctypes.POINTER(_Program),
            ctypes.POINTER(_Header),
            ctypes.c_char_p,
        ]
        return library
    raise FilterError(
        "filters need libpcap, which is not installed",
        hint="Install it (Debian: `apt install libpcap0.8`), or choose with --port and --pid.",
    )
