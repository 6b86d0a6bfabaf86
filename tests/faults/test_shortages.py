"""Disks and descriptors run out: the programs do not notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, libraries, tcp_pair
from faults.dialogs import SCENARIOS, Conditions, Stage
from loopfuse import _wire as wire
from sessions import Session

FEW = ("prlimit", "--nofile=16:16")
LIMITED = {"server": ((FEW), ()), "client": ((), FEW), "both": (FEW, FEW)}
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may mount a small file system of its own"
)


def on_a_small_disk(folder: Path, options: str) -> list[str]:
    """Words that give a command a file system of its own there, which is full."""
    folder.mkdir(exist_ok=True)
    script = (
        f"mount -t tmpfs -o {options} tmpfs {folder} && "
        f'{{ head -c 10M /dev/zero >{folder}/filler; }} 2>/dev/null; exec "$@"'
    )
    return ["unshare", "-m", "sh", "-c", script, "sh"]


@pytest.mark.parametrize("who", list(LIMITED))
def test_sixteen_descriptors_are_enough_for_a_program_that_had_enough(
    stage: Stage, fused: Session, all_faults: bool, who: str
) -> None:
    server, client = LIMITED[who]
    short = Conditions(server=server, client=client)
    for scenario in SCENARIOS if all_faults else ("polled",):
        plain = stage.act(Session({}, None), scenario, short)
        outcome = stage.act(fused, scenario, short)
        assert outcome.transcript == plain.transcript, scenario
        assert not outcome.complaints


@needs_root
@pytest.mark.parametrize("options", ["size=4k,nr_inodes=1", "size=4k"])
def test_a_program_runs_plain_where_the_broker_has_no_room_for_its_socket(
    library: Path, tmp_path: Path, options: str
) -> None:
    disk = tmp_path / "disk"
    environment = os.environ | {
        "LOOPFUSE_BROKER": str(disk / "broker.sock"), "LOOPFUSE_LIBRARY": str(library),
    }  # fmt: skip
    script = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    for _ in range(50):
        near.sendall(b"x" * 1000)
        assert far.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
print("went well")
"""
    run = [sys.executable, "-m", "loopfuse", "run", "--", sys.executable, "-c", script]
    done = subprocess.run(
        [*on_a_small_disk(disk, options), *run],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "went well\n", done.stderr
    assert "Traceback" not in done.stderr
    if "nr_inodes" in options:
        assert "runs plain" in done.stderr


def fuses(broker: BrokerProcess) -> bool:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        other.claim(pair.server, wire.Side.SERVER)
        return isinstance(one.receive().body, wire.Fuse)


@needs_root
@pytest.mark.parametrize("full", ["log", "/dev/shm"])
def test_the_broker_pairs_on_while_a_disk_is_full(tmp_path: Path, full: str) -> None:
    folder = tmp_path / "disk" if full == "log" else Path(full)
    options: Sequence[str] = ("--log-level", "debug", "--idle-exit", "0")
    if full == "log":
        options = (*options, "--log", str(folder / "log"))
    prefix = on_a_small_disk(folder, "size=4k")
    broker = BrokerProcess(tmp_path / "broker.sock", *options, prefix=prefix)
    try:
        assert all(fuses(broker) for _ in range(20))
    finally:
        code, said = broker.stop()
    assert code == 0 and "Traceback" not in said, said
