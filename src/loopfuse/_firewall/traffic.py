"""Traffic control (tc) and XDP on the loopback device. Anybody may look at those."""

from __future__ import annotations

import struct
import sys

from loopfuse._firewall.machine import Kind
from loopfuse._firewall.netlink import NETLINK_ROUTE, Netlink, attribute_list, attributes, text
from loopfuse._firewall.packet import LO_INDEX
from loopfuse._firewall.walk import Watcher

RTNLGRP_LINK, RTNLGRP_TC = 1, 4
_GETLINK, _GETQDISC, _GETTFILTER = 18, 38, 46
_TCMSG = struct.Struct("=BBHiIII")
_IFINFOMSG = struct.Struct("=BBHiII")
_TCA_KIND = 1
_IFLA_XDP = 43
_IFLA_XDP_ATTACHED = 2
_WITHOUT_EFFECT = ("noqueue", "clsact", "ingress")
"""What lo has by itself, and what only holds filters."""
_FILTERS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}


def open_netlink() -> Netlink:
    """A socket for `read`, in the caller's network namespace."""
    return Netlink(NETLINK_ROUTE)


def read(netlink: Netlink) -> list[Watcher]:
    """Queueing disciplines, filters and XDP programs; they concern all that crosses lo.
    Raises OSError."""
    found: list[Watcher] = []
    kinds: list[str] = []
    for answer in netlink.ask(_GETQDISC, _TCMSG.pack(0, 0, 0, LO_INDEX, 0, 0, 0)):
        if _TCMSG.unpack_from(answer.body)[3] != LO_INDEX:
            continue
        kind = text(attributes(answer.body, _TCMSG.size).get(_TCA_KIND, b""))
        kinds.append(kind)
        if kind not in _WITHOUT_EFFECT:
            found.append(Watcher(f"tc qdisc {kind} on lo", Kind.TC, ""))
    if {"clsact", "ingress"} & set(kinds):
        for name, parent in _FILTERS.items():
            found += _filters(netlink, name, parent)
    return list(dict.fromkeys(found)) + _xdp(netlink)


def _filters(netlink: Netlink, name: str, parent: int) -> list[Watcher]:
    try:
        answers = netlink.ask(_GETTFILTER, _TCMSG.pack(0, 0, 0, LO_INDEX, 0, parent, 0))
    except OSError:
        return []  # an ingress qdisc has no egress
    kinds = [
        text(attributes(answer.body, _TCMSG.size).get(_TCA_KIND, b""))
        for answer in answers
        if _TCMSG.unpack_from(answer.body)[3] == LO_INDEX
    ]
    return [Watcher(f"tc filter {kind} at lo's {name}", Kind.TC, "") for kind in kinds]


def _xdp(netlink: Netlink) -> list[Watcher]:
    body = _IFINFOMSG.pack(0, 0, 0, LO_INDEX, 0, 0)
    for answer in netlink.ask(_GETLINK, body, dump=False):
        for kind, value in attribute_list(answer.body, _IFINFOMSG.size):
            if kind == _IFLA_XDP:
                attached = attributes(value).get(_IFLA_XDP_ATTACHED, b"\0")
                if int.from_bytes(attached, sys.byteorder):
                    return [Watcher("XDP program on lo", Kind.BPF, "")]
    return []
