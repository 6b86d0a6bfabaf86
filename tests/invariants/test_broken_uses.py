"""The invariants build notices what must not be: each check, by a use that breaks it and by the
same use as it ought to be (tests/invariants/broken.c)."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
PARTS = ("defer.c", "departure.c", "invariant.c", "lock.c", "rank.c", "slot.c", "states.c")
SOURCE = Path(__file__).with_name("broken.c")
USES = re.findall(r'^\t\{"(.*?)", \w+\},$', SOURCE.read_text(), re.MULTILINE)

LINE = re.compile(r"loopfuse: invariant broken: (.*) \(.*?([\w.]+):\d+\) in broken, pid \d+\n")
WHAT = {
    "locks-out-of-order": "held[count - 1].rank < rank",
    "two-locks-of-a-rank": "held[count - 1].rank < rank",
    "a-lock-inside-a-leaf": "held[count - 1].rank < rank",
    "a-lock-given-but-not-taken": "was_taken",
    "a-lock-given-by-another-thread": "lf_lock_is_mine(lock)",
    "asleep-with-a-lock": "lf_defer.depth == 0",
    "asleep-after-a-pause": "lf_defer.depth == 0",
    "tx-without-its-lock": "lf_lock_is_mine(&slot->tx_lock)",
    "tx-fused-again": "tx_may_go",
    "tx-back-after-bytes": "to != LF_TX_PLAIN",
    "rx-without-its-lock": "lf_lock_is_mine(&slot->rx_lock)",
    "rx-skips-what-tcp-has": "rx_may_go",
    "rx-goes-back": "rx_may_go",
    "rx-fused-too-early": "rx_tcp_left",
    "mark-before-the-state": "LF_TX_FUSED",
    "mark-goes-back": "to != LF_MARK_PLAIN",
    "mark-without-the-lock": "lf_lock_is_mine(&slot->tx_lock)",
    "fused-told-after-bytes": "to != LF_MARK_FUSED",
    "ended-without-a-lock": "lf_lock_is_mine(&slot->rx_lock)",
    "ended-without-a-word": "is_over(slot)",
    "paired-without-a-claim": "pairing_may_go",
    "declined-after-it-was-paired": "pairing_may_go",
    "published-without-the-lock": "lf_lock_is_mine(&sock->slot->tx_lock)",
    "head-goes-back": "head >= ",
    "more-than-the-ring-holds": "<= sock->ring_size",
    "fewer-than-none": "was != 0",
}
"""A piece of the condition that each use breaks."""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("broken") / "broken"
    # What the parts say of the rest of the library is not called here.
    options = ["-std=gnu11", "-DLF_INVARIANTS=1", "-ffunction-sections", "-Wl,--gc-sections"]
    sources = [str(SOURCE), *(str(CSRC / part) for part in PARTS)]
    command = ["gcc", *options, "-iquote", str(CSRC), "-o", str(binary), *sources, "-pthread"]
    subprocess.run(command, check=True)
    return binary


def run(command: list[str], log: Path) -> subprocess.CompletedProcess[str]:
    environment = {"LOOPFUSE_INVARIANTS_LOG": str(log)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("use", USES)
def test_a_broken_use_ends_with_one_line_that_names_it(
    broken: Path, tmp_path: Path, use: str
) -> None:
    log = tmp_path / "log"
    done = run([str(broken), use], log)
    assert done.returncode == -signal.SIGABRT
    found = LINE.fullmatch(done.stderr)
    assert found, done.stderr
    assert WHAT[use] in found[1]
    assert log.read_text() == done.stderr


@pytest.mark.parametrize("use", USES)
def test_the_same_use_as_it_ought_to_be_is_let_alone(
    broken: Path, tmp_path: Path, use: str
) -> None:
    done = run([str(broken), use, "right"], tmp_path / "log")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "log").exists()
