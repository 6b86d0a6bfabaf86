"""python -m judges.table [MODULE...]: runs the judges, writes docs/judges.md.

    PYTHONPATH=tests LOOPFUSE_LIBRARY=$(scripts/build-variant dev) python -m judges.table

Modules that are not named keep the rows they have.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from broker_fixtures import BrokerProcess
from judges.cpython import LONG, PYTHON, SHORT, judge
from judges.verdict import Verdict, lost
from loopfuse._preload import library_path
from sessions import Session

PAGE = Path(__file__).parent.parent.parent / "docs" / "judges.md"
_ROW = re.compile(r"^\| `(\w+)` \|.*$", re.MULTILINE)
_HEAD = """\
# Outside judges

Other people's test suites, fused end to end with `--eager` beside plain TCP. A test that passes
plain and fails fused is our bug. `tests/judges/test_cpython.py` runs the short ones in each
test run and the others with `--soak`; this page is written by `python -m judges.table`.

{python} of Debian, {system}. "Connections fused" are those that carried payload in rings;
where it says 0, the module talks through pipes and socketpairs, or to nobody. Left out:
AF_VSOCK tests, which hang on plain TCP too on machines that are themselves virtual.

| module | passed plain | passed fused | connections fused |
|---|---|---|---|
"""


def _row(module: str, plain: Verdict, fused: Verdict) -> str:
    return f"| `{module}` | {len(plain.passed)} | {len(fused.passed)} | {fused.fused} |"


def main() -> None:
    rows = {}
    if PAGE.exists():
        rows = {match[1]: match[0] for match in _ROW.finditer(PAGE.read_text())}
    with tempfile.TemporaryDirectory() as directory:
        broker = BrokerProcess(Path(directory) / "broker.sock", "--idle-exit", "0")
        alone = Session({}, None)
        session = Session.under(library_path(), broker, eager=True)
        for module in sys.argv[1:] or [*SHORT, *LONG]:
            plain, fused = judge(module, alone), judge(module, session)
            rows[module] = _row(module, plain, fused)
            print(rows[module], *sorted(lost(plain, fused)), flush=True)
        broker.stop()
    python = subprocess.check_output([PYTHON, "--version"], text=True).strip()
    system = f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}"
    text = _HEAD.format(python=python, system=system)
    text += "".join(f"{rows[module]}\n" for module in [*SHORT, *LONG] if module in rows)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
