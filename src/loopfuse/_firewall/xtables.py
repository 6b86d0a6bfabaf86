"""The matches and targets of iptables, as iptables-nft and iptables-legacy hand them in:
a name, a revision and the bytes of a structure of include/uapi/linux/netfilter/xt_*.h.

A match that is not named here is taken for unknown, but the same for all packets of a
connection; a target that is not, for one that changes packets.
"""

from __future__ import annotations

import struct

from loopfuse._firewall.machine import Action, Kind, Machine, Step, Verdict
from loopfuse._firewall.packet import CT_ESTABLISHED
from loopfuse._firewall.values import Bits, Match, equals, masked, within

_TCP = struct.Struct("=4HBBBB")
_PROTO_CHECKED = {"udp", "icmp", "icmp6", "sctp", "dccp", "esp", "ah", "udplite"}
_MATCH_SEES = {
    "limit": Kind.LIMIT,
    "hashlimit": Kind.LIMIT,
    "connlimit": Kind.LIMIT,
    "rateest": Kind.LIMIT,
    "quota": Kind.QUOTA,
    "connbytes": Kind.CONNBYTES,
    "nfacct": Kind.COUNTER,
    "string": Kind.CONTENT,
    "u32": Kind.CONTENT,
    "bpf": Kind.CONTENT,
    "length": Kind.LENGTH,
    "statistic": Kind.SAMPLE,
    "time": Kind.TIME,
    "recent": Kind.SET,
}
_MATCH_ALWAYS = ("comment",)
_MATCH_MAYBE = ("owner", "cgroup", "set", "dscp", "tos", "ttl", "hl", "ecn", "iprange", "cluster")
"""What a rule that is added later may newly tell apart."""
_TARGET_SEES = {
    "LOG": Kind.LOG,
    "NFLOG": Kind.LOG,
    "ULOG": Kind.LOG,
    "AUDIT": Kind.LOG,
    "TRACE": Kind.LOG,
    "NFQUEUE": Kind.QUEUE,
    "TEE": Kind.COPY,
    "TPROXY": Kind.COPY,
    "RATEEST": Kind.LIMIT,
    "IDLETIMER": Kind.COUNTER,
    "LED": Kind.COUNTER,
    "SET": Kind.SET,
}
_TARGET_HARMLESS = {
    "MARK", "CONNMARK", "CT", "NOTRACK", "CLASSIFY", "SECMARK", "CONNSECMARK", "CHECKSUM",
    "HMARK", "SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP",
}  # fmt: skip
"""Marks are looked at by others, to whom they are unknown."""
_ADDRTYPE_LOCAL = 1 << 2
_CT_STATE = 1
_CONNTRACK_FLAGS_AT = 16 * 8 + 8 + 2 + 8


def match_step(name: str, revision: int, info: bytes) -> Step:
    """One `-m name`."""
    if name == "tcp":
        return _tcp(info)
    if name == "multiport":
        return _multiport(revision, info)
    if name in ("conntrack", "state"):
        return _states(name, revision, info)
    if name == "addrtype":
        return _addrtype(revision, info)
    if name in _MATCH_ALWAYS:
        return lambda machine: machine.need(Match.YES)
    if name in _PROTO_CHECKED:
        return lambda machine: machine.need(Match.NO)
    kind = _MATCH_SEES.get(name)
    sure = Match.MAYBE if kind is not None or name in _MATCH_MAYBE else Match.SETTLED

    def step(machine: Machine) -> None:
        if kind is not None:
            machine.see(kind)
        machine.need(sure)

    return step


def target_step(name: str, revision: int, info: bytes) -> Step:
    """One `-j NAME` that is not a chain."""
    if name == "REJECT":
        return lambda machine: machine.end(Verdict(Action.DROP))
    if name in _TARGET_HARMLESS:
        return lambda machine: None
    kind = _TARGET_SEES.get(name, Kind.MANGLE)
    return lambda machine: machine.see(kind)


def _tcp(info: bytes) -> Step:
    s1, s2, d1, d2, option, mask, wanted, inverse = _TCP.unpack_from(info)

    def step(machine: Machine) -> None:
        packet = machine.packet
        for bits, low, high, bit, label in (
            (packet.sport, s1, s2, 1, "tcp sport"),
            (packet.dport, d1, d2, 2, "tcp dport"),
        ):
            match = within(bits, low.to_bytes(2, "big"), high.to_bytes(2, "big"))
            machine.need(match.negated if inverse & bit else match)
            if (low, high) != (0, 0xFFFF):
                span = str(low) if low == high else f"{low}-{high}"
                machine.words.append(f"{label} {'!= ' if inverse & bit else ''}{span}")
        flags = masked(packet.transport.slice(13, 1), bytes([mask]), b"\0")
        match = equals(flags, bytes([wanted]))
        machine.need(match.negated if inverse & 4 else match)
        if option:
            machine.need(Match.SETTLED)

    return step


def _multiport(revision: int, info: bytes) -> Step:
    which, count = info[0], min(info[1], 15)
    ports = struct.unpack_from("=15H", info, 2)[:count]
    flags = info[32 : 32 + count] if revision >= 1 else bytes(count)
    inverse = revision >= 1 and len(info) > 47 and info[47] != 0
    spans: list[tuple[int, int]] = []
    i = 0
    while i < count:
        last = i + 1 if flags[i] and i + 1 < count else i
        spans.append((ports[i], ports[last]))
        i = last + 1
    label = ("tcp sport", "tcp dport", "tcp port")[min(which, 2)]
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)

    def step(machine: Machine) -> None:
        packet = machine.packet
        ends = ((packet.sport,), (packet.dport,), (packet.sport, packet.dport))[min(which, 2)]
        match = max((_in_spans(bits, spans) for bits in ends), default=Match.NO)
        machine.need(match.negated if inverse else match)
        machine.words.append(f"{label} {'!= ' if inverse else ''}{{ {text} }}")

    return step


def _in_spans(bits: Bits, spans: list[tuple[int, int]]) -> Match:
    found = [within(bits, a.to_bytes(2, "big"), b.to_bytes(2, "big")) for a, b in spans]
    return max(found, default=Match.NO)


def _states(name: str, revision: int, info: bytes) -> Step:
    if name == "state":
        (mask,) = struct.unpack_from("=I", info)
        flags, inverse = _CT_STATE, 0
    else:
        flags, inverse = struct.unpack_from("=HH", info, _CONNTRACK_FLAGS_AT)
        mask = info[_CONNTRACK_FLAGS_AT + 4]
        if revision >= 2:
            (mask,) = struct.unpack_from("=H", info, _CONNTRACK_FLAGS_AT + 4)

    def step(machine: Machine) -> None:
        if flags & _CT_STATE:
            match = Match.YES if mask & CT_ESTABLISHED else Match.NO
            if mask & ~0x1F and match == Match.NO:
                match = Match.SETTLED  # SNAT, DNAT, UNTRACKED
            machine.need(match.negated if inverse & _CT_STATE else match)
        if flags & ~_CT_STATE & ~(1 << 13):
            machine.need(Match.SETTLED)

    return step


def _addrtype(revision: int, info: bytes) -> Step:
    source, target = struct.unpack_from("=HH", info)
    inverse = struct.unpack_from("=I" if revision >= 1 else "=II", info, 4)

    def step(machine: Machine) -> None:
        for types, bit in ((source, 1), (target, 2)):
            if types:
                match = Match.YES if types & _ADDRTYPE_LOCAL else Match.NO
                turned = inverse[0] & bit if revision >= 1 else inverse[bit - 1]
                machine.need(match.negated if turned else match)

    return step
