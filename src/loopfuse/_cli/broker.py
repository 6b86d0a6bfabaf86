"""``loopfuse broker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loopfuse._segments import RING_DEFAULT

if TYPE_CHECKING:
    from loopfuse._messages import BrokerStatus


@click.group(invoke_without_command=True)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="The socket's path. Default: LOOPFUSE_BROKER, or the user's own place.",
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
    help="What to log: with info, every decision about a connection.",
)
@click.option(
    "--log",
    "log_target",
    metavar="FILE|-",
    help="Add the log to FILE, opened anew at SIGHUP; - is standard output. Default: standard "
    "error.",
)
@click.option(
    "--policy",
    "policy_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Which connections may be fused (TOML, docs/policy.md); read again at SIGHUP. "
    "Default: /etc/loopfuse/policy.toml or the user's own, if there is one.",
)
@click.option(
    "--metrics",
    "metrics",
    metavar="ADDR",
    help="Serve metrics for Prometheus at HOST:PORT (HOST: 127.0.0.1 if left out). "
    "Default: off. With --idle-exit 0, so that counts last.",
)
@click.pass_context
def command(
    context: click.Context,
    socket_path: Path | None,
    idle_exit: float,
    ring_size: int,
    log_level: str,
    log_target: str | None,
    policy_path: Path | None,
    metrics: str | None,
) -> None:
    """Run the broker in the foreground, until it is idle, or gets SIGTERM or SIGINT.

    `loopfuse run` starts one in the background by itself. Root's broker is the system's:
    it also pairs programs of different users.

    Exit status: 0 when it has left, 2 if it can't be started.
    """
    if context.invoked_subcommand is not None:
        context.obj = socket_path
        return
    from loopfuse._broker import Options
    from loopfuse._broker_start import run_in_foreground
    from loopfuse._broker_state.scrapes import parse_address
    from loopfuse._errors import LoopfuseError
    from loopfuse._paths import whole
    from loopfuse._policy_file import choose_policy
    from loopfuse._runtime_dir import broker_path

    try:
        address = parse_address(metrics) if metrics is not None else None
        policy = choose_policy(policy_path)
        options = Options(idle_exit, ring_size, log_level, policy, log_target, address)
        run_in_foreground(whole(socket_path) if socket_path else broker_path(), options)
    except LoopfuseError as error:
        raise click.UsageError(str(error)) from error


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object (docs/json.md).")
@click.pass_obj
def status(socket_path: Path | None, as_json: bool) -> None:
    """Ask the broker how it is.

    Of the options of `loopfuse broker`, only --socket matters here.

    Exit status: 0, or 1 if no broker answers.
    """
    from loopfuse._control import fetch_status
    from loopfuse._errors import LoopfuseError
    from loopfuse._paths import whole
    from loopfuse._runtime_dir import broker_path

    try:
        path = whole(socket_path) if socket_path else broker_path()
        told = fetch_status(path)
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        from loopfuse._cli.screen import print_json

        print_json(told)
        return
    for name, value in _lines(path, told):
        click.echo(f"{name:<12} {value}")


_RULES_SHOWN = 5


def _lines(path: Path, told: BrokerStatus) -> list[tuple[str, str]]:
    lines = [
        ("broker", f"pid {told.pid}, version {told.version}, at {path}"),
        ("up", _duration(told.uptime_seconds)),
        ("clients", str(told.clients)),
        ("connections", _counts(told.states)),
        ("not fused", _counts(told.reasons)),
        ("policy", told.policy_words),
        ("metrics", f"http://{told.metrics}/metrics" if told.metrics else "none"),
    ]
    if told.firewall_blind is not None:
        lines.append(("firewall", f"rules can't be read: {told.firewall_blind}"))
    lines += [("firewall", f"stands aside for {rule}") for rule in told.firewall[:_RULES_SHOWN]]
    if len(told.firewall) > _RULES_SHOWN:
        lines.append(("firewall", f"and {len(told.firewall) - _RULES_SHOWN} more rules"))
    return lines


def _counts(counts: dict[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in most_first) or "none"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0 s"
