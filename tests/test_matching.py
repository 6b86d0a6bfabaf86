"""Which claims belong together."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from loopfuse._matching import Endpoint, client_end, endpoint, name_of
from loopfuse._wire import Side

CLIENT, SERVER = Side.CLIENT, Side.SERVER
ports = st.integers(0, 65535)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
endpoints = st.builds(Endpoint, addresses, ports)


def _pack(family: int, addr: str) -> bytes:
    return socket.inet_pton(family, addr).ljust(16, b"\0")


def test_a_mapped_address_is_the_ipv4_address() -> None:
    plain = endpoint(socket.AF_INET, _pack(socket.AF_INET, "192.0.2.1"), 80)
    mapped = endpoint(socket.AF_INET6, _pack(socket.AF_INET6, "::ffff:192.0.2.1"), 80)
    assert plain == mapped
    assert mapped.is_ipv4 and mapped.text() == "192.0.2.1"


def test_other_ipv6_addresses_stay_what_they_are() -> None:
    for text in ("::1", "::192.0.2.1", "::fffe:c000:201", "2001:db8::ffff:0:1"):
        end = endpoint(socket.AF_INET6, _pack(socket.AF_INET6, text), 80)
        assert not end.is_ipv4
        assert end.text() == text


def test_bytes_behind_an_ipv4_address_do_not_matter() -> None:
    assert endpoint(socket.AF_INET, b"\x7f\0\0\x01" + b"x" * 12, 1) == Endpoint(b"\x7f\0\0\x01", 1)


@given(endpoints, endpoints, st.integers(0, 2**64 - 1))
def test_both_ends_give_a_connection_the_same_name(a: Endpoint, b: Endpoint, netns: int) -> None:
    name = name_of(netns, a, b)
    assert name == name_of(netns, b, a)
    assert {name.low, name.high} == {a, b}
    assert name != name_of(netns ^ 1, a, b)


@given(endpoints, endpoints)
def test_the_other_end_is_who_an_end_is_connected_to(a: Endpoint, b: Endpoint) -> None:
    name = name_of(1, a, b)
    assert (name.other(a), name.other(b)) == (b, a)


@given(endpoints, endpoints)
def test_both_ends_agree_on_who_is_the_client(a: Endpoint, b: Endpoint) -> None:
    for sides in ((CLIENT, CLIENT), (SERVER, SERVER), (CLIENT, SERVER), (SERVER, CLIENT)):
        found = client_end((a, sides[0]), (b, sides[1]))
        assert found == client_end((b, sides[1]), (a, sides[0]))
        if sides[0] != sides[1]:
            assert found == (a if sides[0] == CLIENT else b)
        else:
            assert found == min(a, b)
