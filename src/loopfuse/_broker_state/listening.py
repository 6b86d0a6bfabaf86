"""The broker's socket file.

Beside it lies a lock file, and whoever holds that lock (flock(2)) is the broker of this
path, or is about to be: only then may a socket file that is in the way be taken for
stale and removed. The kernel drops the lock with the broker's last breath, so nothing
ever needs to be cleaned up after a crash. The lock file itself stays: removing it would
let two processes hold two locks of one name.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

from loopfuse._errors import BrokerError

_BACKLOG = 4096


def lock_path(path: Path) -> Path:
    """The lock file of a socket path."""
    return path.with_name(path.name + ".lock")


def take_lock(path: Path) -> int | None:
    """Tries to become the broker of this path: the lock's descriptor, or None if
    somebody else is. Raises BrokerError if the lock file can't be made."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(lock_path(path), flags, 0o600)
    except OSError as error:
        raise BrokerError(
            f"the broker's lock file {lock_path(path)} can't be opened: {error.strerror}",
            hint="Set LOOPFUSE_BROKER to a path in a directory that you can write.",
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


class Listening:
    """The listening socket and its file. Needs the lock."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            _remove_stale(path)
            # Made unreachable first: the mode is right before anybody can connect.
            old = os.umask(0o177)
            try:
                self.socket.bind(os.fspath(path))
            finally:
                os.umask(old)
            path.chmod(mode)
            self._identity = _identity(path)
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.socket.close()
            raise BrokerError(
                f"the broker can't listen on {path}: {error.strerror or error}",
                hint="Set LOOPFUSE_BROKER to a path in a directory that you can write.",
            ) from error

    def close(self) -> None:
        """Stops listening and removes the file, if it still is ours."""
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except OSError:
            pass  # somebody tidied up before us
        self.socket.close()


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BrokerError(
            f"{path} is there already and is not a socket",
            hint="Move it away, or set LOOPFUSE_BROKER to another path.",
        )
    path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
