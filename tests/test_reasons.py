"""The reasons are the same in C and in Python, and each has words."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from c_layout import CSRC
from loopfuse._reasons import EXPLANATIONS, Reason, code_of
from loopfuse._why.causes import WORDS, Circumstance, explain

DOCS = Path(__file__).parent.parent / "docs"
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
        assert not explanation.what_to_do.startswith("Nothing")


def test_what_only_why_can_see_is_explained_too() -> None:
    assert set(WORDS) == set(Circumstance)
    for code in Circumstance:
        words, what_to_do = explain(code, "the client")
        assert words[0].isupper() and words.endswith(".")
        assert what_to_do[0].isupper() and what_to_do.endswith(".")
        assert "{" not in words + what_to_do


def test_every_code_is_documented() -> None:
    page = (DOCS / "not-fused.md").read_text()
    for code in [reason.code for reason in Reason][1:] + [one.value for one in Circumstance]:
        assert f"`{code}`" in page, code
    assert not {reason.code for reason in Reason} & {one.value for one in Circumstance}


def test_a_code_is_the_name_in_kebab_case() -> None:
    assert Reason.IO_OUTSIDE_LIBC.code == "io-outside-libc"


@given(st.integers(0, 2**32 - 1))
def test_any_number_out_of_a_segment_has_a_code(number: int) -> None:
    code = code_of(number)
    assert code == (Reason(number).code if number in set(Reason) else f"unknown-{number}")
