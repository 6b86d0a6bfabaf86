"""One line in the log for each decision about a connection: who claimed it, that it was paired,
that it was not and why, that it went back to TCP and why, that it closed. Addresses, programs,
counts and reasons; never payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopfuse._reasons import Reason

if TYPE_CHECKING:
    from loopfuse._broker_state.client import Client
    from loopfuse._broker_state.ledger import Connection, End
    from loopfuse._broker_state.log import Log
    from loopfuse._matching import Endpoint
    from loopfuse._messages import Row


class Decisions:
    """Tells them to the log, at level info."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.told = log.takes("info")
        """Is anybody told?"""

    def claimed(self, connection: Connection, end: End) -> None:
        """An end wants to be fused, and the kernel confirms that it is one."""
        if self.told:
            self._say(connection, f"claimed by {end.client.describe()}, {_way(connection, end)}")

    def refused(self, client: Client, reason: Reason) -> None:
        """A claim is of no connection that the broker can see."""
        if self.told:
            self._log.info(f"claim of {client.describe()} refused, {reason.code}")

    def declined(self, connection: Connection, reason: Reason, detail: str, by: Client) -> None:
        """It will not be fused; `by` is whose claim or word it was."""
        if self.told:
            rule = f" ({detail})" if detail else ""
            self._say(connection, f"not fused, {reason.code}{rule}; told {by.describe()}")

    def withdrawn(self, connection: Connection, reason: Reason, by: Client) -> None:
        """A library says that its end can't be fused."""
        if self.told:
            self._say(connection, f"not fused, {reason.code}, says {by.describe()}")

    def paired(self, connection: Connection, ring_size: int) -> None:
        """Both ends have got their segment."""
        if self.told:
            names = " and ".join(end.client.describe() for end in connection.ends.values())
            self._say(connection, f"paired, {names}, rings of {ring_size} bytes")

    def defused(self, connection: Connection, reason: Reason, detail: str) -> None:
        """It is ordered back to TCP, or a library has said that it goes."""
        connection.end_told = True
        if self.told:
            self._say(connection, f"defused, {reason.code}: {detail}")

    def noticed(self, connection: Connection, row: Row) -> None:
        """Its segment says that an end went back to TCP of its own accord."""
        connection.end_told = True
        if self.told:
            self._say(connection, f"defused, {row.reason}")

    def closed(self, connection: Connection, row: Row) -> None:
        """A pair whose sockets nobody holds any more."""
        if not self.told:
            return
        why = (
            f", after it was defused, {row.reason}"
            if row.reason and not connection.end_told
            else ""
        )
        carried = f"{row.bytes_to_server} bytes to the server, {row.bytes_to_client} to the client"
        self._say(connection, f"closed{why}; through the rings went {carried}")

    def _say(self, connection: Connection, what: str) -> None:
        self._log.info(f"connection {connection.id}: {what}")


def _way(connection: Connection, end: End) -> str:
    other = connection.name.other(end.endpoint)
    return f"{_where(end.endpoint)} to {_where(other)}"


def _where(end: Endpoint) -> str:
    return f"{end.text()}:{end.port}" if end.is_ipv4 else f"[{end.text()}]:{end.port}"
