"""What lies at a path. Of one that leads through a directory that one may not look into, as of one
that is not there, the answer is no; pathlib raises PermissionError there before Python 3.14.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def is_there(path: Path) -> bool:
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def may_be_there(path: Path) -> bool:
    """False: it is surely not. Of one that can't be looked at, who opens it says what is wrong."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def whole(path: Path) -> Path:
    """The path from / on. Raises RuntimeDirError if it begins at a directory that is gone."""
    try:
        return path.absolute()
    except OSError as error:
        from loopfuse._errors import RuntimeDirError

        raise RuntimeDirError(
            f"{os.fspath(path)} begins at the current directory, which is gone",
            hint="Give the whole path, from / on.",
        ) from error
