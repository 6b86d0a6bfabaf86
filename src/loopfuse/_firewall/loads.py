"""nftables' expressions that put something of a packet into a register."""

from __future__ import annotations

import struct
from collections.abc import Callable

from loopfuse._firewall.machine import Kind, Machine, Step
from loopfuse._firewall.netlink import Attributes, number
from loopfuse._firewall.packet import CT_ESTABLISHED
from loopfuse._firewall.values import Bits, known, unknown

_META = (
    "length", "protocol", "priority", "mark", "iif", "oif", "iifname", "oifname", "iiftype",
    "oiftype", "skuid", "skgid", "nftrace", "rtclassid", "secmark", "nfproto", "l4proto",
    "ibrname", "obrname", "pkttype", "cpu", "iifgroup", "oifgroup", "cgroup", "random", "secpath",
    "iifkind", "oifkind", "ibrpvid", "ibrvproto", "time", "day", "hour", "sdif", "sdifname",
)  # fmt: skip
_META_SIZE = {"iifname": 16, "oifname": 16, "iifkind": 16, "oifkind": 16, "time": 8}
_SETTLED_META = ("mark", "priority", "rtclassid", "secmark", "iifgroup", "oifgroup", "cpu")
_META_SEEN = {
    "length": Kind.LENGTH,
    "random": Kind.SAMPLE,
    "time": Kind.TIME,
    "day": Kind.TIME,
    "hour": Kind.TIME,
}
_CT = (
    "state", "direction", "status", "mark", "secmark", "expiration", "helper", "l3proto", "src",
    "dst", "proto", "sport", "dport", "labels", "packets", "bytes", "avgpkt", "zone", "eventmask",
    "saddr", "daddr", "saddr6", "daddr6", "id",
)  # fmt: skip
_CT_COUNTED = ("packets", "bytes", "avgpkt", "expiration")
_LL, _NETWORK, _TRANSPORT = range(3)
_TCP_HEADER = 20
_FIB_RESULT = {1: "oif", 2: "oifname", 3: "type"}
_FIB_PRESENT = 1 << 5
_U32 = struct.Struct("=I")


def meta(a: Attributes) -> Step:
    """`meta load` and `meta set`."""
    index = number(a.get(2))
    key = _META[index] if index < len(_META) else ""
    if 3 in a:
        # A mark or a class is looked at by others, which see it as unknown.
        return _seeing(Kind.LOG) if key == "nftrace" else _nothing
    register = number(a.get(1))
    seen = _META_SEEN.get(key)

    def step(machine: Machine) -> None:
        bits = machine.packet.meta(key)
        if bits is None:
            size = _META_SIZE.get(key, 4)
            bits = unknown(size, settled=key in _SETTLED_META)
        if seen is not None:
            machine.see(seen)
        machine.load(register, bits)

    return step


def conntrack(a: Attributes) -> Step:
    """`ct load` and `ct set`."""
    index = number(a.get(2))
    key = _CT[index] if index < len(_CT) else ""
    if 4 in a:
        return _nothing
    register = number(a.get(1))
    reply = number(a.get(3)) == 1

    def step(machine: Machine) -> None:
        machine.load(register, _conntrack_value(machine, key, reply))

    return step


def _conntrack_value(machine: Machine, key: str, reply: bool) -> Bits:
    packet = machine.packet
    if key in _CT_COUNTED:
        machine.see(Kind.CONNBYTES)
    if key == "state":
        return known(_U32.pack(CT_ESTABLISHED))
    if key == "direction":
        return known(bytes([0 if packet.to_server else 1]))
    # The side of the connection that is asked about, as this packet has it.
    same = packet.to_server != reply
    if key in ("src", "saddr", "saddr6"):
        return packet.saddr if same else packet.daddr
    if key in ("dst", "daddr", "daddr6"):
        return packet.daddr if same else packet.saddr
    if key == "sport":
        return packet.sport if same else packet.dport
    if key == "dport":
        return packet.dport if same else packet.sport
    if key in ("proto", "l3proto"):
        return packet.meta("l4proto" if key == "proto" else "nfproto") or unknown(1)
    return unknown(16 if key in ("labels", "helper") else 8, settled=True)


def payload(a: Attributes) -> Step:
    """`payload load` and `payload write`."""
    if 5 in a:
        return _seeing(Kind.MANGLE)
    register, base = number(a.get(1)), number(a.get(2))
    at, size = number(a.get(3)), number(a.get(4))

    def step(machine: Machine) -> None:
        packet = machine.packet
        if base == _LL:
            machine.load(register, unknown(size, settled=True))
        elif base == _NETWORK and at + size <= len(packet.network.value):
            machine.load(register, _network(machine, at, size))
        elif base == _TRANSPORT and at + size <= _TCP_HEADER:
            if 4 <= at < 12 or at >= 14:
                machine.see(Kind.LENGTH)
            label = {(0, 2): "tcp sport", (2, 2): "tcp dport"}.get((at, size), "")
            machine.load(register, packet.transport.slice(at, size)._replace(label=label))
        else:
            machine.see(Kind.CONTENT)
            machine.load(register, unknown(size))

    return step


def _network(machine: Machine, at: int, size: int) -> Bits:
    packet = machine.packet
    lengths = range(2, 6) if packet.is_ipv4 else range(4, 6)
    if at < lengths.stop and at + size > lengths.start:
        machine.see(Kind.LENGTH)
    source, target = (12, 16) if packet.is_ipv4 else (8, 24)
    family = "ip" if packet.is_ipv4 else "ip6"
    label = {source: f"{family} saddr", target: f"{family} daddr"}.get(at, "")
    if size > target - source:
        label = ""
    return packet.network.slice(at, size)._replace(label=label)


def fib(a: Attributes) -> Step:
    """`fib`: the routes of either address, which both are this host's own."""
    register = number(a.get(1))
    result = _FIB_RESULT.get(number(a.get(2)), "oif")
    present = number(a.get(3)) & _FIB_PRESENT

    def step(machine: Machine) -> None:
        value = b"\1" if present else machine.packet.route(result)
        machine.load(register, known(value))

    return step


def settled(register_attribute: int) -> Callable[[Attributes], Step]:
    """An expression whose result is one for the whole connection."""

    def make(a: Attributes) -> Step:
        register = number(a.get(register_attribute))
        return lambda machine: machine.load(register, unknown(16, settled=True))

    return make


def sample(a: Attributes) -> Step:
    """`numgen`: one packet in so many."""
    register = number(a.get(1))

    def step(machine: Machine) -> None:
        machine.see(Kind.SAMPLE)
        machine.load(register, unknown(4))

    return step


def option(a: Attributes) -> Step:
    """`exthdr`: IPv6 extension headers and TCP options; writing them is mangling."""
    if 7 in a:
        return _seeing(Kind.MANGLE)
    register, size = number(a.get(1)), number(a.get(4), 4)
    return lambda machine: machine.load(register, unknown(max(size, 1), settled=True))


def _seeing(kind: Kind) -> Step:
    return lambda machine: machine.see(kind)


def _nothing(machine: Machine) -> None:
    """No effect that counts."""
