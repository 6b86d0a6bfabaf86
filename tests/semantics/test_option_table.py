"""Each option of the table, set at three moments: a program sees what it sees on plain TCP."""

from __future__ import annotations

import os
import re
import socket
import warnings
from pathlib import Path

import pytest

from semantics.option_page import PAGE, page
from semantics.option_table import OPTIONS, PLAIN, Option
from semantics.two_ends import Connection, Step, TwoEnds

HEADERS = Path("/usr/include")
DEFINED_IN = {
    "asm-generic/socket.h": r"SO_",
    "linux/in.h": r"(?:IP|MCAST)_",
    "linux/in6.h": r"IPV6_",
    "linux/tcp.h": r"TCP_",
}
VALUES_NOT_OPTIONS = re.compile(
    r"SO_(TIMESTAMP|TIMESTAMPNS|TIMESTAMPING|RCVTIMEO|SNDTIMEO)$|MCAST_(EX|IN)CLUDE|"
    r"IP_(PMTUDISC|DEFAULT)_|IP_MSFILTER_SIZE|"
    r"IPV6_(FL|TLV|PRIORITY|PMTUDISC|PREFER)_|IPV6_FLOWINFO_(FLOWLABEL|PRIORITY)|"
    r"TCP_(MSS|MD5SIG_FLAG|RECEIVE_ZEROCOPY|REPAIR_O|NLA|AO_KEYF)|TCP_(MD5SIG|AO)_MAXKEYLEN"
)

Said = tuple[list[object], list[object]]
"""What setting it came to, and what was said and got afterwards."""


def setting(option: Option, name: str) -> tuple[Step, ...]:
    if not option.values:
        return (["get", name, option.level, option.number, option.size],)
    return tuple(["put", name, option.level, option.number, value] for value in option.encoded())


def asking(option: Option, name: str) -> Step:
    return ["get", name, option.level, option.number, option.size]


def comparable(option: Option, results: list[object]) -> list[object]:
    """Answers that differ from run to run by nature count by their kind."""
    errors = re.compile("E[A-Z0-9]+$")
    if not option.varies:
        return results
    return [
        result if not isinstance(result, str) or errors.match(result) else "an answer"
        for result in results
    ]


def accepted(option: Option, results: list[object]) -> bool:
    """Has the kernel taken the option, at either end?"""
    if option.values:
        return 0 in results
    return any(isinstance(result, str) and not result.startswith("E") for result in results)


def talk(connection: Connection, option: Option) -> list[object]:
    there, back = connection.both(
        [["send", "c", 3000], ["receive", "c", 5000], asking(option, "c")],
        [["receive", "s", 3000], ["send", "s", 5000], asking(option, "s")],
    )
    return comparable(option, [*there, *back])


def check_carrier(connection: Connection, before: int, plain_from_now: bool) -> None:
    carried = connection.in_rings - before
    if plain_from_now:
        assert carried == 0, "bytes still went by ring"
        assert connection.row and connection.row.reason == "socket-option"
    else:
        assert carried == 8000, f"{carried} of 8000 bytes went by ring"


def set_before(ends: TwoEnds, option: Option) -> Said:
    """On the listener, and before connect()."""
    host, to = option.hosts
    with ends.connection(host, to, setting(option, "l"), setting(option, "c")) as connection:
        done = connection.prepared
        plain = option.treatment is PLAIN and accepted(option, done)
        connection.warm("socket-option" if plain else None)
        before = connection.in_rings
        said = talk(connection, option)
        if ends.fuses:
            check_carrier(connection, before, plain)
        return comparable(option, done), said


def set_once_connected(ends: TwoEnds, option: Option) -> Said:
    """At the accepted end, before anything is paired."""
    with ends.connection(*option.hosts) as connection:
        done = connection.server.ask(*setting(option, "s"))
        plain = option.treatment is PLAIN and accepted(option, done)
        connection.warm("socket-option" if plain else None)
        before = connection.in_rings
        said = talk(connection, option)
        if ends.fuses:
            check_carrier(connection, before, plain)
        return comparable(option, done), said


def set_when_fused(ends: TwoEnds, option: Option) -> Said:
    """At the connecting end."""
    with ends.connection(*option.hosts) as connection:
        connection.warm()
        done = connection.client.ask(*setting(option, "c"))
        plain = option.treatment is PLAIN and accepted(option, done)
        before = connection.in_rings
        said = talk(connection, option)
        if ends.fuses:
            check_carrier(connection, before, plain)
        return comparable(option, done), said


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("option", OPTIONS, ids=[option.name for option in OPTIONS])
def test_a_program_that_sets_it_sees_no_difference(
    option: Option, ends: tuple[TwoEnds, TwoEnds]
) -> None:
    if ":" in option.hosts[0] and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    plain, fused = ends
    taken = False
    for moment in (set_before, set_once_connected, set_when_fused):
        done, said = moment(fused, option)
        assert (done, said) == moment(plain, option), moment.__doc__
        taken |= accepted(option, done)
    if option.treatment is PLAIN and not taken:
        pytest.skip(f"this kernel refuses {option.name}, and the connection stays fused")


@pytest.mark.parametrize("header", DEFINED_IN)
def test_every_option_of_the_kernel_headers_is_in_the_table(header: str) -> None:
    file = HEADERS / header
    if not file.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"{file} is missing: scripts/debian build")
        pytest.skip(f"{file} is not installed: scripts/debian build")
    known = {option.name: option.number for option in OPTIONS}
    pattern = re.compile(rf"^#\s*define\s+({DEFINED_IN[header]}\w+)\s+(\w+)", re.MULTILINE)
    missing = []
    for name, value in pattern.findall(file.read_text()):
        if VALUES_NOT_OPTIONS.match(name):
            continue
        if value.isdigit() and name in known:
            assert known[name] == int(value), name
        elif name not in known and value not in known:
            missing.append(name)
    if missing and not os.environ.get("CI"):
        warnings.warn(
            f"{header} has options that tests/semantics/option_table.py lacks: {missing}",
            stacklevel=1,
        )
    else:
        assert not missing, f"add to tests/semantics/option_table.py what they mean: {missing}"


def test_no_option_is_listed_twice() -> None:
    assert len({(option.level, option.number) for option in OPTIONS}) == len(OPTIONS)
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == page(), "cd tests && python -m semantics.option_page"


def test_every_test_that_the_page_names_is_there() -> None:
    files = "".join(file.read_text() for file in Path(__file__).parent.rglob("*.py"))
    scenarios = (Path(__file__).parent.parent / "programs" / "parties.py").read_text()
    named = {name for option in OPTIONS for name in option.tests}
    for name in named | set(re.findall(r"\btest_\w+(?= \|)", page())):
        assert f"def {name}(" in files + scenarios, name
