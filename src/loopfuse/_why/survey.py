"""One look at every connection of this host that matters to the asker."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple

from loopfuse._control import fetch_rows, reach
from loopfuse._errors import LoopfuseError, SubjectError
from loopfuse._kernel import netns_cookie, peer_credentials
from loopfuse._listings import WhyRow
from loopfuse._matching import Endpoint
from loopfuse._messages import EndRow, Row
from loopfuse._sockdiag import SockDiag, TcpSocket
from loopfuse._why.holders import Census
from loopfuse._why.judge import Surroundings, judge
from loopfuse._why.links import End, Link, Listeners, brokers_of, links_of
from loopfuse._why.namespaces import is_local, sockets_here, sockets_of
from loopfuse._why.subject import Subject

_Address = tuple[str, int]
_PATIENCE = 1.0
"""Seconds for a broker, one of many, to let us connect."""


class Result(NamedTuple):
    """`note` says, where there are no rows, what is known of the subject."""

    rows: list[WhyRow]
    note: str | None


class _BrokerView:
    """What one broker knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: str | None = None
        """Why it can't tell; None: it can."""
        self.crosses_users = False
        self._rows: dict[frozenset[_Address], list[Row]] = {}
        try:
            with reach(path, _PATIENCE) as sock:
                self.crosses_users = peer_credentials(sock).uid == 0
            rows = fetch_rows(path)
        except LoopfuseError as error:
            self.failure = str(error)  # none, somebody else's, of another version, or hanging
            return
        for row in rows:
            if row.state != "closed":
                ends = frozenset((end.addr, end.port) for end in (row.client, row.server))
                self._rows.setdefault(ends, []).append(row)

    def find(self, link: Link, home: int) -> Row | None:
        """Its row of this connection; `home` is the cookie of our namespace."""
        ends = frozenset((end.endpoint.text(), end.endpoint.port) for end in link.ends)
        for row in self._rows.get(ends, ()):
            if link.namespace is None:
                if row.netns_cookie == home:
                    return row
            elif row.netns_cookie != home and _has_holder_of(row, link):
                return row
        return None


def _is_swapped(link: Link, row: Row) -> bool:
    """The broker was told who called connect(2)."""
    client = link.client.endpoint
    return (client.text(), client.port) != (row.client.addr, row.client.port)


def _has_holder_of(row: Row, link: Link) -> bool:
    """Another namespace has no cookie one could read, but its processes are known."""
    pids = {process.pid for end in link.ends for process in end.holders}
    return row.client.pid in pids or row.server.pid in pids


class Survey:
    """Everything as it is at the moment this is made. Raises SockDiagError."""

    def __init__(self, broker: Path) -> None:
        self._broker = broker
        self._census = Census()
        self._tables: dict[str | None, list[TcpSocket]] = {None: sockets_here()}
        for namespace, pid in self._census.other_namespaces().items():
            self._tables[namespace] = sockets_of(pid)
        self._home = _home_cookie()
        self._views: dict[Path, _BrokerView] = {}
        self._local: dict[bytes, bool] = {}
        self._known = {
            (space, one.local, one.remote) for space, table in self._tables.items() for one in table
        }

    def look(self, subject: Subject | None) -> Result:
        """The connections that concern `subject`; None: all of this user's, or everybody's if
        that is root. Raises SubjectError if nothing on this host is what was asked about."""
        links = self._links(subject)
        links.sort(key=lambda link: (link.server.endpoint.port, link.client.endpoint.port))
        if links:
            return Result([self._row(link) for link in links], None)
        return Result([], self._describe(subject))

    def programs(self) -> set[str]:
        """Names of programs at the ends of what `look(None)` shows. Asks no broker."""
        holders = [end.holders[0] for link in self._links(None) for end in link.ends if end.holders]
        return {holder.comm for holder in holders if holder.comm}

    def _links(self, subject: Subject | None) -> list[Link]:
        return [
            link
            for space, table in self._tables.items()
            for link in links_of(space, table, self._census)
            if self._concerns(link, subject)
        ]

    @staticmethod
    def _concerns(link: Link, subject: Subject | None) -> bool:
        if subject is not None:
            return subject.fits(link)
        return os.geteuid() == 0 or link.concerns_user(os.geteuid())

    # -- one connection -------------------------------------------------------------

    def _row(self, link: Link) -> WhyRow:
        view, row = self._broker_of(link)
        if row is not None and _is_swapped(link, row):
            link = link._replace(client=link.server, server=link.client)
        client, server = (self._end_row(end) for end in link.ends)
        if row is None or row.state == "closed":
            causes = judge(link, self._surroundings(link, view, None))
            return WhyRow("plain", None, None, client, server, causes)
        causes = []
        if row.state != "fused":
            causes = judge(link, self._surroundings(link, view, row))
        return WhyRow(row.state, row.id, str(view.path), client, server, causes)

    def _broker_of(self, link: Link) -> tuple[_BrokerView, Row | None]:
        """The broker that knows the connection; else the one its programs go by, else ours."""
        paths = [*map(Path, brokers_of(link)), self._broker]
        for path in paths:
            row = self._view(path).find(link, self._home)
            if row is not None:
                return self._view(path), row
        return self._view(paths[0]), None

    def _view(self, path: Path) -> _BrokerView:
        if path not in self._views:
            self._views[path] = _BrokerView(path)
        return self._views[path]

    def _surroundings(self, link: Link, view: _BrokerView, row: Row | None) -> Surroundings:
        lost = next((end.endpoint for end in link.ends if end.socket is None), None)
        return Surroundings(
            row,
            str(view.path),
            view.failure,
            view.crosses_users,
            lost is None or self._is_local(lost),
            lost is not None and self._is_abroad(link),
            {end.uid: _user_name(end.uid) for end in link.ends if end.uid is not None},
        )

    def _is_local(self, address: Endpoint) -> bool:
        if address.addr not in self._local:
            self._local[address.addr] = is_local(address)
        return self._local[address.addr]

    def _is_abroad(self, link: Link) -> bool:
        """Is a socket with the mirrored addresses in another namespace?"""
        one, other = link.client, link.server
        if one.socket is None:
            one, other = other, one
        return any(
            space != link.namespace and (space, other.endpoint, one.endpoint) in self._known
            for space in self._tables
        )

    def _end_row(self, end: End) -> EndRow:
        process = end.holders[0] if end.holders else None
        where = end.endpoint.text(), end.endpoint.port
        if process is None:
            return EndRow(None, None, end.uid, *where)
        return EndRow(process.pid, process.comm, end.uid, *where)

    # -- nothing found --------------------------------------------------------------

    def _describe(self, subject: Subject | None) -> str:
        if subject is None:
            return "You have no TCP connections."
        found = [one for one in self._census.processes if subject.fits_process(one)]
        if found:
            names = ", ".join(f"{one.comm or '?'} (pid {one.pid})" for one in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            loaded = "under" if any(one.has_library for one in found) else "not under"
            return f"{names}{more}: running, {loaded} loopfuse, without a TCP connection."
        for table in self._tables.values():
            listening = Listeners(table).at_port(subject.port) if subject.port else []
            for one in listening:
                who = next((p.comm for p in self._census.holders(one.inode)), None) or "somebody"
                return f"{who} listens at port {subject.port}; nobody is connected to it."
        raise SubjectError(_nothing(subject), hint="`loopfuse why` alone lists all of yours.")


def _nothing(subject: Subject) -> str:
    if subject.program is not None:
        return f"no program called {subject.program} is running that you may look into"
    if subject.pid is None:
        return f"no TCP socket here has port {subject.port}"
    what = f"no process you may look into has the id {subject.pid}"
    return f"{what}, and no TCP socket here has that port" if subject.port else what


def _home_cookie() -> int:
    diag = SockDiag()
    try:
        return netns_cookie(diag.socket)
    finally:
        diag.close()


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
