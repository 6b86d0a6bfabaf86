"""eBPF programs attached to the loopback device with tcx (Linux 6.6), which tc does not list.

Source: bpf(2), BPF_PROG_QUERY in include/uapi/linux/bpf.h. Needs CAP_NET_ADMIN; the kernel
tells nobody of changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import threading
from pathlib import Path

from loopfuse._firewall.machine import Kind
from loopfuse._firewall.packet import LO_INDEX
from loopfuse._firewall.walk import Watcher
from loopfuse._kernel import enter_netns

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_PROG_QUERY = 16
_PLACES = {"ingress": 46, "egress": 47}
_QUERY = struct.Struct("=IIIIQI")
_COUNT_AT = 24
_ATTRIBUTE_SIZE = 64


class Tcx:
    """The programs at lo, in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._is_home = Path("/proc/thread-self/ns/net").samefile("/proc/self/ns/net")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = _SYSCALL.get(platform.machine())

    def close(self) -> None:
        os.close(self._namespace)

    def read(self) -> list[Watcher]:
        """Nothing where the kernel has no tcx, or does not tell."""
        if self._number is None:
            return []
        if self._is_home:
            return self._query()
        found: list[Watcher] = []

        def go() -> None:
            with contextlib.suppress(OSError):
                enter_netns(self._namespace)
                found.extend(self._query())

        thread = threading.Thread(target=go, name="loopfuse-tcx")
        thread.start()
        thread.join()
        return found

    def _query(self) -> list[Watcher]:
        return [
            Watcher(f"tcx program at lo's {name}", Kind.BPF, "")
            for name, kind in _PLACES.items()
            if self._count(kind)
        ]

    def _count(self, kind: int) -> int:
        attribute = ctypes.create_string_buffer(
            _QUERY.pack(LO_INDEX, kind, 0, 0, 0, 0), _ATTRIBUTE_SIZE
        )
        done = self._libc.syscall(self._number, _PROG_QUERY, attribute, _ATTRIBUTE_SIZE)
        return int(struct.unpack_from("=I", attribute, _COUNT_AT)[0]) if done == 0 else 0
