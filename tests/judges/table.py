"""python -m judges.table [SUITE | SUITE:PART ...]: runs the judges, writes docs/judges.md.

    PYTHONPATH=tests LOOPFUSE_LIBRARY=$(scripts/build-variant dev) python -m judges.table

What is not named keeps the row it has.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from broker_fixtures import BrokerProcess
from judges import cpython, pyzmq, redis, uvloop
from judges.verdict import Verdict, lost
from loopfuse._preload import library_path
from sessions import Session

PAGE = Path(__file__).parent.parent.parent / "docs" / "judges.md"
_ROW = re.compile(r"^\| (\w+) \| `([\w:]+)` \|.*$", re.MULTILINE)
_HEAD = """\
# Outside judges

Other people's test suites, fused end to end with `--eager` beside plain TCP. A test that passes
plain and fails fused is our bug. `tests/judges/` runs the short ones in each test run and the
others with `--soak`; this page is written by `python -m judges.table`.

| suite | what it is |
|---|---|
| cpython | the tests of {python} of Debian, without AF_VSOCK: hangs plain too on some machines |
| redis | the unit tests of the Debian source package redis {redis}, in groups of ours |
| uvloop | the tests of uvloop {uvloop}, on its own loop and on asyncio's |
| pyzmq | the tests of pyzmq {pyzmq} |

Measured on {system}. "Connections fused" are those that carried payload in
rings; where it says 0, the part talks through pipes and socketpairs, or to nobody.

| suite | part | passed plain | passed fused | connections fused |
|---|---|---|---|---|
"""


class _Part(NamedTuple):
    suite: str
    name: str
    judge: Callable[[str, Session], Verdict]


def _parts() -> Iterator[_Part]:
    for suite in (cpython, redis, uvloop, pyzmq):
        title = suite.__name__.rpartition(".")[2]
        for name in [*suite.SHORT, *suite.LONG]:
            yield _Part(title, name, suite.judge)


def _row(part: _Part, plain: Verdict, fused: Verdict) -> str:
    passed = f"{len(plain.passed)} | {len(fused.passed)}"
    return f"| {part.suite} | `{part.name}` | {passed} | {fused.fused} |"


def _head() -> str:
    return _HEAD.format(
        python=_said(cpython.PYTHON, "--version"),
        redis=_said("dpkg-query", "--show", "--showformat=${source:Version}", "redis-server"),
        uvloop=uvloop.SUITE.version,
        pyzmq=pyzmq.SUITE.version,
        system=f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
    )


def _said(*command: str) -> str:
    return subprocess.check_output(command, text=True).strip()


def main() -> None:
    rows: dict[tuple[str, str], str] = {}
    if PAGE.exists():
        rows = {(match[1], match[2]): match[0] for match in _ROW.finditer(PAGE.read_text())}
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as directory:
        broker = BrokerProcess(Path(directory) / "broker.sock", "--idle-exit", "0")
        alone = Session({}, None)
        session = Session.under(library_path(), broker, eager=True)
        try:
            for part in _parts():
                if wanted and not wanted & {part.suite, f"{part.suite}:{part.name}"}:
                    continue
                plain, fused = part.judge(part.name, alone), part.judge(part.name, session)
                row = rows[part.suite, part.name] = _row(part, plain, fused)
                print(row, *sorted(lost(plain, fused)), flush=True)
                _write(rows)
        finally:
            broker.stop()


def _write(rows: dict[tuple[str, str], str]) -> None:
    places = [(part.suite, part.name) for part in _parts()]
    PAGE.write_text(_head() + "".join(f"{rows[place]}\n" for place in places if place in rows))


if __name__ == "__main__":
    main()
