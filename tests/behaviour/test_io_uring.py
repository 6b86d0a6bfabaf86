"""What goes past the C library's names, or on in the kernel, no library sees: that stays plain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from behaviour.two_ends import same
from conftest import PROGRAMS
from sessions import Session, free_port


def with_a_ring(session: Session, how: str, port: int) -> str:
    program = str(PROGRAMS / "with_a_ring.py")
    said = session.run([*session.prefix, sys.executable, program, how, str(port)]).stdout
    if said.startswith("no "):
        pytest.skip(said.strip())
    return said


@pytest.mark.parametrize("how", ["file", "file-by-number", "epoll", "polled", "none"])
def test_a_ring_keeps_nobody_from_being_fused_but_one_that_no_call_tells_of(
    plain: Session, lazily_fused: Session, how: str
) -> None:
    port = free_port()
    assert with_a_ring(lazily_fused, how, port) == with_a_ring(plain, how, free_port())
    rows = lazily_fused.fused_rows(port)
    assert [row.reason for row in rows] == ([] if how == "polled" else [None]), rows


@pytest.mark.parametrize("how", ["receive", "registered", "receive-by-number"])
def test_a_fused_socket_that_a_ring_is_given_goes_back_to_tcp(
    plain: Session, lazily_fused: Session, how: str
) -> None:
    port = free_port()
    assert with_a_ring(lazily_fused, how, port) == with_a_ring(plain, how, free_port())
    (row,) = lazily_fused.fused_rows(port)
    assert row.reason == "io-outside-libc"


REQUESTS = [
    *(["controls", order] for order in ("ad", "aam", "adda", "adm", "adma", "admd")),
    *([name] for name in ("nested", "chained", "passed", "closed", "forked", "by_its_parts")),
    *(["gone", how] for how in ("close", "close_range", "dup3")),
]


@pytest.mark.parametrize("words", REQUESTS, ids="-".join)
def test_what_a_ring_is_asked_for_comes_to_the_same(
    plain: Session, lazily_fused: Session, words: list[str]
) -> None:
    program = str(PROGRAMS / "ring_requests.py")
    said = [
        session.run([*session.prefix, sys.executable, program, *words]).stdout
        for session in (plain, lazily_fused)
    ]
    if said[0].startswith("no "):
        pytest.skip(said[0].strip())
    assert said[1] == said[0]


IN_THE_BACKGROUND = {
    "poll": "poll: 1, 1, 1\n4 one\n",
    "read": "read: 1, 1, 4\none\n",
    "write": "write: 1, 1, 4\n8 one\nback\n",
    "ring": "4 one\n",
    "number": "4 one\n2 4 back\n",
}


@pytest.mark.parametrize("how", IN_THE_BACKGROUND)
def test_a_fused_socket_that_the_kernel_is_asked_to_use_goes_back_to_tcp(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, fused, programs / "kernel_aio", how)
    if said.startswith("no "):
        pytest.skip(said.strip())
    assert said == IN_THE_BACKGROUND[how]
