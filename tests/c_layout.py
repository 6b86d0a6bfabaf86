"""What the C compiler says of csrc's headers, to compare Python's twins with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"


def values_of(headers: Sequence[str], expressions: Sequence[str], folder: Path) -> dict[str, int]:
    """Compiles and runs a program that prints each expression."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler")
        pytest.skip("no C compiler to ask (gcc)")
    lines = [f'#include "{header}"' for header in headers]
    lines += ["#include <stdio.h>", "int main(void) {"]
    lines += [f'printf("%llu\\n", (unsigned long long)({text}));' for text in expressions]
    lines += ["return 0; }"]
    source = folder / "layout.c"
    source.write_text("\n".join(lines))
    program = folder / "layout"
    subprocess.run([compiler, "-std=gnu11", f"-I{CSRC}", "-o", program, source], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True, timeout=10)
    return dict(zip(expressions, map(int, done.stdout.split()), strict=True))
