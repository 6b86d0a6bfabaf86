"""The kernel's tables of TCP sockets: of this network namespace and of others.

This one is read with sock_diag(7). Another one can't be entered without privileges, but
/proc/PID/net/tcp (proc(5)) shows the table of the namespace that the process PID is in, to
whoever may look into that process.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from loopfuse._matching import Endpoint, endpoint
from loopfuse._sockdiag import SockDiag, State, TcpSocket

_PASSING = (State.TIME_WAIT, State.CLOSE, State.SYN_RECV, State.NEW_SYN_RECV)


def sockets_here() -> list[TcpSocket]:
    """Of this process's namespace. Raises SockDiagError."""
    diag = SockDiag()
    try:
        return list(diag.sockets())
    finally:
        diag.close()


def sockets_of(pid: int) -> list[TcpSocket]:
    """Of the namespace of that process; none if it is gone or hidden."""
    found: list[TcpSocket] = []
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        found += _parse(family, lines)
    return found


def _parse(family: int, lines: Iterable[str]) -> Iterator[TcpSocket]:
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or int(fields[3], 16) in _PASSING:
            continue
        local, remote = _endpoint(family, fields[1]), _endpoint(family, fields[2])
        yield TcpSocket(local, remote, int(fields[3], 16), int(fields[7]), int(fields[9]))


def _endpoint(family: int, text: str) -> Endpoint:
    """From hexadecimal words, each in the byte order of the machine."""
    addr, _, port = text.partition(":")
    words = [int(addr[at : at + 8], 16) for at in range(0, len(addr), 8)]
    return endpoint(family, struct.pack(f"={len(words)}I", *words), int(port, 16))


def is_local(address: Endpoint) -> bool:
    """Is it an address of this host, as seen from this namespace?"""
    family = socket.AF_INET if address.is_ipv4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address.text(), 0))
        except OSError:
            return False
    return True
