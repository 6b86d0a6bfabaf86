"""Where the preload library is, and the environment that loads it."""

from __future__ import annotations

import os
from pathlib import Path

LIBRARY_NAME = "libloopfuse.so"
LIBRARY_STEM = "libloopfuse"
"""What the file name of each build of the library starts with."""


def library_path() -> Path:
    """The library to preload.

    ``LOOPFUSE_LIBRARY`` names another build of it (the invariants or a sanitizer build);
    otherwise it is the one installed beside this module.
    """
    override = os.environ.get("LOOPFUSE_LIBRARY")
    return Path(override) if override else Path(__file__).with_name(LIBRARY_NAME)


def preload_environment(
    base: dict[str, str], broker: Path, *, eager: bool = False, after: int | None = None
) -> dict[str, str]:
    """A copy of ``base`` in which a program started with it loads the library.

    What was preloaded before stays, behind ours. libuv is told to set up no io_uring that
    the kernel takes requests from by itself: what those ask for no call tells the library.
    """
    environment = dict(base)
    others = [p for p in base.get("LD_PRELOAD", "").replace(":", " ").split() if p]
    ours = str(library_path())
    environment["LD_PRELOAD"] = ":".join([ours, *(p for p in others if p != ours)])
    environment["LOOPFUSE_BROKER"] = str(broker)
    environment["UV_USE_IO_URING"] = "0"
    environment.pop("LOOPFUSE_EAGER", None)
    if eager:
        environment["LOOPFUSE_EAGER"] = "1"
    if after is not None:
        environment["LOOPFUSE_AFTER"] = str(after)
    return environment
