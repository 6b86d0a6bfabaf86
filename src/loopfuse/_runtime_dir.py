"""Where the broker's socket is, and making sure that somebody answers there.

An ordinary user's broker listens in $XDG_RUNTIME_DIR/loopfuse, or in
/tmp/loopfuse-UID where there is no such directory; both are the user's alone. Root's
broker is the system's: it listens in /run/loopfuse, which everybody may enter, so that
it also serves programs that root started and that changed their user. LOOPFUSE_BROKER
names another socket.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from loopfuse._errors import RuntimeDirError
from loopfuse._paths import is_folder

_SYSTEM_DIRECTORY = Path("/run/loopfuse")
_NAME = "broker.sock"
_SUN_PATH = 108  # unix(7), the closing zero included


def broker_path() -> Path:
    """The socket's path, whether or not anything is there. Raises RuntimeDirError if
    LOOPFUSE_BROKER holds something that can't be one."""
    override = os.environ.get("LOOPFUSE_BROKER")
    path = Path(override) if override else _directory() / _NAME
    check_path(path)
    return path


def check_path(path: Path) -> None:
    """Raises RuntimeDirError unless a socket can have this path."""
    if not path.is_absolute():
        raise RuntimeDirError(
            f"the broker's socket is given as {path}, which is not an absolute path",
            hint="Give the whole path, from / on.",
        )
    if len(os.fsencode(path)) >= _SUN_PATH:
        raise RuntimeDirError(
            f"the broker's socket path {path} is longer than the {_SUN_PATH - 1} bytes "
            "that a socket's path may have",
            hint="Set LOOPFUSE_BROKER to a shorter path.",
        )


def _directory() -> Path:
    if os.geteuid() == 0:
        return _SYSTEM_DIRECTORY
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and runtime.startswith("/") and _is_ours(Path(runtime)):
        return Path(runtime) / "loopfuse"
    return Path(f"/tmp/loopfuse-{os.geteuid()}")


def _is_ours(path: Path) -> bool:
    """XDG_RUNTIME_DIR may be another user's, left over from before `su`."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def prepare_directory(path: Path) -> None:
    """Makes sure that the directory of the socket `path` is there and safe: whoever else
    could write to it could answer in the broker's place. A directory that is not one
    of ours (LOOPFUSE_BROKER) is only required to exist. Raises RuntimeDirError."""
    folder = path.parent
    if folder != _directory():
        if not is_folder(folder):
            raise RuntimeDirError(
                f"there is no directory {folder} for the broker's socket",
                hint="Make it, or set LOOPFUSE_BROKER to another path.",
            )
        return
    mode = 0o755 if os.geteuid() == 0 else 0o700
    try:
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # whatever the umask took away
    except FileExistsError:
        pass
    except OSError as error:
        raise RuntimeDirError(
            f"the broker's directory {folder} can't be made: {error.strerror}",
            hint="Set LOOPFUSE_BROKER to a path in a directory that you can write.",
        ) from error
    _check_directory(folder, mode)


def _check_directory(folder: Path, mode: int) -> None:
    status = folder.lstat()
    wrong = None
    if not stat.S_ISDIR(status.st_mode):
        wrong = "is not a directory"
    elif status.st_uid != os.geteuid():
        wrong = f"belongs to another user (uid {status.st_uid})"
    elif stat.S_IMODE(status.st_mode) & ~mode:
        wrong = f"can be entered by others (mode {stat.S_IMODE(status.st_mode):o})"
    if wrong:
        raise RuntimeDirError(
            f"{folder} is where the broker's socket should be, but it {wrong}",
            hint="Have it removed, or set LOOPFUSE_BROKER to a path of your own.",
        )


def socket_mode() -> int:
    """The mode of the socket file: root's broker serves everybody."""
    return 0o666 if os.geteuid() == 0 else 0o600


def ensure_broker(policy: Path | None = None, metrics: str | None = None) -> Path:
    """The path of a socket at which a broker answers; starts one if none does, with that
    policy file and with metrics at that address. It stays at least as long as this process,
    which may become another program (`loopfuse run`) or start some.

    Safe against being called by many processes at once: one of them starts it. Raises
    RuntimeDirError or BrokerError, after some seconds at the latest.
    """
    from loopfuse._broker_start import start_unless_running

    path = broker_path()
    prepare_directory(path)
    start_unless_running(path, policy, metrics, guest=True)
    return path
