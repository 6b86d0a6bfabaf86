"""eBPF programs attached to the loopback device with tcx (Linux 6.6), which tc does not list.

Source: bpf(2), BPF_PROG_QUERY in include/uapi/linux/bpf.h. Needs CAP_NET_ADMIN; the kernel
tells nobody of changes.
"""

from __future__ import annotations

import ctypes
import platform
import struct

from loopfuse._firewall.inside import Inside
from loopfuse._firewall.machine import Kind
from loopfuse._firewall.packet import LO_INDEX
from loopfuse._firewall.walk import Watcher

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_PROG_QUERY = 16
_PLACES = {"ingress": 46, "egress": 47}
_QUERY = struct.Struct("=IIIIQI")
_COUNT_AT = 24
_ATTRIBUTE_SIZE = 64


class Tcx:
    """The programs at lo in one network namespace."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = _SYSCALL.get(platform.machine())
        self._attribute = ctypes.create_string_buffer(_ATTRIBUTE_SIZE)

    def read(self) -> list[Watcher]:
        """Nothing where the kernel has no tcx, or does not tell."""
        return (self._inside.call(self._query) or []) if self._number is not None else []

    def _query(self) -> list[Watcher]:
        return [
            Watcher(f"tcx program at lo's {name}", Kind.BPF, "")
            for name, kind in _PLACES.items()
            if self._count(kind)
        ]

    def _count(self, kind: int) -> int:
        attribute = self._attribute
        attribute.raw = _QUERY.pack(LO_INDEX, kind, 0, 0, 0, 0).ljust(_ATTRIBUTE_SIZE, b"\0")
        done = self._libc.syscall(self._number, _PROG_QUERY, attribute, _ATTRIBUTE_SIZE)
        return int(struct.unpack_from("=I", attribute, _COUNT_AT)[0]) if done == 0 else 0
