"""``loopfuse run``."""

from __future__ import annotations

from pathlib import Path

import click

from loopfuse._cli.candidates import commands
from loopfuse._run import run


@click.command(
    "run",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option("--eager", is_flag=True, help="Fuse before the first payload byte.")
@click.option(
    "--after",
    type=click.IntRange(min=0, max=1_000_000_000),
    metavar="N",
    help="Fuse once a connection has seen N I/O calls (default 8).",
)
@click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Start the broker with this policy file (docs/policy.md).",
)
@click.option(
    "--metrics",
    metavar="ADDR",
    help="Start the broker with metrics for Prometheus at HOST:PORT (HOST: 127.0.0.1 if left "
    "out; docs/metrics.md).",
)
@click.option("-v", "--verbose", is_flag=True, help="Say why, if PROGRAM can't be fused.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=commands)
def command(
    eager: bool,
    after: int | None,
    policy: Path | None,
    metrics: str | None,
    verbose: bool,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM with its local TCP connections fused.

    PROGRAM replaces loopfuse: same process, same input and output, its own exit status.
    What it starts inherits the fusing. Connections to programs that do not run under
    loopfuse, or on other hosts, stay plain TCP.

    Starts a broker in the background if none is running. With --policy or --metrics, one that
    is running must have the same; otherwise PROGRAM is not run.

    Exit status: that of PROGRAM; 126 if it can't be run, 127 if there is none, 2 if an option is
    wrong.
    """
    from loopfuse._errors import LoopfuseError

    try:
        run(program, eager=eager, after=after, verbose=verbose, policy=policy, metrics=metrics)
    except LoopfuseError as error:
        raise click.UsageError(str(error)) from error
