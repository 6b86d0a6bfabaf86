"""What the listings of the command line hold under ``--json``: the schema, in one place.

Names are stable: fields may be added, but none is renamed, dropped or given another meaning
without a new major version. Numbers have their unit in their name (`uptime_seconds`) or are
counts. docs/json.md says what each listing prints, docs/schema.json is made from these types.
"""

from __future__ import annotations

import enum
import inspect
from typing import Literal

import msgspec

from loopfuse._messages import BrokerStatus, DefuseAnswer, EndRow, Row


class Verdict(str, enum.Enum):
    """How a check of `loopfuse doctor` came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One check of `loopfuse doctor`: what was looked at, how it came out, what was seen."""

    check: str
    verdict: Verdict
    seen: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""


class Cause(msgspec.Struct, frozen=True):
    """One thing that keeps a connection from being fused."""

    code: str
    """As in docs/not-fused.md."""
    end: Literal["client", "server"] | None
    """Whose matter it is; None: of the connection as a whole."""
    words: str
    what_to_change: str
    detail: str | None = None
    """The very rule, where the code is `firewall` or `policy`; with `no-broker` what happened."""


class WhyRow(msgspec.Struct):
    """One connection, as `loopfuse why --json` prints it. An end whose process is not here, or
    is hidden from the asker, is known by address only."""

    state: Literal["fused", "plain", "defused"]
    id: int | None
    """For `loopfuse defuse`; None: the broker has not heard of it."""
    broker: str | None
    """Path of the socket of the broker that knows it."""
    client: EndRow
    server: EndRow
    causes: list[Cause]
    """Empty if it is fused."""


LISTINGS: dict[str, object] = {
    "ps": list[Row],
    "why": list[WhyRow],
    "doctor": list[Finding],
    "defuse": list[DefuseAnswer],
    "broker status": BrokerStatus,
}
"""What each command prints under --json."""


def json_schema() -> dict[str, object]:
    """All of them as JSON Schema (2020-12): what docs/schema.json holds."""
    shapes, components = msgspec.json.schema_components(
        LISTINGS.values(), ref_template="#/$defs/{name}"
    )
    for shape in components.values():  # msgspec before 0.23 leaves their indentation
        if "description" in shape:
            shape["description"] = inspect.cleandoc(shape["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What loopfuse prints under --json, by command",
        "type": "object",
        "properties": dict(zip(LISTINGS, shapes, strict=True)),
        "$defs": components,
    }
