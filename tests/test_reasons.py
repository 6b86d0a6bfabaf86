"""The reasons are the same in C and in Python, and each has words."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from c_layout import CSRC
from loopfuse._reasons import EXPLANATIONS, Reason, code_of

_ENTRY = re.compile(r"^\s*LF_REASON_(\w+) = (\d+),", re.MULTILINE)


def test_python_and_c_know_the_same_reasons() -> None:
    in_c = {name: int(number) for name, number in _ENTRY.findall((CSRC / "reasons.h").read_text())}
    assert len(in_c) > 15
    assert in_c == {reason.name: int(reason) for reason in Reason}


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    for explanation in EXPLANATIONS.values():
        assert explanation.words.endswith(".")
        assert explanation.what_to_do.endswith(".")


def test_a_code_is_the_name_in_kebab_case() -> None:
    assert Reason.IO_OUTSIDE_LIBC.code == "io-outside-libc"


@given(st.integers(0, 2**32 - 1))
def test_any_number_out_of_a_segment_has_a_code(number: int) -> None:
    code = code_of(number)
    assert code == (Reason(number).code if number in set(Reason) else f"unknown-{number}")
