"""SO_RCVTIMEO and SO_SNDTIMEO on a fused connection, in both layouts and at the extremes."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from semantics.option_table import SOL_SOCKET, encode
from semantics.two_ends import PATIENCE, Step, TwoEnds

Ends = tuple[TwoEnds, TwoEnds]

RECEIVE, SEND = {"old": 20, "new": 66}, {"old": 21, "new": 67}
AGES = 1 << 62


def timeout(name: str, number: int, seconds: int, microseconds: int = 0) -> Step:
    return ["put", name, SOL_SOCKET, number, struct.pack("qq", seconds, microseconds).hex()]


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("moment", ["before", "fused"])
def test_a_timeout_is_kept(ends: Ends, layout: str, moment: str) -> None:
    for pair in ends:
        asked = (
            timeout("c", RECEIVE[layout], 0, 100_000),
            timeout("c", SEND[layout], 0, 100_000),
        )
        small: Step = ["put", "c", SOL_SOCKET, socket.SO_SNDBUF, encode(20_000)]
        with pair.connection(client=(small, *asked) if moment == "before" else (small,)) as c:
            c.warm()
            if moment == "fused":
                c.client.ask(*asked)
            start = time.monotonic()
            assert c.client.do("receive_now", "c", 1, 0) == "EAGAIN"
            assert c.client.do("send", "c", 8 << 20) == "EAGAIN"
            assert 0.19 < time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("layout", ["old", "new"])
def test_a_timeout_of_ages_does_not_end_at_once(ends: Ends, layout: str) -> None:
    for pair in ends:
        with pair.connection() as c:
            c.warm()
            assert c.server.ask(timeout("s", RECEIVE[layout], AGES)) == [0]
            c.server.tell(["receive_now", "s", 1, 0])
            time.sleep(0.05)
            c.client.do("send", "c", 1)
            assert c.server.hear() == ["00"]


def test_a_negative_timeout_never_waits(ends: Ends) -> None:
    for pair in ends:
        with pair.connection() as c:
            c.warm()
            assert c.server.ask(timeout("s", RECEIVE["old"], -1)) == [0]
            assert c.server.do("receive_now", "s", 1, 0) == "EAGAIN"
            c.client.do("send", "c", 1)
            assert c.server.ask(["poll", "s", 1, 10_000], ["receive_now", "s", 1, 0]) == [1, "00"]
