"""loopfuse: TCP between two programs on one host, at the speed of shared memory.

    import loopfuse

    loopfuse.run(["redis-benchmark", "-p", "7000"], eager=True)
    for connection in loopfuse.connections():
        print(connection.id, connection.state, connection.reason)

docs/api.md has the whole. What goes wrong is a `LoopfuseError`, whose message says what happened
and to what, and whose `hint` what to do next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from loopfuse._version import __version__

if TYPE_CHECKING:
    from loopfuse._api import connections, defuse, environment, is_fused, run
    from loopfuse._errors import (
        BrokerError,
        DefuseError,
        FilterError,
        LoopfuseError,
        MetricsError,
        NoBrokerError,
        PolicyError,
        ProgramError,
        RuntimeDirError,
        SocketError,
        TapError,
    )
    from loopfuse._messages import DefuseAnswer, EndRow, FlowRow, WaitRow
    from loopfuse._messages import Row as Connection
    from loopfuse._tap.packet import Packet
    from loopfuse._tap.session import Tap, TapStatistics, tap

__all__ = [
    "BrokerError",
    "Connection",
    "DefuseAnswer",
    "DefuseError",
    "EndRow",
    "FilterError",
    "FlowRow",
    "LoopfuseError",
    "MetricsError",
    "NoBrokerError",
    "Packet",
    "PolicyError",
    "ProgramError",
    "RuntimeDirError",
    "SocketError",
    "Tap",
    "TapError",
    "TapStatistics",
    "WaitRow",
    "__version__",
    "connections",
    "defuse",
    "environment",
    "is_fused",
    "run",
    "tap",
]

_HOMES = {
    "Connection": ("loopfuse._messages", "Row"),
    "DefuseAnswer": ("loopfuse._messages", "DefuseAnswer"),
    "EndRow": ("loopfuse._messages", "EndRow"),
    "FlowRow": ("loopfuse._messages", "FlowRow"),
    "WaitRow": ("loopfuse._messages", "WaitRow"),
    **{name: ("loopfuse._api", name) for name in __all__ if name.islower()},
    **{name: ("loopfuse._errors", name) for name in __all__ if name.endswith("Error")},
    "Packet": ("loopfuse._tap.packet", "Packet"),
    "Tap": ("loopfuse._tap.session", "Tap"),
    "TapStatistics": ("loopfuse._tap.session", "TapStatistics"),
    "tap": ("loopfuse._tap.session", "tap"),
}


def __getattr__(name: str) -> object:
    """Loads what is asked for: `loopfuse run` starts other people's programs, and has no time
    for what it does not use."""
    if name not in _HOMES or name == "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
