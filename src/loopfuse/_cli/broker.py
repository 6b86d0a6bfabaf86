"""``loopfuse broker``."""

from __future__ import annotations

from pathlib import Path

import click

from loopfuse._segments import RING_DEFAULT


@click.command()
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="Listen at this path. Default: LOOPFUSE_BROKER, or the user's own place.",
)
@click.option(
    "--idle-exit",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Leave after so long without a client and without a fused connection; 0: never.",
)
@click.option(
    "--ring-size",
    metavar="BYTES",
    type=int,
    default=RING_DEFAULT,
    show_default=True,
    help="Size of each direction's ring: a power of two from 4096 to 16777216.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to write to standard error.",
)
@click.option(
    "--policy",
    "policy_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Which connections may be fused (TOML, docs/policy.md); read again at SIGHUP. "
    "Default: /etc/loopfuse/policy.toml or the user's own, if there is one.",
)
def command(
    socket_path: Path | None,
    idle_exit: float,
    ring_size: int,
    log_level: str,
    policy_path: Path | None,
) -> None:
    """Run the broker in the foreground, until it is idle, or gets SIGTERM or SIGINT.

    `loopfuse run` starts one in the background by itself. Root's broker is the system's:
    it also pairs programs of different users.
    """
    from loopfuse._broker import Options
    from loopfuse._broker_start import run_in_foreground
    from loopfuse._errors import LoopfuseError
    from loopfuse._policy_file import choose_policy
    from loopfuse._runtime_dir import broker_path

    try:
        options = Options(idle_exit, ring_size, log_level, choose_policy(policy_path))
        run_in_foreground(socket_path.absolute() if socket_path else broker_path(), options)
    except LoopfuseError as error:
        raise click.UsageError(str(error)) from error
