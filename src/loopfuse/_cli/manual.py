"""Manual pages, man(7), made from the commands themselves: what --help prints, and no more.

`scripts/man-pages` writes them. One page for `loopfuse`, one for each command. A paragraph of a
command's help that begins "Exit status:" becomes that section.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from loopfuse import __version__
from loopfuse._cli import ENVIRONMENT, cli

_EXIT_STATUS = "Exit status:"


def pages() -> dict[str, str]:
    """The source of each page, by its name without the section: `loopfuse-ps`."""
    return {name.replace(" ", "-"): page for name, page in _pages(cli, "loopfuse", None)}


def write_pages(folder: Path) -> None:
    """Writes all of them into that folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (folder / f"{name}.1").write_text(page)


def _pages(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command, parent, info_name=name.rpartition(" ")[2], **command.context_settings
    )
    subcommands: dict[str, click.Command] = {}
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            assert found is not None
            subcommands[word] = found
    yield name, _page(context, name, subcommands)
    for word, found in subcommands.items():
        yield from _pages(found, f"{name} {word}", context)


def _page(context: click.Context, name: str, subcommands: dict[str, click.Command]) -> str:
    command = context.command
    paragraphs = re.split(r"\n\s*\n", re.sub(r"\n +", "\n", (command.help or "").strip()))
    status = [text for text in paragraphs if text.startswith(_EXIT_STATUS)]
    told = [text for text in paragraphs if text not in status]
    title = name.replace(" ", "-")
    lines = [f'.TH "{_text(title.upper())}" 1 "" "loopfuse {__version__}" "loopfuse manual"']
    lines += [".SH NAME", rf"{_text(title)} \- {_text(_short(command).rstrip('.'))}"]
    usage = " ".join(command.collect_usage_pieces(context))
    lines += [".SH SYNOPSIS", rf"\fB{_text(name)}\fP {_text(usage)}"]
    lines += [".SH DESCRIPTION", *_paragraphs(told)]
    records = [param.get_help_record(context) for param in command.get_params(context)]
    lines += _section("OPTIONS", [record for record in records if record is not None])
    short = [(word, _short(found)) for word, found in subcommands.items()]
    lines += _section("COMMANDS", short)
    if context.parent is None:
        lines += _section("ENVIRONMENT", list(ENVIRONMENT.items()))
    bare = [text.removeprefix(_EXIT_STATUS).strip() for text in status]
    lines += [".SH EXIT STATUS", *_paragraphs([text[0].upper() + text[1:] for text in bare])]
    others = [f"{title}-{word}" for word in subcommands]
    if context.parent is not None:
        others.insert(0, (context.parent.command_path or "loopfuse").replace(" ", "-"))
    lines += [".SH SEE ALSO", ",\n".join(rf"\fB{_text(other)}\fP(1)" for other in others)]
    return "\n".join(lines) + "\n"


def _short(command: click.Command) -> str:
    """The first sentence of its help."""
    return command.get_short_help_str(200)


def _paragraphs(texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield _text(text)


def _section(heading: str, entries: list[tuple[str, str]]) -> Iterator[str]:
    if entries:
        yield f".SH {heading}"
    for term, text in entries:
        yield from (".TP", _bold_names(term), _text(text))


def _bold_names(term: str) -> str:
    """Options and names are set in bold, their values are not."""
    return re.sub(r"(?<![\w\\-])((?:\\-)+[\w\\-]+|^\w[\w\\-]*)", r"\\fB\1\\fP", _text(term))


def _text(text: str) -> str:
    """Ordinary text as roff: nothing in it is a request or an escape; `code` is bold."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", escaped)
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
