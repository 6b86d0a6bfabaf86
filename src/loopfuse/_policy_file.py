"""Reads a policy file: TOML, as docs/policy.md describes it.

Whatever is wrong with one is told with the file's name, the line as far as it is known, the
key, and what would be right there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from loopfuse._errors import PolicyError
from loopfuse._firewall.machine import Kind
from loopfuse._paths import is_there, may_be_there, whole
from loopfuse._policy import EVERYTHING, Network, Policy, Rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SYSTEM_FILE = Path("/etc/loopfuse/policy.toml")
_LARGEST = 1 << 20
_ACTIONS = {"allow": True, "deny": False}
_KEYS = ("action", "port", "address", "user", "program")
_TOP = ("default", "rule", "firewall")
KINDS = tuple(kind.value for kind in Kind)
_T = TypeVar("_T")


def default_path() -> Path | None:
    """The policy file that holds where none is named: a user's own, else the system's."""
    if os.geteuid() != 0:
        home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        # A user may have no home, or HOME may still be another's, from before `su`.
        with contextlib.suppress(RuntimeError):
            own = Path(home).expanduser() / "loopfuse" / "policy.toml"
            if own.is_absolute() and is_there(own):
                return own
    return SYSTEM_FILE if may_be_there(SYSTEM_FILE) else None


def choose_policy(named: Path | None) -> Policy:
    """The policy of the file that was named, else of the default one. Raises PolicyError."""
    path = whole(named) if named is not None else default_path()
    return EVERYTHING if path is None else read_policy(path)


def read_policy(path: Path) -> Policy:
    """What the file says. Raises PolicyError."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # the broker tells of it in JSON
        raise PolicyError(
            f"the path of the policy file {str(path)!a} is not UTF-8",
            hint="Give the file another name.",
        ) from error
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise PolicyError(
            f"the policy file {path} can't be read: {error.strerror}",
            hint="Name one that this user may read, or leave --policy out.",
        ) from error
    if len(raw) > _LARGEST:
        raise PolicyError(f"the policy file {path} is larger than a mebibyte")
    try:
        text = raw.decode()
        return _Reader(path, text).policy(tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, numbers without an end
        raise PolicyError(
            f"the policy file {path} is not TOML: {error}",
            hint="docs/policy.md has an example.",
        ) from error


class _Reader:
    """Turns what was parsed into a policy; knows the text, to tell lines."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._rule: int | None = None

    def policy(self, data: dict[str, Any]) -> Policy:
        self._check_keys(data, _TOP, "")
        default = self._action(data.get("default", "allow"), "default")
        rules = data.get("rule", [])
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise self._wrong("rule", "is not a list of tables", "Write [[rule]] above each rule.")
        made = []
        for index, rule in enumerate(rules):
            self._rule = index
            made.append(self._one(rule))
        self._rule = None
        ignored = self._ignored(data.get("firewall", {}))
        return Policy(str(self._path), tuple(made), default, ignored)

    def _one(self, rule: dict[str, Any]) -> Rule:
        self._check_keys(rule, _KEYS, "")
        if "action" not in rule:
            raise self._wrong("action", "is missing", 'Write action = "allow" or "deny".')
        return Rule(
            self._action(rule["action"], "action"),
            tuple(self._list(rule, "port", self._port)),
            tuple(self._list(rule, "address", self._address)),
            tuple(self._list(rule, "user", self._user)),
            tuple(self._list(rule, "program", self._program)),
        )

    def _ignored(self, table: object) -> tuple[str, ...]:
        if not isinstance(table, dict):
            raise self._wrong("firewall", "is not a table", "Write [firewall] on a line.")
        self._check_keys(table, ("ignore",), "firewall.")
        return tuple(self._list(table, "ignore", self._kind))

    def _list(
        self, table: dict[str, Any], key: str, convert: Callable[[object, str], _T]
    ) -> list[_T]:
        if key not in table:
            return []
        value = table[key]
        values = value if isinstance(value, list) else [value]
        if not values:
            raise self._wrong(key, "is an empty list", "Leave the key out to match everything.")
        return [convert(one, key) for one in values]

    def _check_keys(self, table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in known:
                right = ", ".join(where + name for name in known)
                raise self._wrong(key, "is no key of a policy", f"There are: {right}.")

    def _action(self, value: object, key: str) -> bool:
        if not isinstance(value, str) or value not in _ACTIONS:
            raise self._wrong(key, f"is {value!r}", 'Write "allow" or "deny".')
        return _ACTIONS[value]

    def _port(self, value: object, key: str) -> tuple[int, int]:
        text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
        match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", text, re.ASCII)
        if match:
            low, high = int(match[1]), int(match[2] or match[1])
            if 1 <= low <= high <= 65535:
                return low, high
        raise self._wrong(
            key,
            f"has {value!r}, which is no port",
            'Write a number from 1 to 65535, a range such as "7000-7010", or a list of those.',
        )

    def _address(self, value: object, key: str) -> Network:
        try:
            if not isinstance(value, str):
                raise ValueError("not text")
            return ipaddress.ip_network(value, strict=False)
        except ValueError as error:
            raise self._wrong(
                key,
                f"has {value!r}, which is no address",
                'Write one such as "127.0.0.1", "10.0.0.0/8" or "::1", or a list of those.',
            ) from error

    def _user(self, value: object, key: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
            return value
        if isinstance(value, str):
            try:
                return pwd.getpwnam(value).pw_uid
            except (KeyError, ValueError):
                pass
        raise self._wrong(
            key, f"has {value!r}, which is no user here", "Write a user's name or numeric id."
        )

    def _program(self, value: object, key: str) -> str:
        if isinstance(value, str) and value:
            return value
        raise self._wrong(
            key,
            f"has {value!r}, which names no program",
            'Write a name such as "redis-*", or a path such as "/usr/bin/redis-*".',
        )

    def _kind(self, value: object, key: str) -> str:
        if isinstance(value, str) and value in KINDS:
            return value
        raise self._wrong(
            key, f"has {value!r}, which is no kind of rule", f"There are: {', '.join(KINDS)}."
        )

    def _wrong(self, key: str, what: str, hint: str) -> PolicyError:
        line = self._line_of(key)
        where = f"the policy file {self._path}" + (f", line {line}" if line else "")
        rule = "" if self._rule is None else f"rule {self._rule + 1}: "
        return PolicyError(f"{where}: {rule}{key} {what}", hint=hint)

    def _line_of(self, key: str) -> int | None:
        """Where the key stands in its rule, or else where the rule begins."""
        begin, count = 0, -1
        if self._rule is not None:
            for number, line in enumerate(self._lines):
                if re.match(r"\s*\[\[\s*rule\s*\]\]", line):
                    count += 1
                    if count == self._rule:
                        begin = number
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*(=|$)|\s*\[+\s*{re.escape(key)}")
        for number in range(begin, len(self._lines)):
            if self._rule is not None and number > begin and self._lines[number].startswith("["):
                break
            if pattern.match(self._lines[number]):
                return number + 1
        return begin + 1 if count >= 0 else None
