"""`loopfuse doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess

LOOPFUSE = str(Path(sys.executable).with_name("loopfuse"))


def doctor(
    broker: Path, *argv: str, library: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LOOPFUSE_BROKER": str(broker)}
    if library is not None:
        environment["LOOPFUSE_LIBRARY"] = library
    return subprocess.run(
        [LOOPFUSE, "doctor", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {row["check"]: row["verdict"] for row in json.loads(done.stdout)}


def test_all_is_well_here(session_broker: BrokerProcess) -> None:
    done = doctor(session_broker.path, "--json")
    assert done.returncode == 0, done.stdout
    said = verdicts(done)
    assert set(said) == {
        "kernel", "sock_diag", "library", "preloading", "broker", "policy", "firewall",
        "descriptors", "cpus",
    }  # fmt: skip
    assert "fail" not in said.values()


def test_the_table_says_the_same(session_broker: BrokerProcess) -> None:
    done = doctor(session_broker.path)
    assert done.returncode == 0
    assert "sealed memfds work" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_missing_library_fails(session_broker: BrokerProcess, tmp_path: Path) -> None:
    done = doctor(session_broker.path, "--json", library=str(tmp_path / "none.so"))
    assert done.returncode == 1
    assert verdicts(done)["library"] == "fail"


def test_no_place_for_a_broker_fails(tmp_path: Path) -> None:
    done = doctor(tmp_path / "missing" / "broker.sock", "--json")
    assert done.returncode == 1
    assert verdicts(done)["broker"] == "fail"


def test_a_program_that_can_be_fused(session_broker: BrokerProcess) -> None:
    done = doctor(session_broker.path, "--json", "sh")
    assert done.returncode == 0
    assert "can be fused" in json.loads(done.stdout)[0]["seen"]


def test_a_static_program_is_told_why(session_broker: BrokerProcess, tmp_path: Path) -> None:
    source, program = tmp_path / "static.c", tmp_path / "static"
    source.write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-static", "-o", str(program), str(source)], check=True)
    done = doctor(session_broker.path, "--json", str(program))
    assert done.returncode == 1
    row = json.loads(done.stdout)[0]
    assert "statically linked" in row["seen"]
    assert row["advice"]


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
def test_an_unknown_program_is_2(session_broker: BrokerProcess, name: str) -> None:
    done = doctor(session_broker.path, name)
    assert done.returncode == 2
    assert f"{name}: no such program on PATH" in done.stderr
