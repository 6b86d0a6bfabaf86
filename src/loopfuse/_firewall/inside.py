"""A network namespace to come back to: some of what the kernel tells depends on who asks where."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from loopfuse._kernel import enter_netns

Answer = TypeVar("Answer")


class Inside:
    """The namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._is_home = Path("/proc/thread-self/ns/net").samefile("/proc/self/ns/net")

    def close(self) -> None:
        os.close(self._namespace)

    def call(self, ask: Callable[[], Answer]) -> Answer | None:
        """What `ask` returns in this namespace, in a thread of its own if that is not the
        process's; None if that thread can't get there, or `ask` raises OSError."""
        if not self._is_home:
            return call_in(self._namespace, ask)
        with contextlib.suppress(OSError):
            return ask()
        return None


def call_in(namespace_fd: int, ask: Callable[[], Answer]) -> Answer | None:
    """What `ask` returns in a network namespace, in a thread of its own that goes there and ends;
    None if it can't get there, or `ask` raises OSError."""
    answers: list[Answer] = []

    def go() -> None:
        with contextlib.suppress(OSError):
            enter_netns(namespace_fd)
            answers.append(ask())

    thread = threading.Thread(target=go, name="loopfuse-inside")
    thread.start()
    thread.join()
    return answers[0] if answers else None
