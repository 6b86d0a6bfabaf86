"""Reads nftables' rules, and with them those of iptables-nft, from the kernel.

Needs CAP_NET_ADMIN in the user namespace that owns the network namespace: the kernel shows
its rules to nobody else.
"""

from __future__ import annotations

from typing import NamedTuple

from loopfuse._firewall.expressions import steps_of, verdict_of
from loopfuse._firewall.machine import Verdict
from loopfuse._firewall.netlink import (
    NETLINK_NETFILTER,
    Answer,
    Netlink,
    attribute,
    attribute_list,
    attributes,
    number,
    text,
)
from loopfuse._firewall.packet import LO, Hook
from loopfuse._firewall.rules import Chain, Element, Place, Rule, Set, Table

NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 1, 4, 7, 10, 13
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_INET_HOOKS = {
    0: Hook.PREROUTING,
    1: Hook.INPUT,
    3: Hook.OUTPUT,
    4: Hook.POSTROUTING,
    5: Hook.INGRESS,
}
_NETDEV_HOOKS = {0: Hook.INGRESS, 1: Hook.EGRESS}
_DORMANT = 1
_SET_INTERVAL, _SET_EVAL, _SET_TIMEOUT, _SET_CONCAT = 0x4, 0x20, 0x10, 0x80
_ELEMENT_END, _ELEMENT_CATCHALL = 0x1, 0x2
_MOST_ELEMENTS = 10_000
_IPTABLES_TABLES = ("filter", "nat", "mangle", "raw", "security")
_IPTABLES_CHAINS = {"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"}

_Key = tuple[int, str]


class Nftables(NamedTuple):
    """What was read."""

    tables: list[Table]
    changes_silently: bool
    """Packets may change a set that rules ask."""


def read(netlink: Netlink) -> Nftables:
    """Everything that a packet on lo may meet. `netlink` speaks NETLINK_NETFILTER. Raises
    OSError: EPERM without the right, EINVAL and others on kernels without nftables."""
    tables = _read_tables(netlink)
    _read_chains(netlink, tables)
    sets = _read_sets(netlink, tables)
    _read_rules(netlink, tables, sets)
    silent = any(one.changes_silently for named in sets.values() for one in named.values())
    return Nftables([table for table in tables.values() if table.chains], silent)


def _body(family: int, *parts: bytes) -> bytes:
    return bytes([family, 0, 0, 0]) + b"".join(parts)


def _read_tables(netlink: Netlink) -> dict[_Key, Table]:
    tables: dict[_Key, Table] = {}
    for answer in netlink.ask(_SUBSYSTEM | _GETTABLE, _body(0)):
        family, a = answer.body[0], attributes(answer.body, 4)
        if family in _FAMILIES and not number(a.get(2)) & _DORMANT:
            name = text(a[1])
            tables[family, name] = Table(Place("nft", _FAMILIES[family], name))
    return tables


def _read_chains(netlink: Netlink, tables: dict[_Key, Table]) -> None:
    for answer in netlink.ask(_SUBSYSTEM | _GETCHAIN, _body(0)):
        family, a = answer.body[0], attributes(answer.body, 4)
        table = tables.get((family, text(a.get(1, b""))))
        if table is None:
            continue
        chain = Chain(text(a.get(3, b"")))
        if 4 in a and text(a.get(7, b"")) != "nat":
            chain.hook = _hook(family, a[4])
            chain.drops = number(a.get(5), 1) == 0
        table.chains[chain.name] = chain


def _hook(family: int, data: bytes) -> Hook | None:
    """None if no packet on lo comes along here."""
    a = attributes(data)
    hook = (_NETDEV_HOOKS if _FAMILIES[family] == "netdev" else _INET_HOOKS).get(number(a.get(1)))
    if hook not in (Hook.INGRESS, Hook.EGRESS):
        return hook
    devices = [a[3]] if 3 in a else []
    devices += [name for _, name in attribute_list(a.get(4, b""))]
    return hook if any(name.rstrip(b"\0") == LO for name in devices) else None


def _read_sets(netlink: Netlink, tables: dict[_Key, Table]) -> dict[_Key, dict[str, Set]]:
    sets: dict[_Key, dict[str, Set]] = {key: {} for key in tables}
    for answer in netlink.ask(_SUBSYSTEM | _GETSET, _body(0)):
        family, a = answer.body[0], attributes(answer.body, 4)
        key = (family, text(a.get(1, b"")))
        if key not in tables:
            continue
        flags, size = number(a.get(3)), number(a.get(5))
        made = Set(changes_silently=bool(flags & (_SET_EVAL | _SET_TIMEOUT)))
        if flags & _SET_CONCAT:
            made.fields = _fields(a.get(10, b""))
        name = text(a.get(2, b""))
        request = _body(family, attribute(1, a[1]), attribute(2, a[2]))
        _fill(made, netlink.ask(_SUBSYSTEM | _GETSETELEM, request), flags, size)
        sets[key][name] = made
    return sets


def _fields(description: bytes) -> tuple[int, ...]:
    concatenation = attributes(description).get(2, b"")
    sizes = [number(attributes(one).get(1)) for _, one in attribute_list(concatenation)]
    return tuple(size + -size % 4 for size in sizes)


def _fill(made: Set, answers: list[Answer], flags: int, size: int) -> None:
    """Takes the elements in; of an interval set without concatenations they are bounds."""
    bounds: list[tuple[bytes, int, Element | None]] = []
    elements: list[Element] = []
    for answer in answers:
        listed = attributes(answer.body, 4).get(3, b"")
        for _, raw in attribute_list(listed):
            a = attributes(raw)
            verdict = _element_verdict(a.get(2, b""))
            kind = number(a.get(3))
            if kind & _ELEMENT_CATCHALL:
                made.catches_all, made.verdict_otherwise = True, verdict
                continue
            low = attributes(a.get(1, b"")).get(1, b"")
            high = attributes(a[10]).get(1, b"") if 10 in a else low
            if flags & _SET_INTERVAL and not flags & _SET_CONCAT:
                start = None if kind & _ELEMENT_END else Element(low, low, verdict)
                bounds.append((low, 0 if start is None else 1, start))
            else:
                elements.append(Element(low, high, verdict))
            if len(bounds) + len(elements) > _MOST_ELEMENTS:
                made.elements = None
                return
    made.elements = elements + _intervals(bounds, size)


def _element_verdict(data: bytes) -> Verdict | None:
    raw = attributes(data).get(2)
    return verdict_of(raw) if raw is not None else None


def _intervals(bounds: list[tuple[bytes, int, Element | None]], size: int) -> list[Element]:
    bounds.sort(key=lambda bound: (bound[0], bound[1]))
    made: list[Element] = []
    for i, (low, _, start) in enumerate(bounds):
        if start is None:
            continue
        high = b"\xff" * size
        if i + 1 < len(bounds):
            high = (int.from_bytes(bounds[i + 1][0], "big") - 1).to_bytes(len(low), "big")
        made.append(Element(low, high, start.verdict))
    return made


def _read_rules(
    netlink: Netlink, tables: dict[_Key, Table], sets: dict[_Key, dict[str, Set]]
) -> None:
    counted: dict[_Key, bool] = {}
    for answer in netlink.ask(_SUBSYSTEM | _GETRULE, _body(0)):
        family, a = answer.body[0], attributes(answer.body, 4)
        key = (family, text(a.get(1, b"")))
        chain = tables[key].chains.get(text(a.get(2, b""))) if key in tables else None
        if chain is None:
            continue
        names = _names(a.get(4, b""))
        counted[key] = counted.get(key, True) and names.count("counter") == 1
        rule = Rule(number(a.get(3)), steps_of(a.get(4, b""), sets[key]))
        rule.counts_only = not {"immediate", "target", "queue", "log", "reject"} & set(names)
        chain.rules.append(rule)
    for key, table in tables.items():
        if counted.get(key) and _is_of_iptables(table):
            table.implicit_counters = True
            continue
        for chain in table.chains.values():
            for rule in chain.rules:
                rule.counts_only = False


def _names(expressions: bytes) -> list[str]:
    return [text(attributes(one).get(1, b"")) for _, one in attribute_list(expressions)]


def _is_of_iptables(table: Table) -> bool:
    """Was it made by iptables-nft? Its tables and base chains have these names, and all its
    rules a counter."""
    based = {chain.name for chain in table.chains.values() if chain.hook is not None}
    named = table.place.family in ("ip", "ip6") and table.place.table in _IPTABLES_TABLES
    return named and bool(based) and based <= _IPTABLES_CHAINS


def open_netlink() -> Netlink:
    """A socket for `read`, in the caller's network namespace."""
    return Netlink(NETLINK_NETFILTER)
