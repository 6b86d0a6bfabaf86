"""Memory control groups that are nearly full: rings are small, or there are none. And memory that
runs out beneath a ring: what was promised when it was mapped is not there when it is touched."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import eventually
from faults.control import FOR_GOOD, Order
from faults.dialogs import Conditions, Stage
from faults.sites import places
from loopfuse._broker_state import budget as budgets
from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.cgroups import headroom
from loopfuse._segments import RING_DEFAULT, RING_THRIFTY
from sessions import Session

MIB = 1 << 20
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
LIMIT = 20 * MIB
"""Both programs together take 13 MiB, and 21 with two rings of 4 MiB."""


def machine(root: Path, cgroup: str, groups: dict[str, dict[str, object]]) -> Path:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/cgroup").write_text(cgroup)
    for name, files in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_text(f"{content}\n")
    return root


def v2(limit: object, current: int, inactive: int = 0) -> dict[str, object]:
    stat = f"anon 1\ninactive_file {inactive}"
    return {"memory.max": limit, "memory.current": current, "memory.stat": stat}


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    groups = {"a": v2(100 * MIB, 95 * MIB, 2 * MIB), "a/b": v2(50 * MIB, 10 * MIB)}
    assert headroom(7, machine(tmp_path, "0::/a/b\n", groups)) == 7 * MIB


def test_the_older_hierarchy_is_understood(tmp_path: Path) -> None:
    files = {
        "memory.limit_in_bytes": 30 * MIB, "memory.usage_in_bytes": 20 * MIB,
        "memory.stat": "cache 1\ntotal_inactive_file 4096",
    }  # fmt: skip
    root = machine(tmp_path, "4:cpu:/x\n3:memory:/c\n0::/\n", {"memory/c": files})
    assert headroom(7, root) == 10 * MIB + 4096


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_there_is_none(tmp_path: Path, limit: str) -> None:
    assert headroom(7, machine(tmp_path, "0::/a\n", {"a": v2(limit, 5)})) is None
    assert headroom(8, tmp_path) is None, "a process that is gone"


@pytest.mark.parametrize(
    ("room", "size"), [(None, RING_DEFAULT), (64 * MIB, RING_DEFAULT), (63 * MIB, RING_THRIFTY)]
)
def test_rings_are_small_where_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch, room: int | None, size: int
) -> None:
    monkeypatch.setattr(budgets, "headroom", lambda pid: room if pid == 2 else None)
    assert Budget(RING_DEFAULT, memory=1 << 40).ring_size((1, 2)) == size


def test_there_are_none_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "headroom", lambda _pid: MIB)
    with pytest.raises(OSError, match="full") as caught:
        Budget(RING_DEFAULT, memory=1 << 40).ring_size((1, 2))
    assert caught.value.errno == errno.ENOMEM


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of LIMIT bytes."""
    older = (V1 / "memory.limit_in_bytes").exists()
    group = (V1 if older else V2) / f"loopfuse-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if older else "memory.max"
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(), "it is empty")
    group.rmdir()


def test_nobody_is_killed_in_a_group_that_is_large_enough_for_plain_tcp(
    stage: Stage, fused: Session, small_group: Path
) -> None:
    enter = ["sh", "-c", f'echo $$ >{small_group}/cgroup.procs; exec "$@"', "sh"]
    inside = Conditions(server=enter, client=enter)
    expected = stage.act(Session({}, None), "blocking", inside).transcript
    outcome = stage.act(fused, "blocking", inside)
    assert outcome.transcript == expected
    assert not outcome.complaints


@pytest.mark.parametrize(
    ("scenario", "room"),
    [
        ("blocking", 0),
        ("blocking", 200 * 1024),
        ("epolled", 4096),
        ("forked", 4096),
        ("back_to_tcp", 4096),
        ("from_a_file", 8192),
    ],
)
def test_a_ring_that_gets_no_more_memory_goes_back_to_tcp(
    stage: Stage, lazily_fused: Session, scenario: str, room: int
) -> None:
    outcome = stage.act(lazily_fused, scenario, Conditions(room=room))
    assert outcome.transcript == stage.act(Session({}, None), scenario).transcript
    assert not outcome.complaints
    assert outcome.fused and outcome.fired, "no ring was without memory"


@pytest.mark.parametrize("function", ["reserve", "map_header", "unmap_header"])
def test_a_header_without_a_place_of_its_own_is_used_where_the_whole_lies(
    stage: Stage, fused: Session, library: Path, function: str
) -> None:
    scenario = "blocking"
    found = places(library, stage.act(fused, scenario).calls)
    (site,) = [
        place.site
        for place in found
        if place.functions[0] == function and place.site.name == "mmap"
    ]
    outcome = stage.act(fused, scenario, Conditions(Order(*site, errno.ENOMEM, times=FOR_GOOD)))
    assert outcome.transcript == stage.act(Session({}, None), scenario).transcript
    assert not outcome.complaints
    assert outcome.fused and outcome.fired
