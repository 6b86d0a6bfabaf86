"""Two programs that talk (dialog.c) while calls of the library below one or both of them fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker_fixtures import eventually
from faults.control import Control, Order, Site
from holdings import has_state
from sessions import Session, free_port, listens

SCENARIOS = (
    "blocking", "polled", "epolled", "in_a_set", "forked", "handed_on", "back_to_tcp",
    "nested_set", "reset", "half_closed",
)  # fmt: skip
_TRIES = 3
STOPPED = 0.1
"""Seconds for which a party stays stopped."""
PATIENCE = 40.0
"""Seconds. A dialog takes a tenth of one, and half a second more if it is not fused."""


@dataclass(frozen=True)
class Outcome:
    """What the two ends said, and what was counted meanwhile."""

    server: str
    client: str
    complaints: str
    """What else they wrote; empty."""
    fused: bool
    """Did both ends have a segment?"""
    fired: int
    calls: dict[Site, int]

    @property
    def transcript(self) -> tuple[str, str]:
        return self.server, self.client


class Waker:
    """Has processes go on that were stopped, after a while. To `pids` may be added later."""

    def __init__(self, pids: Sequence[int], after: float) -> None:
        self.woken = 0
        self._pids = pids
        self._after = after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Waker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            stopped = [pid for pid in self._family() if has_state(pid, "T")]
            if stopped:
                time.sleep(self._after)
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            self.woken += len(stopped)

    def _family(self) -> list[int]:
        family = list(self._pids)
        for pid in family:
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                family += [int(child) for child in children.split()]
        return family


class Jumps:
    """Sets the wall clock of the programs forward and back by a day, again and again."""

    def __init__(self, control: Control) -> None:
        self.count = 0
        self._control = control
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._jump)

    def __enter__(self) -> Jumps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _jump(self) -> None:
        while not self._over.wait(0.005):
            self.count += 1
            self._control.jump((-1) ** self.count * 86400.0)


@dataclass(frozen=True)
class Conditions:
    """What a dialog has to cope with. `order`: calls that fail, at both ends or the server's only.
    `server`, `client`: words to put before their commands. `room`: bytes of each ring that there
    is memory for, beside the page in the middle."""

    order: Order | None = None
    caller: str | None = "libloopfuse.so"
    at_both: bool = True
    jumping: bool = False
    server: Sequence[str] = ()
    client: Sequence[str] = ()
    room: int | None = None


FAIR = Conditions()


@dataclass(frozen=True)
class Stage:
    """Where dialogs take place."""

    program: Path
    injector: Path
    folder: Path
    """For control files, one for each dialog under way."""

    def act(self, session: Session, scenario: str, conditions: Conditions = FAIR) -> Outcome:
        """One dialog. Somebody else may have taken the port before the server could."""
        for _ in range(_TRIES):
            outcome = self._try(session, scenario, conditions)
            if "Address already in use" not in outcome.server:
                break
        return outcome

    def _try(self, session: Session, scenario: str, conditions: Conditions) -> Outcome:
        port = str(free_port())
        with Control(self.folder / f"control-{port}") as control:
            if conditions.order:
                control.give(conditions.order)
            spoilt = sound = session.environment
            if session.broker is not None:
                spoilt = control.environment(self.injector, conditions.caller, sound)
                if conditions.room is not None:
                    spoilt["FAULTS_ROOM"] = str(conditions.room)
            commands = {
                "server": (
                    [*conditions.server, str(self.program), scenario, "server", port],
                    spoilt,
                ),
                "client": (
                    [*conditions.client, str(self.program), scenario, "client", port],
                    spoilt if conditions.at_both else sound,
                ),
            }
            with Jumps(control) if conditions.jumping else contextlib.nullcontext():
                said, complained = _both(commands, int(port))
            return Outcome(
                said[0],
                said[1],
                "".join(complained).replace("fused\n", ""),
                all(text.startswith("fused\n") for text in complained),
                control.fired(),
                control.calls(),
            )


def _both(
    commands: dict[str, tuple[list[str], dict[str, str]]], port: int
) -> tuple[list[str], list[str]]:
    started: list[subprocess.Popen[str]] = []
    pids: list[int] = []
    pipe = subprocess.PIPE
    try:
        with Waker(pids, STOPPED):
            for words, environment in commands.values():
                made = subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)
                started.append(made)
                pids.append(made.pid)
                _wait_for(started[0], port)
            pairs = [_words(process) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return [out for out, _ in pairs], [err for _, err in pairs]


def _wait_for(server: subprocess.Popen[str], port: int) -> None:
    eventually(lambda: listens(port) or server.poll() is not None, "it listens", PATIENCE)


def _words(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return f"{out}hangs\n", err
    if process.returncode:
        out += f"ended with {process.returncode}\n"
    return out, err
