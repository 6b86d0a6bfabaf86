"""Finding the broker, starting one, and being started as one.

The starter takes the broker's lock, and the broker inherits it: there is no moment at
which nobody holds it and a second broker could slip in. The new broker forks once it
listens; its parent's exit is the starter's sign that it answers, and leaves the broker
to init, so that no program ever meets it among its children.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from loopfuse._errors import BrokerError, LoopfuseError, WireError
from loopfuse._kernel import peer_credentials
from loopfuse._wire import GUEST, MAX_PACKET, Hello, pack_hello, parse_from_broker

if TYPE_CHECKING:
    from loopfuse._broker import Options

_ANSWER_SECONDS = 3.0
_START_SECONDS = 10.0


def connect(path: Path, timeout: float) -> socket.socket | None:
    """A connection to the broker at `path`, with `timeout` seconds for each operation;
    None if nobody listens. Raises BrokerError if somebody does who should not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(timeout)
        sock.connect(os.fspath(path))
        _check_owner(path, sock)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise BrokerError(
            f"the broker at {path} can't be reached: {error.strerror or error}",
            hint="Set LOOPFUSE_BROKER to the socket of a broker that you may use.",
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _check_owner(path: Path, sock: socket.socket) -> None:
    uid = peer_credentials(sock).uid
    if uid not in (0, os.geteuid()) and not os.environ.get("LOOPFUSE_BROKER"):
        raise BrokerError(
            f"at {path} a program of another user (uid {uid}) answers",
            hint="Set LOOPFUSE_BROKER to a path of your own.",
        )


def answers(path: Path, *, guest: bool = False) -> bool:
    """Does a broker answer at `path`? It then stays for a `guest` until that process ends.
    Raises BrokerError if one is there but silent."""
    sock = connect(path, _ANSWER_SECONDS)
    if sock is None:
        return False
    with sock:
        try:
            sock.send(pack_hello(Hello(GUEST if guest else 0, os.getpid())))
            packet = sock.recv(MAX_PACKET)
            if packet:
                parse_from_broker(packet)
            return bool(packet)
        except TimeoutError as error:
            raise BrokerError(
                f"the broker at {path} (pid {peer_credentials(sock).pid}) does not answer",
                hint="Is it stopped? End it; the next `loopfuse run` starts a new one.",
            ) from error
        except WireError as error:
            raise BrokerError(
                f"what answers at {path} is not a broker of this version: {error.message}",
                hint="End it; the next `loopfuse run` starts a new one.",
            ) from error
        except OSError:
            return False  # it is just leaving


def start_unless_running(
    path: Path, policy: Path | None = None, metrics: str | None = None, *, guest: bool = False
) -> None:
    """Returns when a broker answers at `path`; `policy` and `metrics` are for one that is
    started, `guest` as in `answers`. Raises BrokerError if that can't be had."""
    from loopfuse._broker_state.listening import take_lock

    deadline = time.monotonic() + _START_SECONDS
    while not answers(path, guest=guest):
        lock = take_lock(path)
        if lock is not None:
            try:
                _start(path, lock, policy, metrics)
            finally:
                os.close(lock)
        elif time.monotonic() > deadline:
            raise BrokerError(
                f"a broker for {path} holds its lock, but does not come to listen",
                hint="Find it with `fuser` on the .lock file beside the socket, and end it.",
            )
        else:
            time.sleep(0.005)


def _start(path: Path, lock: int, policy: Path | None, metrics: str | None) -> None:
    import subprocess

    command = [sys.executable, "-m", "loopfuse._broker_start", os.fspath(path), str(lock)]
    command += ["" if policy is None else os.fspath(policy), metrics or ""]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_clean_environment(),
            pass_fds=[lock],
            start_new_session=True,
            timeout=_START_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"the broker could not be started: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1].rstrip(".") if said else "it said nothing"
        raise BrokerError(
            f"the broker could not be started: {why}",
            hint="`loopfuse broker` runs it in the foreground, where it says more.",
        )


def _clean_environment() -> dict[str, str]:
    """Ours without what is meant for the program to be run. It finds the same modules as
    we do, wherever we were started from."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "LD_PRELOAD" and not name.startswith(("LOOPFUSE_", "PYTHON"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        str(Path(entry).absolute()) for entry in sys.path if entry
    )
    return environment


def become_broker(arguments: list[str]) -> None:
    """The started process: listens, then forks; the parent's exit says that it does."""
    from loopfuse._broker import Broker, Options
    from loopfuse._broker_state.listening import Listening
    from loopfuse._broker_state.scrapes import parse_address
    from loopfuse._policy_file import choose_policy
    from loopfuse._runtime_dir import socket_mode

    path = Path(arguments[1])
    os.set_inheritable(int(arguments[2]), False)
    policy, metrics = arguments[3:]
    try:
        options = Options(
            policy=choose_policy(Path(policy) if policy else None),
            metrics=parse_address(metrics) if metrics else None,
        )
        # Before the fork: what it can't have, the starter is to hear of.
        broker = Broker(options)
        listening = Listening(path, socket_mode())
    except LoopfuseError as error:
        sys.exit(str(error))
    if os.fork():
        os._exit(0)
    _log_to(path.with_name(path.name + ".log"))
    broker.run(listening)


def _log_to(log: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(log, flags, 0o600)
    except OSError:
        fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(fd, 2, inheritable=False)
    os.close(fd)


def run_in_foreground(path: Path, options: Options) -> None:
    """Is the broker at `path` until it is idle or told to stop. Raises BrokerError if
    there is one already, and what stands in its way otherwise."""
    from loopfuse._broker import Broker
    from loopfuse._broker_state.listening import Listening, take_lock
    from loopfuse._runtime_dir import check_path, prepare_directory, socket_mode
    from loopfuse._segments import check_ring_size

    check_path(path)
    check_ring_size(options.ring_size)
    prepare_directory(path)
    _fill_stdio()
    lock = take_lock(path)
    if lock is None:
        raise BrokerError(
            f"a broker is running at {path} already",
            hint="Use that one, or give another path with --socket.",
        )
    try:
        broker = Broker(options)  # ready, signals too, before anybody can see it listen
        broker.run(Listening(path, socket_mode()))
    finally:
        os.close(lock)


def _fill_stdio() -> None:
    """Where standard streams are closed, no file of ours may get their numbers: the log would be
    written there."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return


if __name__ == "__main__":
    become_broker(sys.argv)
