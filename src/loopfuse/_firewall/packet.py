"""A packet of an established connection on the loopback device, of which some is known.

One that only TCP on loopback would carry: payload or the acknowledgement of payload. SYN, FIN
and RST go through the kernel in a fused connection too, and are no concern here.
"""

from __future__ import annotations

import enum
import socket
import struct
import sys
from typing import NamedTuple

from loopfuse._firewall.values import Bits, known, unknown
from loopfuse._matching import Endpoint

LO = b"lo"
LO_INDEX = 1  # of every namespace (net/core/dev.c)
_IFNAMSIZ = 16
_IPPROTO_TCP = 6
FLAGS = 0x10
"""ACK is set, ..."""
FLAGS_KNOWN = 0x17
"""... SYN, RST and FIN are not; PSH, URG and the others may be."""
CT_ESTABLISHED = 2
_ARPHRD_LOOPBACK = 772
_RTN_LOCAL = 2
_U32 = struct.Struct("=I")


class Hook(str, enum.Enum):
    """Where on its way; the order is the packet's."""

    OUTPUT = "output"
    POSTROUTING = "postrouting"
    EGRESS = "egress"
    INGRESS = "ingress"
    PREROUTING = "prerouting"
    INPUT = "input"

    @property
    def is_sending(self) -> bool:
        return self in (Hook.OUTPUT, Hook.POSTROUTING, Hook.EGRESS)


class Flow(NamedTuple):
    """The connections one asks about; None: any. Of a client with port 0 the port is any."""

    is_ipv4: bool
    client: Endpoint | None = None
    server: Endpoint | None = None


class Packet:
    """One packet of a flow at one hook."""

    def __init__(self, flow: Flow, hook: Hook, *, to_server: bool) -> None:
        self.is_ipv4 = flow.is_ipv4
        self.hook = hook
        self.to_server = to_server
        source, target = flow.client, flow.server
        if not to_server:
            source, target = target, source
        size = 4 if flow.is_ipv4 else 16
        self.saddr = known(source.addr) if source else unknown(size)
        self.daddr = known(target.addr) if target else unknown(size)
        self.sport = _port(source)
        self.dport = _port(target)
        self.network = self._ipv4() if flow.is_ipv4 else self._ipv6()
        self.transport = _joined(
            self.sport,
            self.dport,
            unknown(8),  # sequence numbers
            unknown(1),
            Bits(bytes([FLAGS]), bytes([FLAGS_KNOWN])),
            unknown(6),
        )

    def _ipv4(self) -> Bits:
        return _joined(
            known(b"\x45"),
            unknown(5),  # TOS, length, id
            Bits(b"\0\0", b"\x3f\xff"),  # not a fragment
            unknown(1),
            known(bytes([_IPPROTO_TCP])),
            unknown(2),
            self.saddr,
            self.daddr,
        )

    def _ipv6(self) -> Bits:
        start = (Bits(b"\x60", b"\xf0"), unknown(5), known(bytes([_IPPROTO_TCP])), unknown(1))
        return _joined(*start, self.saddr, self.daddr)

    @property
    def iifname(self) -> bytes:
        return bytes(_IFNAMSIZ) if self.hook.is_sending else LO.ljust(_IFNAMSIZ, b"\0")

    @property
    def oifname(self) -> bytes:
        return LO.ljust(_IFNAMSIZ, b"\0") if self.hook.is_sending else bytes(_IFNAMSIZ)

    def meta(self, key: str) -> Bits | None:
        """What nftables' `meta` knows, in the machine's order; None: unknown."""
        sending = self.hook.is_sending
        numbers = {
            "nfproto": (socket.AF_INET if self.is_ipv4 else socket.AF_INET6, 1),
            "l4proto": (_IPPROTO_TCP, 1),
            "iif": (0 if sending else LO_INDEX, 4),
            "oif": (LO_INDEX if sending else 0, 4),
            "iiftype": (0 if sending else _ARPHRD_LOOPBACK, 2),
            "oiftype": (_ARPHRD_LOOPBACK if sending else 0, 2),
            "pkttype": (0, 1),  # PACKET_HOST
            "secpath": (0, 1),
        }
        if key in numbers:
            value, size = numbers[key]
            return known(value.to_bytes(size, sys.byteorder))
        if key == "iifname":
            return known(self.iifname, "iifname")
        if key == "oifname":
            return known(self.oifname, "oifname")
        if key == "protocol":
            return known(b"\x08\x00" if self.is_ipv4 else b"\x86\xdd")
        return None

    def route(self, result: str) -> bytes:
        """What a look at the routes (`fib`) of either address finds: both are this host's."""
        if result == "oifname":
            return LO.ljust(_IFNAMSIZ, b"\0")
        return _U32.pack(_RTN_LOCAL if result == "type" else LO_INDEX)


def _port(endpoint: Endpoint | None) -> Bits:
    if endpoint is None or endpoint.port == 0:
        return unknown(2)
    return known(endpoint.port.to_bytes(2, "big"))


def _joined(*parts: Bits) -> Bits:
    return Bits(b"".join(p.value for p in parts), b"".join(p.known for p in parts))
