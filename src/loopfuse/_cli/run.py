"""``loopfuse run``."""

from __future__ import annotations

from pathlib import Path

import click

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
@click.option("-v", "--verbose", is_flag=True, help="Say why, if PROGRAM can't be fused.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    eager: bool,
    after: int | None,
    policy: Path | None,
    verbose: bool,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM with its local TCP connections fused.

    PROGRAM replaces loopfuse: same process, same input and output, its own exit status.
    What it starts inherits the fusing. Connections to programs that do not run under
    loopfuse, or on other hosts, stay plain TCP.
    """
    if policy is None:
        run(program, eager=eager, after=after, verbose=verbose)
    from loopfuse._errors import LoopfuseError

    try:
        run(program, eager=eager, after=after, verbose=verbose, policy=policy)
    except LoopfuseError as error:
        raise click.UsageError(str(error)) from error
