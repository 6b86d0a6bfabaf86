"""A network namespace of a test's own, with a loopback device that is up."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from loopfuse._kernel import enter_netns

_T = TypeVar("_T")
TOOLS = ("unshare", "nsenter", "ip", "tc", "nft", "iptables")


_NOT_IN_THIS_KERNEL = ("No such file or directory", "kind is unknown", "classifier not found")


class Namespace:
    """Lives as long as its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def prefix(self) -> list[str]:
        """Words to put before a command, to have it run in here."""
        return ["nsenter", "-t", str(self._process.pid), "-n"]

    def run(self, *command: str, given: str | None = None) -> str:
        done = subprocess.run(
            [*self.prefix, *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if any(words in done.stderr for words in _NOT_IN_THIS_KERNEL):
            pytest.skip(f"this kernel has not what this takes: {done.stderr.strip()}")
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def rules(self, text: str) -> None:
        """Replaces all of nftables' rules by these."""
        self.run("nft", "-f", "-", given="flush ruleset\n" + text)

    def inside(self, deed: Callable[[], _T]) -> _T:
        """Has a thread in here do it."""
        results: list[_T] = []
        fd = os.open(f"/proc/{self._process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        def go() -> None:
            enter_netns(fd)
            results.append(deed())

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        os.close(fd)
        return results[0]


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Skips the test where this user may not make one."""
    if os.geteuid() != 0:
        pytest.skip("making a network namespace needs root")
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    assert not missing, f"missing: {missing}; scripts/debian test installs them"
    command = ["unshare", "-n", "sh", "-c", "ip link set lo up && echo ready && exec sleep 1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Namespace(process)
    finally:
        process.kill()
        process.communicate(timeout=10)


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
