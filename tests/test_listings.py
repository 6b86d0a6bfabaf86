"""`--json`: every listing is what its type says, and the types are what is documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker_fixtures import BrokerProcess, libraries, tcp_pair
from commands import loopfuse
from loopfuse import _wire as wire
from loopfuse._listings import LISTINGS, json_schema

pytest_plugins = ["broker_fixtures"]
DOCS = Path(__file__).parent.parent / "docs"


COMMANDS = {
    "ps": ["ps", "--json"],
    "why": ["why", "--json"],
    "doctor": ["doctor", "--json", "sh"],
    "defuse": ["defuse", "--json", "1"],
    "broker status": ["broker", "status", "--json"],
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_is_what_its_type_says(broker: BrokerProcess, listing: str) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        other.claim(pair.server, wire.Side.SERVER)
        one.receive()
        done = loopfuse(broker.path, *COMMANDS[listing])
    assert done.returncode == 0, done.stderr
    told: Any = msgspec.json.decode(done.stdout, type=LISTINGS[listing], strict=True)
    assert told
    # Nothing is printed that the type does not know.
    assert json.loads(msgspec.json.encode(told)) == json.loads(done.stdout)


def test_the_schema_in_the_docs_is_made_from_the_types() -> None:
    told = json.loads((DOCS / "schema.json").read_text())
    assert told == json_schema(), "scripts/schema writes it anew"


def test_every_field_is_documented() -> None:
    page = (DOCS / "json.md").read_text()
    definitions: dict[str, Any] = json_schema()["$defs"]  # type: ignore[assignment]
    for name, definition in definitions.items():
        for field in definition.get("properties", ()):
            assert f"`{field}`" in page, f"{name}.{field}"


def test_without_a_broker_lists_are_empty(tmp_path: Path) -> None:
    for arguments in (["ps"], ["defuse", "--all"]):
        done = loopfuse(tmp_path / "none.sock", *arguments, "--json")
        assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_a_failed_order_is_told_in_json_too(broker: BrokerProcess) -> None:
    done = loopfuse(broker.path, "defuse", "4711", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout) == [{"id": 4711, "result": "not-found"}]


def test_the_status_for_a_person(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        one.settle()
        done = loopfuse(broker.path, "broker", "status")
    assert done.returncode == 0
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert f"pid {broker.pid}" in told["broker"]
    assert told["connections"] == "1 plain"


def test_the_status_of_no_broker_is_1(broker: BrokerProcess, tmp_path: Path) -> None:
    done = loopfuse(broker.path, "broker", "--socket", str(tmp_path / "none.sock"), "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no broker is running at" in done.stderr


@pytest.mark.parametrize("arguments", [["status", "x"], ["statsu"], ["status", "--jsn"]])
def test_a_mistyped_status_is_2(broker: BrokerProcess, arguments: list[str]) -> None:
    assert loopfuse(broker.path, "broker", *arguments).returncode == 2
