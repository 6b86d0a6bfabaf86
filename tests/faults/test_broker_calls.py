"""Each system call of the broker fails, in each way the kernel knows: it answers or declines,
and lives on."""

from __future__ import annotations

import errno
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker_fixtures import BrokerProcess, FakeLibrary, eventually, tcp_pair
from faults.control import Control, Order, Special
from loopfuse import _wire as wire

SEED, SAMPLE = 6, 10
FOUND = {
    ("epoll_ctl", errno.ENOSPC),
    ("recv", errno.ENOBUFS),
    ("send", errno.ENOBUFS),
    ("pwrite64", errno.ENOSPC),
    ("pread64", errno.EIO),
    ("poll", errno.ENOMEM),
}
"""What the broker did not survive once, or only to refuse every claim then. Often tried."""
PATIENCE = 2.0
"""Seconds until a client has waited in vain. The broker answers in some ms."""
_MEMORY = (errno.ENOMEM,)
NO_FAULTS = {"close", "epoll_wait"}
"""Of sockets and memory files the first never fails; the second takes no memory."""
ANSWERS: dict[str, tuple[int, ...]] = {
    "accept4": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR),
    "recv": (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ECONNRESET),
    "send": (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.EPIPE, errno.ECONNREFUSED),
    "sendmsg": (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.EPIPE, errno.ETOOMANYREFS),
    "memfd_create": (errno.EMFILE, errno.ENFILE, errno.EINVAL),
    "ftruncate64": (errno.ENOSPC, errno.EINTR),
    "pwrite64": (errno.ENOSPC, errno.EINTR, Special.SHORT),
    "fcntl": (errno.EINVAL, errno.EMFILE),
    "socketpair": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
    "socket": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
    "epoll_ctl": (errno.ENOSPC,),
    "pread64": (errno.EIO, Special.SHORT),
    "getsockopt": (errno.ENOBUFS,),
    "getsockname": (errno.ENOBUFS,),
    "ioctl": (),
    "poll": (errno.EINTR,),
    "open": (errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES),
    "read": (errno.EINTR, errno.EIO, errno.ESRCH, Special.SHORT),
    "write": (errno.ENOSPC, errno.EAGAIN, errno.EIO, Special.SHORT),
    "dup": (errno.EMFILE,),
    "fstat": (),
    "lseek": (),
}


class Fault(NamedTuple):
    order: Order

    def __str__(self) -> str:
        order = self.order
        how = errno.errorcode.get(order.error) or Special(order.error).name
        return f"{how} for {order.name}, call {order.nth}"


def faults_of(calls: Counter[str]) -> Iterator[Fault]:
    for name, count in sorted(calls.items()):
        if name not in ANSWERS:
            continue
        for error in (*ANSWERS[name], *_MEMORY):
            for nth in range(1, count + 1):
                yield Fault(Order(0, name, error, nth))


class Spoilt:
    """A broker whose calls can be made to fail."""

    def __init__(self, folder: Path, injector: Path, control: Control) -> None:
        log = str(folder / "log")
        self.broker = BrokerProcess(
            folder / "broker.sock", "--idle-exit", "0", "--log-level", "debug", "--log", log,
            prefix=control.prefix(injector),
        )  # fmt: skip
        self._control = control

    def calls_of_a_dialog(self) -> Counter[str]:
        self.dialog()
        before = self._control.calls_by_name()
        assert self.dialog() == "fused"
        return self._control.calls_by_name() - before

    def has_ended(self) -> bool:
        try:
            self.broker.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return False
        return True

    def dialog(self) -> str:
        """Two libraries claim the ends of a connection, a command line asks; what came of it."""
        made: list[FakeLibrary] = []
        try:
            with tcp_pair() as pair:
                for sock, side in (
                    (pair.client, wire.Side.CLIENT),
                    (pair.server, wire.Side.SERVER),
                ):
                    made.append(_Patient(self.broker.path))
                    made[-1].greet()
                    made[-1].claim(sock, side)
                bodies = [library.receive().body for library in made]
                made[0].send(b'{"request":"ps"}')
                if not made[0].socket.recv(1 << 16).startswith(b'{"rows"'):
                    raise EOFError
                return "fused" if all(isinstance(b, wire.Fuse) for b in bodies) else "declined"
        except TimeoutError:
            return "no answer"
        except (EOFError, OSError):
            return "dropped"
        finally:
            for library in made:
                library.close()


class _Patient(FakeLibrary):
    """Waits for less long, and greets when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, greet=False)
        self.socket.settimeout(PATIENCE)


@pytest.mark.timeout(3600)
def test_the_broker_survives_every_failure_of_its_calls(
    tmp_path: Path, injector: Path, all_faults: bool
) -> None:
    outcomes: Counter[str] = Counter()
    findings = []
    with Control(tmp_path / "control") as control:
        spoilt = Spoilt(tmp_path, injector, control)
        calls = spoilt.calls_of_a_dialog()
        assert set(calls) <= NO_FAULTS | set(ANSWERS), "a call that nobody has thought about"
        faults = list(faults_of(calls))
        if not all_faults:
            found = [one for one in faults if (one.order.name, one.order.error) in FOUND]
            faults = found[::2] + random.Random(SEED).sample(faults, SAMPLE)
        before = spoilt.broker.descriptors()
        for fault in faults:
            control.give(fault.order)
            outcome = spoilt.dialog()
            outcomes[outcome] += 1
            outcomes["calls failed"] += control.fired()
            control.give(Order(0, "", 0, nth=0))
            after = spoilt.dialog()
            if after != "fused" and spoilt.has_ended():
                findings.append(f"{fault}: the broker ended: {spoilt.broker.stop()[1][-500:]}")
                spoilt = Spoilt(tmp_path, injector, control)
            elif after != "fused":
                findings.append(f"{fault}: {outcome}, and then: {after}")
        print(len(faults), dict(outcomes), f"{len(findings)} findings")
        try:
            eventually(lambda: spoilt.broker.descriptors() <= before, "it lets go")
        finally:
            code, said = spoilt.broker.stop()
    assert not findings, "\n".join(findings)
    assert code == 0 and "Traceback" not in said, said
