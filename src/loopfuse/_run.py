"""``loopfuse run``: become the program, with the library preloaded.

Imports as little as it can: this is the start-up time of somebody else's program.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from loopfuse._elf import Obstacle, examine, find_program
from loopfuse._paths import is_file, whole
from loopfuse._preload import library_path, preload_environment

NOT_FOUND = 127  # as env(1), nohup(1) and the shells have it
NOT_EXECUTABLE = 126

_HARMLESS = {Obstacle.PRIVILEGED, Obstacle.NOT_ELF}
"""Preloading is ignored (secure execution) or up to whatever the kernel finds."""


def run(
    argv: Sequence[str],
    *,
    eager: bool = False,
    after: int | None = None,
    verbose: bool = False,
    policy: Path | None = None,
    metrics: str | None = None,
) -> NoReturn:
    """Replaces this process by ``argv``, fused where it can be.

    Same pid, stdio, signals, process group; the program's own exit status. Where fusing is
    out of the question (static program, no broker), the program runs plain. `policy` is the
    policy file that must hold, `metrics` the address at which the broker must serve metrics.
    Raises PolicyError if the file can't be read or a broker is running that goes by another,
    MetricsError if it serves none there, BrokerError if it can't.
    """
    if policy is not None or metrics is not None:
        insist_on(whole(policy) if policy is not None else None, metrics)
    path = find_program(argv[0])
    if path is None:
        _die(f"{argv[0]}: no such program on PATH", NOT_FOUND)
    environment = _environment(path, eager=eager, after=after, verbose=verbose)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: it was closed when we began
            stream.flush()
    # Python ignores these two from its start on, and exec hands that down.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, list(argv), environment)
    except FileNotFoundError:
        _die(f"{argv[0]}: its interpreter does not exist (check the #! line)", NOT_FOUND)
    except OSError as error:
        _die(f"{argv[0]}: can't be run: {error.strerror}", NOT_EXECUTABLE)


def insist_on(policy: Path | None, metrics: str | None) -> None:
    """Has a broker answer that goes by this policy file and serves metrics at this address.
    Raises PolicyError if the file can't be read or the broker goes by another, MetricsError if
    the address is none or the broker serves no metrics there, RuntimeDirError, BrokerError."""
    from loopfuse._broker_state.scrapes import parse_address
    from loopfuse._control import fetch_status
    from loopfuse._errors import MetricsError, PolicyError
    from loopfuse._policy_file import read_policy
    from loopfuse._runtime_dir import ensure_broker

    if policy is not None:
        read_policy(policy)
    wanted = parse_address(metrics) if metrics is not None else None
    path = ensure_broker(policy, metrics)
    status = fetch_status(path)
    if policy is not None and status.policy != str(policy):
        found = status.policy or "no policy file"
        raise PolicyError(
            f"the broker at {path} is running with {found}, not {policy}",
            hint="End it first, or leave --policy out, or set LOOPFUSE_BROKER to another socket.",
        )
    if wanted is not None and not wanted.is_at(status.metrics):
        found = f"metrics at {status.metrics}" if status.metrics else "no metrics"
        raise MetricsError(
            f"the broker at {path} (pid {status.pid}) is running with {found}, not at {wanted}",
            hint="End it first, or leave --metrics out, or set LOOPFUSE_BROKER to another socket.",
        )


def _environment(path: Path, *, eager: bool, after: int | None, verbose: bool) -> dict[str, str]:
    plain = dict(os.environ)
    try:
        obstacle = examine(path).obstacle
    except OSError:
        return plain  # execve will say what is wrong with it
    if obstacle is not None and obstacle not in _HARMLESS:
        if verbose:
            _warn(f"{path} runs plain: {obstacle.value}")
        return plain
    if not is_file(library_path()):
        _warn(f"{library_path()} is missing: {path.name} runs plain; reinstall loopfuse")
        return plain
    # Late: the socket is all that is needed when a broker already answers.
    from loopfuse._errors import LoopfuseError
    from loopfuse._runtime_dir import ensure_broker

    try:
        broker = ensure_broker()
    except (LoopfuseError, OSError) as error:
        _warn(f"{error}; {path.name} runs plain")
        return plain
    return preload_environment(plain, broker, eager=eager, after=after)


def _warn(message: str) -> None:
    if sys.stderr is not None:  # it is closed: print would take standard output
        print(f"loopfuse: {message}", file=sys.stderr)


def _die(message: str, code: int) -> NoReturn:
    _warn(message)
    sys.exit(code)
