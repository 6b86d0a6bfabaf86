"""nftables' expressions as steps of the machine: comparisons, verdicts, statements.

An expression that is not known here has its result taken for unknown, and is taken for one
that does nothing to packets: new matches are more frequent than new statements.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from loopfuse._firewall import loads
from loopfuse._firewall.machine import Action, Kind, Machine, Step, Verdict
from loopfuse._firewall.netlink import Attributes, attribute_list, attributes, number, text
from loopfuse._firewall.rules import Element, Set
from loopfuse._firewall.values import Bits, Match, equals, known, masked, swapped, within, written
from loopfuse._firewall.xtables import match_step, target_step

_S32 = struct.Struct(">i")
_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_OPERATORS = {_EQ: "", _NEQ: "!= ", _LT: "< ", _LTE: "<= ", _GT: "> ", _GTE: ">= "}
_MOST_WORDS = 8
_OBJECT_KINDS = {1: Kind.COUNTER, 2: Kind.QUOTA, 4: Kind.LIMIT, 5: Kind.LIMIT}

Sets = dict[str, Set]


def steps_of(expressions: bytes, sets: Sets) -> list[Step]:
    """The steps of a rule, from its NFTA_RULE_EXPRESSIONS."""
    steps: list[Step] = []
    for _, element in attribute_list(expressions):
        one = attributes(element)
        step = _step(text(one.get(1, b"")), attributes(one.get(2, b"")), sets)
        if step is not None:
            steps.append(step)
    return steps


def _step(name: str, a: Attributes, sets: Sets) -> Step | None:
    if name == "lookup":
        return _lookup(a, sets)
    make = _MAKERS.get(name)
    if make is not None:
        return make(a)
    kind = _STATEMENTS.get(name)
    if kind is not None:
        return _seeing(kind)
    return None


def verdict_of(data: bytes) -> Verdict | None:
    """The verdict in an NFTA_DATA_VERDICT."""
    a = attributes(data)
    if 1 not in a:
        return None
    (code,) = _S32.unpack(a[1])
    if code in set(Action):
        return Verdict(Action(code), text(a.get(2, b"")))
    return None


def _data(raw: bytes) -> bytes:
    return attributes(raw).get(1, b"")


def _immediate(a: Attributes) -> Step:
    data = attributes(a.get(2, b""))
    if 2 in data:
        verdict = verdict_of(data[2])
        if verdict is None:
            return _seeing(Kind.QUEUE)
        sure = verdict
        return lambda machine: machine.end(sure)
    register, value = number(a.get(1)), data.get(1, b"")
    return lambda machine: machine.load(register, known(value))


def _compare(a: Attributes) -> Step:
    register, operator, value = number(a.get(1)), number(a.get(2)), _data(a.get(3, b""))
    size = len(value)

    def step(machine: Machine) -> None:
        bits = machine.read(register, size)
        match = _compared(bits, operator, value)
        machine.need(match)
        _tell(machine, bits, _OPERATORS.get(operator, ""), written(bits, value))

    return step


def _compared(bits: Bits, operator: int, value: bytes) -> Match:
    if operator in (_EQ, _NEQ):
        match = equals(bits, value)
        return match if operator == _EQ else match.negated
    lowest, highest = bytes(len(value)), b"\xff" * len(value)
    if operator in (_LTE, _GT):
        match = within(bits, lowest, value)
        return match if operator == _LTE else match.negated
    match = within(bits, value, highest)
    return match if operator == _GTE else match.negated


def _tell(machine: Machine, bits: Bits, operator: str, constant: str) -> None:
    if bits.label and constant and " . " not in bits.label:
        machine.words.append(f"{bits.label} {operator}{constant}")


def _range(a: Attributes) -> Step:
    register, negate = number(a.get(1)), number(a.get(2)) == 1
    low, high = _data(a.get(3, b"")), _data(a.get(4, b""))

    def step(machine: Machine) -> None:
        bits = machine.read(register, len(low))
        match = within(bits, low, high)
        machine.need(match.negated if negate else match)
        constant = f"{written(bits, low)}-{written(bits, high)}"
        _tell(machine, bits, "!= " if negate else "", constant.strip("-"))

    return step


def _bitwise(a: Attributes) -> Step:
    source, target, size = number(a.get(1)), number(a.get(2)), number(a.get(3))
    boolean = number(a.get(6)) == 0
    mask, flip = _data(a.get(4, b"")), _data(a.get(5, b""))

    def step(machine: Machine) -> None:
        bits = machine.read(source, size)
        if boolean:
            bits = masked(bits, mask.ljust(size, b"\0"), flip.ljust(size, b"\0"))
        else:
            bits = bits._replace(value=bytes(size), known=bytes(size), label="")
        machine.load(target, bits)

    return step


def _byteorder(a: Attributes) -> Step:
    source, target = number(a.get(1)), number(a.get(2))
    size, word = number(a.get(4)), number(a.get(5), 2)
    return lambda machine: machine.load(target, swapped(machine.read(source, size), word))


def _lookup(a: Attributes, sets: Sets) -> Step:
    register, negate = number(a.get(2)), number(a.get(5)) & 1
    found = sets.get(text(a.get(1, b"")))
    gives, verdicts = number(a.get(3)), 3 in a

    def step(machine: Machine) -> None:
        if found is None or found.elements is None:
            if verdicts:
                machine.need(Match.SETTLED)
            machine.need(Match.SETTLED)
            return
        elements = found.elements
        size = len(elements[0].low) if elements else 0
        bits = machine.read(register, size)
        hits = [(e, m) for e in elements if (m := in_element(bits, e, found.fields)) > Match.NO]
        best = max((m for _, m in hits), default=Match.NO)
        if found.catches_all:
            best = Match.YES
        if verdicts and gives == 0:
            for element, match in hits:
                if element.verdict is not None:
                    machine.end(element.verdict, match)
            _tell(machine, bits, "", _members(bits, [e for e, _ in hits]))
            if found.verdict_otherwise is not None and not any(m == Match.YES for _, m in hits):
                machine.end(found.verdict_otherwise, Match.MAYBE if hits else Match.YES)
            return
        machine.need(best.negated if negate else best)
        _tell(machine, bits, "!= " if negate else "", _members(bits, elements))

    return step


def in_element(bits: Bits, element: Element, fields: tuple[int, ...]) -> Match:
    """Is the value in this element of a set?"""
    if not fields:
        return within(bits, element.low, element.high)
    sure = Match.YES
    at = 0
    for size in fields:
        part = bits.slice(at, size)
        sure = min(sure, within(part, element.low[at : at + size], element.high[at : at + size]))
        at += size
    return sure


def _members(bits: Bits, elements: list[Element]) -> str:
    words = []
    for element in elements[:_MOST_WORDS]:
        low, high = written(bits, element.low), written(bits, element.high)
        if not low:
            return ""
        words.append(low if element.low == element.high else f"{low}-{high}")
    more = [f"and {len(elements) - _MOST_WORDS} more"] if len(elements) > _MOST_WORDS else []
    return "{ " + ", ".join(words + more) + " }"


def _counter(_: Attributes) -> Step:
    def step(machine: Machine) -> None:
        if not machine.implicit_counters:
            machine.see(Kind.COUNTER)

    return step


def _reject(_: Attributes) -> Step:
    return lambda machine: machine.end(Verdict(Action.DROP))


def _object(a: Attributes) -> Step | None:
    kind = _OBJECT_KINDS.get(number(a.get(1)), Kind.COUNTER if 5 in a or 3 in a else None)
    return _seeing(kind) if kind is not None else None


def _xt_match(a: Attributes) -> Step:
    return match_step(text(a.get(1, b"")), number(a.get(2)), a.get(3, b""))


def _xt_target(a: Attributes) -> Step:
    return target_step(text(a.get(1, b"")), number(a.get(2)), a.get(3, b""))


def _seeing(kind: Kind) -> Step:
    return lambda machine: machine.see(kind)


_STATEMENTS = {
    "quota": Kind.QUOTA,
    "limit": Kind.LIMIT,
    "connlimit": Kind.LIMIT,
    "last": Kind.COUNTER,
    "queue": Kind.QUEUE,
    "log": Kind.LOG,
    "dup": Kind.COPY,
    "fwd": Kind.COPY,
    "tproxy": Kind.COPY,
    "synproxy": Kind.COPY,
    "dynset": Kind.SET,
    "inner": Kind.CONTENT,
}
_MAKERS: dict[str, Callable[[Attributes], Step | None]] = {
    "meta": loads.meta,
    "ct": loads.conntrack,
    "payload": loads.payload,
    "fib": loads.fib,
    "exthdr": loads.option,
    "numgen": loads.sample,
    "rt": loads.settled(1),
    "hash": loads.settled(2),
    "socket": loads.settled(2),
    "osf": loads.settled(1),
    "xfrm": loads.settled(1),
    "tunnel": loads.settled(2),
    "immediate": _immediate,
    "cmp": _compare,
    "range": _range,
    "bitwise": _bitwise,
    "byteorder": _byteorder,
    "counter": _counter,
    "reject": _reject,
    "objref": _object,
    "match": _xt_match,
    "target": _xt_target,
}
