"""The wire protocol's Python twin against wire.h, and against garbage."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c_layout import values_of
from loopfuse import _wire as wire
from loopfuse._errors import WireError

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
u16 = st.integers(0, 2**16 - 1)
addresses = st.binary(min_size=16, max_size=16)
claims = st.builds(
    wire.Claim,
    declined=st.booleans(),
    claim_id=u64,
    cookie=u64,
    netns_cookie=u64,
    family=st.sampled_from([int(socket.AF_INET), int(socket.AF_INET6)]),
    side=st.integers(0, 1),
    local_port=u16,
    remote_port=u16,
    local_addr=addresses,
    remote_addr=addresses,
    reason=u32,
    limit=u32,
)

_CLAIM = wire.Claim(True, 11, 12, 13, socket.AF_INET6, 1, 16, 17, b"l" * 16, b"r" * 16, 20, 21)
_MESSAGES = {
    "hello": wire.pack_hello(wire.Hello(1, 2)),
    "welcome": wire.pack_welcome(wire.Welcome(4096)),
    "claim": wire.pack_claim(_CLAIM),
    "fuse": wire.pack_fuse(wire.Fuse(1, 2, 1, 4096, 5)),
    "refuse": wire.pack_refuse(wire.Refuse(1, 2)),
    "closed": wire.pack_closed(wire.Closed(1, 2)),
    "tap": wire.pack_tap(wire.TapRing(1, 2)),
    "tap_ask": wire.pack_tap_ask(wire.TapAsk(1)),
}
# Every field at its place: value of the field in the packets above.
_FIELDS = {
    "hello": {"flags": 1, "pid": 2},
    "welcome": {"mailbox_size": 4096},
    "claim": {
        "claim_id": 11,
        "cookie": 12,
        "netns_cookie": 13,
        "family": 10,
        "side": 1,
        "local_port": 16,
        "remote_port": 17,
        "local_addr": int.from_bytes(b"l" * 16, "little"),
        "remote_addr": int.from_bytes(b"r" * 16, "little"),
        "reason": 20,
        "limit": 21,
    },
    "fuse": {"claim_id": 1, "pair_id": 2, "side": 1, "ring_size": 4096, "limit_out": 5},
    "refuse": {"claim_id": 1, "reason": 2},
    "closed": {"pair_id": 1, "cookie": 2},
    "tap": {"slot": 1, "cells": 2},
    "tap_ask": {"pair_id": 1},
}


def test_every_field_lies_where_c_has_it(tmp_path: Path) -> None:
    questions = [f"sizeof(struct lf_wire_{name})" for name in _MESSAGES]
    for name, fields in _FIELDS.items():
        for field in fields:
            questions.append(f"offsetof(struct lf_wire_{name}, {field})")
            questions.append(f"sizeof(((struct lf_wire_{name} *)0)->{field})")
    c = values_of(["wire.h", "stddef.h"], questions, tmp_path)
    for name, packet in _MESSAGES.items():
        assert len(packet) == c[f"sizeof(struct lf_wire_{name})"]
        for field, value in _FIELDS[name].items():
            at = c[f"offsetof(struct lf_wire_{name}, {field})"]
            size = c[f"sizeof(((struct lf_wire_{name} *)0)->{field})"]
            assert int.from_bytes(packet[at : at + size], "little") == value, (name, field)


def test_the_numbers_are_those_of_c(tmp_path: Path) -> None:
    twins = {
        "LF_WIRE_MAGIC": wire.MAGIC,
        "LF_WIRE_VERSION": wire.VERSION,
        "LF_WIRE_MAX": wire.MAX_PACKET,
        "LF_SIDE_CLIENT": wire.Side.CLIENT,
        "LF_SIDE_SERVER": wire.Side.SERVER,
    }
    twins |= {f"LF_WIRE_{kind.name}": kind for kind in wire.Type}
    assert values_of(["wire.h"], list(twins), tmp_path) == twins


@given(claims)
def test_a_claim_comes_out_as_it_went_in(claim: wire.Claim) -> None:
    assert wire.parse_from_library(wire.pack_claim(claim)) == claim


@given(st.binary(max_size=wire.MAX_PACKET))
def test_garbage_is_a_wire_error_or_a_message(packet: bytes) -> None:
    for parse in (wire.parse_from_library, wire.parse_from_broker):
        with pytest.raises(WireError):
            parse(packet)


@given(claims, st.integers(0, 79), st.integers(0, 255))
def test_a_damaged_claim_never_raises_anything_else(claim: wire.Claim, at: int, value: int) -> None:
    packet = bytearray(wire.pack_claim(claim))
    packet[at] = value
    try:
        wire.parse_from_library(bytes(packet))
    except WireError as error:
        assert error.message


@pytest.mark.parametrize("name", ["hello", "claim", "closed", "tap_ask"])
def test_what_libraries_say_is_not_taken_for_the_brokers(name: str) -> None:
    wire.parse_from_library(_MESSAGES[name])
    with pytest.raises(WireError, match="only libraries send"):
        wire.parse_from_broker(_MESSAGES[name])


@pytest.mark.parametrize("name", ["welcome", "fuse", "refuse", "tap"])
def test_what_brokers_say_is_not_taken_for_a_librarys(name: str) -> None:
    wire.parse_from_broker(_MESSAGES[name])
    with pytest.raises(WireError, match="only brokers send"):
        wire.parse_from_library(_MESSAGES[name])
