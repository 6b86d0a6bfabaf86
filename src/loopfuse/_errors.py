"""Everything loopfuse raises on purpose.

A `LoopfuseError` is for a person to read: its message says what happened and to what,
its hint what to do next. The command line prints both and exits with `exit_code`; any
other exception that reaches it is a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopfuse._messages import DefuseAnswer


class LoopfuseError(Exception):
    """Base of all of them.

    `hint` is a sentence that says what to do now, or None.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}. {self.hint}"


class RuntimeDirError(LoopfuseError):
    """The directory of the broker's socket can't be used, or is not safe to use."""


class BrokerError(LoopfuseError):
    """The broker can't be started, or does not answer as it should."""


class NoBrokerError(BrokerError):
    """Nothing listens at the broker's socket."""


class WireError(LoopfuseError):
    """A packet that is not of the protocol in docs/protocol.md; its sender is dropped."""


class SegmentError(LoopfuseError):
    """A segment can't be made, or what is in one is not a segment."""


class SockDiagError(LoopfuseError):
    """The kernel's socket diagnostics (sock_diag(7)) refused a request."""


class TapError(LoopfuseError):
    """A tap can't begin, or can't go on."""


class FilterError(TapError):
    """A capture filter that libpcap does not understand, or there is no libpcap."""


class PolicyError(LoopfuseError):
    """A policy file can't be read, or says what it can't say; or another policy holds."""


class ProgramError(LoopfuseError):
    """A program is not there or can't be started."""


class SocketError(LoopfuseError):
    """A descriptor is not one of an open TCP socket."""


class DefuseError(LoopfuseError):
    """Connections could not be defused: they are not known, or belong to another user.

    `answers` says what became of each that was named.
    """

    def __init__(self, message: str, *, answers: list[DefuseAnswer], hint: str) -> None:
        super().__init__(message, hint=hint)
        self.answers = answers


class SubjectError(LoopfuseError):
    """`loopfuse why` was asked about something that is not on this host, or is no question."""


class MetricsError(LoopfuseError):
    """Metrics can't be served as asked for."""


class BenchError(LoopfuseError):
    """A measurement can't be made, or one of the programs in it failed."""
