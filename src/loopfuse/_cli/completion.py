"""``loopfuse completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes SHELL complete loopfuse's commands, options, programs and ids.

    For bash, add `eval "$(loopfuse completion bash)"` to ~/.bashrc. For zsh the same with zsh,
    in ~/.zshrc, behind compinit. For fish, write the output to
    ~/.config/fish/completions/loopfuse.fish.

    Exit status: 0, or 2 if SHELL is none of these.
    """
    from loopfuse._cli import COMPLETION_VARIABLE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "loopfuse", COMPLETION_VARIABLE).source())
