"""One party: reads what to do from its standard input, line by line, answers each line.

A long-lived process that forks for each program, so that a program starts with nothing
open, may hang or be killed, and costs no start of an interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from differential.deeds import Deeds

Request = dict[str, Any]
Answer = dict[str, Any]
_TURNS = 1000
_ASLEEP = 4
"""Looks in a row, between which it would have got the interpreter's lock, if it was that."""


class Call:
    """A step in a thread of its own, since it may block."""

    def __init__(self, deed: Callable[[], Any]) -> None:
        self._deed = deed
        self._done = threading.Event()
        self._result: Any = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._deed()
        except OSError as error:
            self._result = f"OSError {error.errno}"
        except Exception:
            # A mistake of the tester's, not of the program's: the director must not go on.
            self._result = {"mistake": traceback.format_exc()}
        self._done.set()

    def answer(self, seconds: float) -> Answer:
        """Once it has returned, or is blocked: asleep so long after the request. On a machine with
        much other work, that it has not returned need not mean that."""
        done = self._done.wait(seconds)
        asleep = 0
        for _ in range(_TURNS):
            if done or asleep == _ASLEEP:
                break
            asleep = asleep + 1 if self._sleeps() else 0
            done = self._done.wait(0.002)
        return {"done": True, "result": self._result} if done else {"done": False}

    def _sleeps(self) -> bool:
        try:
            stat = Path(f"/proc/self/task/{self.thread.native_id}/stat").read_text()
        except OSError:
            return True
        return stat.rpartition(") ")[2][0] not in "RD"


class Child:
    """A forked process that holds the same descriptors and takes steps too."""

    def __init__(self, party: Party) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours[1])
            os.close(theirs[0])
            party.calls.clear()
            party.child = None
            party.serve(ours[0], theirs[1])
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]

    def relay(self, request: Request) -> Answer:
        write_line(self._write, request)
        answer: Answer = json.loads(read_line(self._read) or '{"done": true, "result": "died"}')
        return answer

    def finish(self, how: str) -> Answer:
        if how == "kill":
            os.kill(self.pid, signal.SIGKILL)
        else:
            write_line(self._write, {"do": "end"})
        _, status = os.waitpid(self.pid, 0)
        os.close(self._write)
        os.close(self._read)
        return {"done": True, "result": status}


class Party:
    def __init__(self) -> None:
        self.deeds = Deeds()
        self.calls: dict[int, Call] = {}
        self.child: Child | None = None

    def serve(self, read: int, write: int) -> None:
        """Does not return."""
        while line := read_line(read):
            request = json.loads(line)
            if request["do"] == "end":
                break
            write_line(write, self._answer(request))
        os._exit(0)

    def _answer(self, request: Request) -> Answer:
        if request.pop("child", False):
            return self.child.relay(request) if self.child else {"done": True, "result": "nobody"}
        match request["do"]:
            case "fork":
                self.child = Child(self)
                return {"done": True, "result": "forked"}
            case "end child":
                assert self.child
                child, self.child = self.child, None
                return child.finish(request["how"])
            case "signal":
                return self._interrupt(request)
            case "join":
                answer = self.calls[request["id"]].answer(request["window"])
            case _:
                call = Call(self.deeds.prepare(request))
                self.calls[request["id"]] = call
                answer = call.answer(request["window"])
        return answer | {"signals": self.deeds.signals_seen()}

    def _interrupt(self, request: Request) -> Answer:
        signal.siginterrupt(signal.SIGUSR1, not request["restart"])
        ident = self.calls[request["target"]].thread.ident
        assert ident
        signal.pthread_kill(ident, signal.SIGUSR1)
        return {"done": True, "result": "sent"}


def read_line(fd: int) -> bytes:
    """One line, and not a byte more: what follows may be for another process. Empty: the
    end."""
    line = b""
    while not line.endswith(b"\n"):
        if not (part := os.read(fd, 1 << 16)):
            return b""
        line += part
    return line


def write_line(fd: int, what: Request | Answer) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def main() -> None:
    while line := read_line(0):
        assert json.loads(line)["do"] == "start"
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            write_line(1, {"pid": os.getpid()})
            Party().serve(0, 1)
        _, status = os.waitpid(pid, 0)
        write_line(1, {"ended": status})


if __name__ == "__main__":
    sys.exit(main())
