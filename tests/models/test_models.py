"""The protocol, model-checked by SPIN: the models beside this file. docs/models.md tells what each
shows. The last test breaks one thing at a time, and the check must find it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = 600  # seconds for one exploration: the machine may be busy


@dataclass(frozen=True)
class Model:
    name: str
    defines: str = ""
    live: bool = False  # the claim under weak fairness, instead of end states

    def __str__(self) -> str:
        return f"{self.name} {self.defines}".strip() + (" live" if self.live else "")


@dataclass(frozen=True)
class Explored:
    errors: int
    states: int
    complete: bool
    said: str


def explore(model: Model, directory: Path) -> Explored:
    """Builds the model's own checker and lets it visit all states."""
    for tool in ("spin", "clang"):
        assert shutil.which(tool), f"{tool} is missing: scripts/debian test"
    defines = [*model.defines.split(), *(["-DLIVE"] if model.live else [])]

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    run("spin", "-a", *defines, str(HERE / f"{model.name}.pml"))
    how = ["-DNFAIR=3"] if model.live else ["-DSAFETY"]
    run("clang", "-w", "-O0", "-DVECTORSZ=2048", *how, "-o", "pan", "pan.c")
    said = run("./pan", "-m1000000", "-w23", *(["-a", "-f"] if model.live else []))
    errors = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+(?:\.\d+)?(?:e\+\d+)?) states, stored", said)
    assert errors and states, said
    complete = "max search depth too small" not in said and "out of memory" not in said
    return Explored(int(errors[1]), int(float(states[1])), complete, said)


MODELS = (
    Model("sleep"),
    Model("sleep", "-DRINGERS=2 -DBYTES=1"),
    Model("sleep", "-DEPOLL=1 -DREADERS=1"),
    Model("sleep", live=True),
    Model("sleep", "-DIDLE -DEPOLL=1 -DREADERS=1 -DBYTES=1 -DWANT=2", live=True),
    Model("room"),
    Model("room", "-DTOTAL=4", live=True),
    Model("switch", "-DBYTES=2 -DBROKER"),
    Model("switch", "-DBYTES=1", live=True),
    Model("teardown", "-DBYTES=2"),
    Model("heirs", "-DBYTES=1"),
    Model("copy", "-DBYTES=2"),
    Model("copy", "-DBYTES=2 -DLEAVES"),
    Model("naps"),
    Model("naps", "-DOTHERS=0"),
    Model("naps", "-DREARM"),
)
LARGER = (
    Model("sleep", "-DWANT=2 -DBYTES=4"),
    Model("sleep", "-DEPOLL=1 -DBYTES=3"),
    Model("sleep", "-DRINGERS=2 -DBYTES=2 -DWANT=2"),
    Model("room", "-DLIMIT=6 -DTOTAL=14 -DMOST=4"),
    Model("switch", "-DBYTES=3 -DBROKER"),
    Model("switch", "-DBYTES=1 -DSECOND=1 -DBUFFER=2"),
    Model("teardown", "-DBYTES=3"),
    Model("heirs", "-DBYTES=2"),
    Model("copy", "-DBYTES=4"),
    Model("copy", "-DBYTES=3 -DLEAVES"),
    Model("naps", "-DTHREADS=3 -DOTHERS=2 -DREARM"),
)
MUTATIONS: dict[str, dict[str, Model]] = {
    "sleep": {
        "ARM_WITHOUT_FENCE": Model("sleep"),
        "COUNT_COLD_FOR_EVER": MODELS[4],
        "DISARM_ALWAYS": Model("sleep", "-DEPOLL=1 -DREADERS=1"),
        "DISARM_UNANNOUNCED": Model("sleep", "-DEPOLL=1 -DREADERS=1"),
        "DISARM_WITHOUT_RING": Model("sleep"),
        "DRAIN_ALWAYS": Model("sleep"),
        "DRAIN_UNANNOUNCED": Model("sleep", "-DWANT=2 -DBYTES=4"),
        "LOOK_BEFORE_ARM": Model("sleep"),
        "PUT_WITHOUT_FENCE": Model("sleep"),
        "RELY_DURING_DRAIN": Model("sleep", "-DWANT=2 -DBYTES=4"),
        "RING_TWO_STEPS": Model("sleep"),
        "SLEEPER_DISARMS": Model("sleep"),
    },
    "room": {
        "ARM_WITHOUT_FENCE": Model("room"),
        "PUT_WITHOUT_FENCE": Model("room"),
        "TAIL_BEFORE_COPY": Model("room"),
        "TAKE_WITHOUT_FENCE": Model("room"),
    },
    "switch": {
        "ASK_BEFORE_TAIL": Model("switch", "-DBYTES=2"),
        "END_WITHOUT_A_LOOK": Model("switch", "-DBYTES=2 -DBROKER"),
        "FUSE_LOOKS_FIRST": Model("switch", "-DBYTES=1 -DSECOND=1 -DBUFFER=2 -DNO_WISHES"),
        "MARK_BEFORE_END_POS": Model("switch", "-DBYTES=2"),
        "MARK_BEFORE_TOTAL": Model("switch", "-DBYTES=2"),
        "PUT_WITHOUT_FENCE": Model("switch", "-DBYTES=1 -DSECOND=1 -DBUFFER=2 -DNO_WISHES"),
        "READY_LOOKS_ONCE": Model("switch", "-DBYTES=3 -DBROKER -DNO_WISHES"),
        "READ_WITHOUT_TURN": Model("switch", "-DBYTES=2"),
        "TAKE_WITHOUT_SWAP": Model("switch", "-DBYTES=2"),
        "TCP_BEFORE_MARK": Model("switch", "-DBYTES=1 -DSECOND=1 -DBROKER -DNO_WISHES -DBUFFER=2"),
        "TCP_COUNTS_AT_ONCE": Model("switch", "-DBYTES=2"),
    },
    "teardown": {
        "CLOSED_AT_ONCE": Model("teardown", "-DBYTES=2"),
        "CLOSE_IGNORES_UNREAD": Model("teardown", "-DBYTES=2"),
        "CLOSE_WITHOUT_FENCE": Model("teardown", "-DBYTES=2"),
        "DEATH_IS_AN_END": Model("teardown", "-DBYTES=2"),
        "FIN_BEFORE_LAST_BYTE": Model("teardown", "-DBYTES=2"),
        "FIN_COUNTS_AT_ONCE": Model("teardown", "-DBYTES=2"),
        "PUT_WITHOUT_FENCE": Model("teardown", "-DBYTES=2"),
    },
    "heirs": {
        "ENDED_BEFORE_RESENT": Model("heirs", "-DBYTES=1"),
        "END_WITHOUT_A_NOTE": Model("heirs", "-DBYTES=1"),
        "HEIR_FORGETS_THE_WISH": Model("heirs", "-DBYTES=1"),
        "HEIR_GOES_BY_THE_NOTE": Model("heirs", "-DBYTES=1"),
        "MARK_BEFORE_END_POS": Model("heirs", "-DBYTES=1"),
        "SEGMENT_BEFORE_SLOT": Model("heirs", "-DBYTES=1"),
    },
    "copy": {
        "COPY_BEFORE_MARK": Model("copy", "-DBYTES=2"),
        "COPY_WITHOUT_SWAP": Model("copy", "-DBYTES=2"),
        "HEIR_ENDS_AT_THE_COPY": Model("copy", "-DBYTES=2"),
        "HEIR_FORGETS_THE_COPY": Model("copy", "-DBYTES=2"),
        "HEIR_LOOKS_AGAIN": Model("copy", "-DBYTES=2"),
        "KEEP_THE_COPY": Model("copy", "-DBYTES=2"),
        "MARK_BEFORE_COPIED": Model("copy", "-DBYTES=2"),
        "NO_LATE_LOOK": Model("copy", "-DBYTES=2"),
        "SEND_ON_BEFORE_THE_COPY": Model("copy", "-DBYTES=2 -DLEAVES"),
        "SKIP_ALL": Model("copy", "-DBYTES=2"),
    },
    "naps": {
        "ARM_WITHOUT_A_WORD": Model("naps", "-DREARM"),
        "COUNT_NAPS_FOR_EVER": Model("naps"),
        "GET_UP_AND_LEAVE": Model("naps"),
        "KEPT_BY_THE_CLOCK": Model("naps"),
        "LEAVE_WITHOUT_A_WORD": Model("naps"),
        "LOOK_AND_LEAVE": Model("naps", "-DOTHERS=0"),
    },
}


def check(model: Model, directory: Path, report: Callable[[str, object], None]) -> None:
    explored = explore(model, directory)
    report("states", explored.states)
    assert explored.complete, explored.said
    assert explored.errors == 0, explored.said


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_model_holds(
    model: Model, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check(model, tmp_path, record_property)


@pytest.mark.soak
@pytest.mark.parametrize("model", LARGER, ids=str)
def test_model_holds_in_larger_bounds(
    model: Model, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check(model, tmp_path, record_property)


def test_every_mutation_in_a_model_is_tried() -> None:
    for name, mutations in MUTATIONS.items():
        written = set(re.findall(r"MUTATE_(\w+)", (HERE / f"{name}.pml").read_text()))
        assert written == set(mutations)


@pytest.mark.parametrize(
    ("mutation", "model"),
    [
        pytest.param(mutation, model, id=f"{name}-{mutation}")
        for name, mutations in MUTATIONS.items()
        for mutation, model in mutations.items()
    ],
)
def test_mutation_of_a_model_is_found(mutation: str, model: Model, tmp_path: Path) -> None:
    mutated = Model(model.name, f"{model.defines} -DMUTATE_{mutation}", model.live)
    assert explore(mutated, tmp_path).errors
