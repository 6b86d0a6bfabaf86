"""Manual pages say what --help says, completely, and roff has nothing against them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from conftest import tool
from loopfuse._cli import cli
from loopfuse._cli.manual import _text, pages, write_pages

ROOT = Path(__file__).parent.parent
PAGES = pages()


def commands() -> dict[str, click.Command]:
    """Every command, by the name of its page."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, name: str) -> None:
        found[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for word in command.list_commands(context):
                sub = command.get_command(context, word)
                assert sub is not None
                walk(sub, f"{name}-{word}")

    walk(cli, "loopfuse")
    return found


def plain(page: str) -> str:
    """The words of a page, as one line."""
    text = re.sub(r"\\f[BP]|\\&", "", page).replace(r"\-", "-").replace(r"\e", "\\")
    return " ".join(re.sub(r"^\.(TP|PP)$", "", text, flags=re.MULTILINE).split())


def test_every_command_has_a_page() -> None:
    assert set(PAGES) == set(commands())
    assert {"loopfuse", "loopfuse-why", "loopfuse-broker-status"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete(name: str) -> None:
    page, command = plain(PAGES[name]), commands()[name]
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f".SH {heading}" in page
    assert "--help" in page
    for param in command.params:
        for option in param.opts if isinstance(param, click.Option) else ():
            assert option in page
        if isinstance(param, click.Option):
            assert param.help and " ".join(param.help.split()) in page
    told = " ".join((command.help or "").replace("`", "").split())
    for sentence in re.split(r"(?<=[.?]) ", told):
        assert sentence.removeprefix("Exit status: ")[1:].rstrip(".") in page


@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_against_a_page(name: str, tmp_path: Path) -> None:
    write_pages(tmp_path)
    done = subprocess.run(
        [tool("man"), "--warnings=w", "-l", str(tmp_path / f"{name}.1")],
        env={"MANROFFSEQ": "", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_nothing_in_a_text_is_taken_for_roff() -> None:
    assert _text(".SH x\n'y\na\\b -c `d`") == "\\&.SH x\n\\&'y\na\\eb \\-c \\fBd\\fP"


def test_the_script_writes_them(tmp_path: Path) -> None:
    """With this interpreter: where .venv is, is the script's own matter."""
    words = (ROOT / "scripts/man-pages").read_text()
    assert "-m loopfuse._cli.manual" in words
    command = [sys.executable, "-m", "loopfuse._cli.manual", str(tmp_path / "man1")]
    subprocess.run(command, check=True)
    assert {path.name for path in (tmp_path / "man1").iterdir()} == {f"{name}.1" for name in PAGES}
