"""Policy rules: the first that matches decides."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopfuse._matching import Endpoint
from loopfuse._policy import Party, Policy, Rule, Ruling, Who

LOCAL = socket.inet_aton("127.0.0.1")
REDIS = Who(1000, "redis-server", "/usr/bin/redis-server")
HIDDEN = Who(1000, None, None)


def party(port: int, who: Who | None = None, address: bytes = LOCAL) -> Party:
    return Party(Endpoint(address, port), who)


def allows(rules: list[Rule], client: Party, server: Party, default: bool = True) -> bool | None:
    ruling = Policy("x", tuple(rules), default).ruling(client, server)
    return None if ruling is None else ruling.allow


def test_without_rules_the_default_decides() -> None:
    assert allows([], party(1), party(2)) is True
    assert allows([], party(1), party(2), default=False) is False


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(1, 9))), st.booleans())
def test_the_first_rule_that_matches_decides(
    spans: list[tuple[bool, int, int]], default: bool
) -> None:
    rules = [Rule(allow, ports=((low, high),)) for allow, low, high in spans]
    for port in range(1, 10):
        fitting = [allow for allow, low, high in spans if low <= port <= high]
        expected = fitting[0] if fitting else default
        assert allows(rules, party(40000), party(port), default) is expected


def test_a_ruling_names_its_rule() -> None:
    rules = (Rule(False, ports=((1, 1),)), Rule(True, ports=((2, 2),)))
    policy = Policy("x", rules)
    assert policy.ruling(party(9), party(2)) == Ruling(True, 2)
    assert policy.ruling(party(9), party(3)) == Ruling(True, None)


def test_a_port_is_the_servers() -> None:
    rules = [Rule(False, ports=((7000, 7000),))]
    assert allows(rules, party(7000), party(40000)) is True


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_an_address_is_in_a_network_as_the_standard_library_has_it(
    base: ipaddress.IPv4Address, bits: int, other: ipaddress.IPv4Address
) -> None:
    network = ipaddress.ip_network(f"{base}/{bits}", strict=False)
    rules = [Rule(False, addresses=(network,))]
    far = party(2, address=other.packed)
    assert allows(rules, party(1, address=other.packed), far) is (other not in network)


def test_an_address_of_another_family_is_not_in_a_network() -> None:
    rules = [Rule(False, addresses=(ipaddress.ip_network("::/0"),))]
    assert allows(rules, party(1), party(2)) is True


@pytest.mark.parametrize(
    ("pattern", "denied"),
    [
        ("redis-server", True),
        ("redis-*", True),
        ("redis", False),
        ("/usr/bin/*", True),
        ("/usr/sbin/*", False),
    ],
)
def test_a_program_is_known_by_name_or_path(pattern: str, denied: bool) -> None:
    rules = [Rule(False, programs=(pattern,))]
    other = Who(1000, "other", "/opt/other")
    assert allows(rules, party(1, REDIS), party(2, other)) is not denied
    assert allows(rules, party(1, other), party(2, REDIS)) is not denied


def test_what_an_unclaimed_end_will_say_is_waited_for() -> None:
    rules = [Rule(False, users=(5,))]
    assert allows(rules, party(1, REDIS), party(2)) is None
    assert allows(rules, party(1, REDIS), party(2, REDIS)) is True
    assert allows(rules, party(1, Who(5, "x", "/x")), party(2)) is False


def test_an_end_that_hides_is_denied_but_not_allowed() -> None:
    assert allows([Rule(False, programs=("/bad/*",))], party(1, HIDDEN), party(2, REDIS)) is False
    assert allows([Rule(True, programs=("/ok/*",))], party(1, HIDDEN), party(2, REDIS), False) is (
        False
    )


def test_all_that_a_rule_names_must_match() -> None:
    rules = [Rule(False, ports=((7000, 7000),), users=(1000,))]
    assert allows(rules, party(1, REDIS), party(7000, REDIS)) is False
    assert allows(rules, party(1, REDIS), party(7001, REDIS)) is True
    assert allows(rules, party(1), party(7001)) is True
