"""Reads the tables of iptables-legacy and ip6tables-legacy from the kernel.

Only tables that exist are asked for: asking for another would have the kernel make it. Needs
CAP_NET_ADMIN; the kernel tells nobody of changes, so they are read again now and then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import NamedTuple

from loopfuse._firewall.inside import Inside
from loopfuse._firewall.machine import Action, Kind, Machine, Step, Verdict
from loopfuse._firewall.packet import Flow, Hook, Packet
from loopfuse._firewall.rules import Chain, Place, Rule, Table
from loopfuse._firewall.values import Match, equals, masked
from loopfuse._firewall.xtables import match_step, target_step
from loopfuse._kernel import query_socket_option

_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct("=32sI5I5III")
_ENTRIES_HEADER = 40  # the name, the size, and padding to 8
_HOOKS = (Hook.PREROUTING, Hook.INPUT, None, Hook.OUTPUT, Hook.POSTROUTING)
_CHAIN_NAMES = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_EXTENSION = struct.Struct("=H29sB")
_S32 = struct.Struct("=i")
_COUNTERS = 16
_VIA_IN, _VIA_OUT, _SRC, _DST, _FRAG, _PROTO = 0x01, 0x02, 0x08, 0x10, 0x20, 0x40
_IPPROTO_TCP = 6


class _Layout(NamedTuple):
    """Of struct ipt_entry or ip6t_entry."""

    tool: str
    family: int
    level: int
    address: int
    goto: int
    """Its bit in `flags`."""
    proto_at: int
    flags_at: int
    offsets_at: int
    size: int

    @property
    def counters_at(self) -> int:
        return self.size - _COUNTERS


_LAYOUTS = (
    _Layout("iptables-legacy", socket.AF_INET, socket.SOL_IP, 4, 0x02, 80, 82, 88, 112),
    _Layout("ip6tables-legacy", socket.AF_INET6, 41, 16, 0x04, 128, 131, 140, 168),
)


class Legacy:
    """The legacy tables of the namespace in which it was made."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._lists = dict.fromkeys(("ip_tables_names", "ip6_tables_names"), -1)
        self._sockets: list[socket.socket] = []
        for layout in _LAYOUTS:
            try:
                self._sockets.append(socket.socket(layout.family, socket.SOCK_DGRAM))
            except OSError:
                self._sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._last: list[bytes] = []

    def close(self) -> None:
        for fd in self._lists.values():
            if fd >= 0:
                os.close(fd)
        for sock in self._sockets:
            sock.close()

    def read(self) -> tuple[list[Table], bool]:
        """All tables, and whether they have changed since the last call."""
        tables: list[Table] = []
        seen: list[bytes] = []
        if -1 in self._lists.values():
            # The first legacy rule may load the module.
            self._inside.call(self._open_lists)
        lists = self._lists.values()
        for layout, fd, sock in zip(_LAYOUTS, lists, self._sockets, strict=True):
            for name in _names(fd):
                if name == "nat":
                    continue
                try:
                    info, blob = _ask(sock, layout, name)
                except OSError:
                    continue  # gone meanwhile, or this socket may not ask
                seen.append(_without_counters(layout, blob))
                tables.append(_table(layout, name, info, blob))
        changed = seen != self._last
        self._last = seen
        return tables, changed

    def _open_lists(self) -> None:
        for name, fd in self._lists.items():
            if fd == -1:
                with contextlib.suppress(OSError):  # not root, or no such module yet
                    path = f"/proc/thread-self/net/{name}"
                    self._lists[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _names(fd: int) -> list[str]:
    if fd < 0:
        return []
    try:
        return os.pread(fd, 4096, 0).decode().split()
    except OSError:
        return []


def _ask(sock: socket.socket, layout: _Layout, name: str) -> tuple[tuple[int, ...], bytes]:
    wanted = name.encode().ljust(32, b"\0")
    info = query_socket_option(
        sock.fileno(), layout.level, _GET_INFO, wanted.ljust(_INFO.size, b"\0")
    )
    fields: tuple[int, ...] = _INFO.unpack(info)[1:]
    size = fields[-1]
    request = wanted + struct.pack("=I", size)
    request = request.ljust(_ENTRIES_HEADER + size, b"\0")
    blob = query_socket_option(sock.fileno(), layout.level, _GET_ENTRIES, request)
    return fields, blob[_ENTRIES_HEADER:]


def _entries(layout: _Layout, blob: bytes) -> list[tuple[int, int, int]]:
    """Where each entry, its target, and the next entry begin."""
    found = []
    at = 0
    while at + layout.size <= len(blob):
        target, following = struct.unpack_from("=HH", blob, at + layout.offsets_at)
        if following < layout.size:
            break
        found.append((at, at + target, at + following))
        at += following
    return found


def _without_counters(layout: _Layout, blob: bytes) -> bytes:
    data = bytearray(blob)
    for at, _, _ in _entries(layout, blob):
        begin = at + layout.counters_at
        data[begin : begin + _COUNTERS] = bytes(_COUNTERS)
    return bytes(data)


def _table(layout: _Layout, name: str, info: tuple[int, ...], blob: bytes) -> Table:
    family = "ip" if layout.address == 4 else "ip6"
    table = Table(Place(layout.tool, family, name), implicit_counters=True)
    valid, starts = info[0], info[1:6]
    begins = {starts[i]: i for i in range(5) if valid & 1 << i}
    entries = _entries(layout, blob)
    names = {at: _CHAIN_NAMES[hook] for at, hook in begins.items()}
    for _, target, following in entries:
        if _target_name(blob, target) == "ERROR":
            error = blob[target + 32 : target + 62].split(b"\0")[0].decode(errors="replace")
            names[following] = error
    chain = Chain("")
    for at, target, following in entries:
        if at in names:
            hook = begins.get(at)
            chain = Chain(names[at], None if hook is None else _HOOKS[hook])
            table.chains[chain.name] = chain
        if _target_name(blob, target) != "ERROR":
            steps = _steps(layout, blob, (at, target, following), names)
            rule = Rule(len(chain.rules) + 1, steps)
            rule.counts_only = _falls_through(blob, target, following)
            chain.rules.append(rule)
    for made in table.chains.values():
        _take_policy(made)
    return table


def _take_policy(chain: Chain) -> None:
    """The last entry of a base chain is its policy."""
    if chain.rules and chain.hook is not None:
        machine = Machine(Packet(Flow(True), chain.hook, to_server=True))
        chain.rules.pop().steps[-1](machine)
        chain.drops = any(verdict.action == Action.DROP for verdict, _ in machine.verdicts)


def _target_name(blob: bytes, at: int) -> str:
    _, name, _ = _EXTENSION.unpack_from(blob, at)
    return str(name.split(b"\0")[0].decode(errors="replace"))


def _falls_through(blob: bytes, target: int, following: int) -> bool:
    """A jump to the next rule: no target was given."""
    if _target_name(blob, target):
        return False
    (verdict,) = _S32.unpack_from(blob, target + 32)
    return bool(verdict == following)


def _steps(
    layout: _Layout, blob: bytes, entry: tuple[int, int, int], names: dict[int, str]
) -> list[Step]:
    at, target, following = entry
    steps: list[Step] = [_header(layout, blob, at)]
    match = at + layout.size
    while match + 32 <= target:
        size, raw, revision = _EXTENSION.unpack_from(blob, match)
        name = raw.split(b"\0")[0].decode(errors="replace")
        steps.append(match_step(name, revision, blob[match + 32 : match + max(size, 32)]))
        match += max(size, 32)
    size, raw, revision = _EXTENSION.unpack_from(blob, target)
    name = raw.split(b"\0")[0].decode(errors="replace")
    if name:
        steps.append(target_step(name, revision, blob[target + 32 : target + size]))
        return steps
    (code,) = _S32.unpack_from(blob, target + 32)
    goto = blob[at + layout.flags_at] & layout.goto
    steps.append(_standard(code, following, bool(goto), names))
    return steps


def _standard(code: int, following: int, goto: bool, names: dict[int, str]) -> Step:
    if code >= 0:
        if code == following:
            return lambda machine: None
        jump = Verdict(Action.GOTO if goto else Action.JUMP, names.get(code, ""))
        return lambda machine: machine.end(jump)
    if code in (-4, -5):  # NF_QUEUE, XT_RETURN
        if code == -4:
            return lambda machine: machine.see(Kind.QUEUE)
        return lambda machine: machine.end(Verdict(Action.RETURN))
    action = Action.ACCEPT if -code - 1 == 1 else Action.DROP
    return lambda machine: machine.end(Verdict(action))


def _header(layout: _Layout, blob: bytes, at: int) -> Step:
    """The part that every entry has: addresses, devices, protocol."""
    size = layout.address
    source, target, source_mask, target_mask = (
        blob[at + i * size : at + (i + 1) * size] for i in range(4)
    )
    devices = at + 4 * size
    names = [blob[devices + i * 16 : devices + (i + 1) * 16] for i in range(4)]
    (proto,) = struct.unpack_from("=H", blob, at + layout.proto_at)
    flags, inverse = blob[at + layout.flags_at], blob[at + layout.flags_at + 1]
    family = "ip" if size == 4 else "ip6"

    def step(machine: Machine) -> None:
        packet = machine.packet
        for bits, value, mask, bit, word in (
            (packet.saddr, source, source_mask, _SRC, "saddr"),
            (packet.daddr, target, target_mask, _DST, "daddr"),
        ):
            match = equals(masked(bits, mask, bytes(size)), value)
            machine.need(match.negated if inverse & bit else match)
            if any(mask):
                prefix = sum(byte.bit_count() for byte in mask)
                text = socket.inet_ntop(layout.family, value)
                sign = "!= " if inverse & bit else ""
                machine.words.append(f"{family} {word} {sign}{text}/{prefix}")
        for have, value, mask, bit in (
            (packet.iifname, names[0], names[2], _VIA_IN),
            (packet.oifname, names[1], names[3], _VIA_OUT),
        ):
            same = all(not (h ^ v) & m for h, v, m in zip(have, value, mask, strict=True))
            machine.need(Match.YES if same != bool(inverse & bit) else Match.NO)
        if proto and (proto == _IPPROTO_TCP) == bool(inverse & _PROTO):
            machine.need(Match.NO)
        if size == 4 and flags & 1 and not inverse & _FRAG:
            machine.need(Match.NO)

    return step
