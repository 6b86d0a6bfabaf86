"""What a suite said of one run."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Verdict:
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    fused: int = 0
    """Connections that carried payload in rings."""


def read_junit(path: Path) -> Verdict:
    """From a report as JUnit has it, which many test runners can write."""
    verdict = Verdict()
    for case in ElementTree.parse(path).iter("testcase"):
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        if case.find("failure") is not None or case.find("error") is not None:
            verdict.failed.add(name)
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            verdict.skipped.add(name)
        else:
            verdict.passed.add(name)
    return verdict


def lost(plain: Verdict, fused: Verdict) -> set[str]:
    """What passes plain and does not pass fused."""
    return plain.passed - fused.passed
