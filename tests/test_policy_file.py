"""Reading policy files: what they can say, and what is said of bad ones."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopfuse import _policy_file
from loopfuse._errors import PolicyError
from loopfuse._policy import Rule
from loopfuse._policy_file import choose_policy, default_path, read_policy

GOOD = """
default = "deny"

[[rule]]
action = "deny"
port = [5432, "7000-7010"]

[[rule]]
action = "allow"
address = ["127.0.0.0/8", "::1"]
user = ["root", 1000]
program = "redis-*"

[firewall]
ignore = ["counter"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, GOOD))
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
    assert policy.rules == (
        Rule(False, ports=((5432, 5432), (7000, 7010))),
        Rule(True, addresses=networks, users=(0, 1000), programs=("redis-*",)),
    )
    assert not policy.default_allow
    assert policy.ignored == ("counter",)
    assert "2 rules, the rest is denied" in policy.describe()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default = 'maybe'", ["line 1", "default", '"allow" or "deny"']),
        ("[[rule]]\nport = 1", ["line 1", "rule 1", "action is missing"]),
        ("[[rule]]\naction='deny'\nport = 0", ["line 3", "rule 1", "port has 0"]),
        ("[[rule]]\naction='deny'\n[[rule]]\naction='deny'\nport='9-1'", ["line 5", "rule 2"]),
        ("[[rule]]\naction='deny'\nprot = 1", ["line 3", "prot is no key"]),
        ("[[rule]]\naction='deny'\nport = []", ["empty list"]),
        ("[[rule]]\naction='deny'\nport = true", ["no port"]),
        ("[[rule]]\naction='deny'\naddress = '1.2.3'", ["no address"]),
        ("[[rule]]\naction='deny'\nuser = 'no-such-user-here'", ["no user"]),
        ("[[rule]]\naction='deny'\nprogram = 5", ["no program"]),
        ("[rule]\naction='deny'", ["[[rule]]"]),
        ("[firewall]\nignore = ['counters']", ["line 2", "no kind of rule"]),
        ("firewall = 5", ["not a table"]),
        ('x = "a\n"', ["not TOML", "line 1"]),
    ],
)
def test_a_bad_file_is_told_by_line_and_key(tmp_path: Path, text: str, said: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    for words in (str(path), *said):
        assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="can't be read: No such file"):
        read_policy(tmp_path / "none.toml")


@pytest.mark.parametrize("home", [None, "/tmp/" + 300 * "x"])
def test_a_user_may_have_no_home_or_one_that_he_can_not_enter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 54321)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(_policy_file, "SYSTEM_FILE", tmp_path / "none.toml")
    assert default_path() is None


def test_the_systems_file_counts_also_where_it_can_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_policy_file, "SYSTEM_FILE", Path("/tmp/" + 300 * "x"))
    with pytest.raises(PolicyError, match="can't be read"):
        choose_policy(None)


def test_a_path_that_can_not_be_told_in_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"p\xff.toml")
    path.write_text(GOOD)
    with pytest.raises(PolicyError, match="is not UTF-8"):
        read_policy(path)


@pytest.mark.parametrize("number", [5000 * "1", "0x" + 5000 * "f"])
@pytest.mark.parametrize("key", ["port", "user", "address", "program", "action"])
def test_an_endless_number_is_explained(tmp_path: Path, key: str, number: str) -> None:
    with pytest.raises(PolicyError, match=r"policy\.toml"):
        read_policy(write(tmp_path, f"[[rule]]\n{key} = {number}\n"))


@given(st.binary(max_size=200))
def test_no_garbage_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.toml"
    path.write_bytes(raw)
    try:
        read_policy(path)
    except PolicyError as error:
        assert str(path) in str(error)
