"""Who asks for the metrics, over HTTP: a small part of HTTP/1.0, in the broker's own loop.

Nothing here waits for anybody. A visitor has a few seconds and a few kilobytes for its
request, and when there are too many the oldest goes: what they cost the broker is bounded,
however slow or hostile they are. The libraries' servers take a thread for each visitor, for as
long as it likes.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from loopfuse._errors import MetricsError

DEFAULT_HOST = "127.0.0.1"
MOST_VISITORS = 16
PATIENCE = 5.0
"""Seconds for one visit."""
_LONGEST_REQUEST = 8192
_AT_ONCE = 16
_NO_DESCRIPTORS_PAUSE = 1.0
_PAGE = b"loopfuse's metrics are at /metrics\n"


class Address(NamedTuple):
    """Where to listen; port 0: any."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def is_at(self, served: str | None) -> bool:
        """Is that where `served` is, which a broker has told (None: nowhere)? Raises
        MetricsError if the host is not known."""
        if served is None:
            return False
        there = parse_address(served)
        host = _find(self)[4][0]
        return host == there.host and self.port in (0, there.port)


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[HOST]:PORT`, `:PORT` or `PORT`. Raises MetricsError."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise MetricsError(
            f"{text!r} is no address for metrics", hint="Write an IPv6 one as [HOST]:PORT."
        )
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise MetricsError(
            f"{text!r} is no address for metrics",
            hint=f"Give HOST:PORT, or a PORT from 0 to 65535 alone for {DEFAULT_HOST}.",
        )
    return Address(host or DEFAULT_HOST, int(port))


class _Visitor:
    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.until = time.monotonic() + PATIENCE
        self.request = bytearray()
        self.answer: memoryview | None = None


class Scrapes:
    """Listens at once. `text` makes the metrics; `content_type` says what they are. Raises
    MetricsError if the address can't be had."""

    def __init__(
        self, address: Address, text: Callable[[], bytes], content_type: str, epoll: select.epoll
    ) -> None:
        self._text = text
        self._content_type = content_type
        self._epoll = epoll
        self._visitors: dict[int, _Visitor] = {}
        self._listener = _listen(address)
        self._paused_until: float | None = None
        name = self._listener.getsockname()
        self.address = Address(name[0], name[1])
        epoll.register(self._listener, select.EPOLLIN)

    def owns(self, fd: int) -> bool:
        return fd in self._visitors or fd == self._listener.fileno()

    def serve(self, fd: int) -> None:
        """Something has happened there."""
        if fd == self._listener.fileno():
            self._accept()
            return
        visitor = self._visitors.get(fd)
        if visitor is None:
            return
        try:
            if visitor.answer is None:
                self._read(visitor)
            if visitor.answer is not None:
                self._write(visitor)
        except BlockingIOError:
            pass
        except OSError:
            self._leave(visitor)

    def due(self) -> float | None:
        """When `run` wants to be called; None: not before something happens."""
        times = [visitor.until for visitor in self._visitors.values()]
        if self._paused_until is not None:
            times.append(self._paused_until)
        return min(times, default=None)

    def run(self) -> None:
        """Shows out those whose time is up."""
        now = time.monotonic()
        for visitor in [v for v in self._visitors.values() if v.until <= now]:
            self._leave(visitor)
        if self._paused_until is not None and self._paused_until <= now:
            self._paused_until = None
            self._epoll.register(self._listener, select.EPOLLIN)

    def close(self) -> None:
        for visitor in list(self._visitors.values()):
            self._leave(visitor)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    # It would be announced for ever: try again later.
                    self._paused_until = time.monotonic() + _NO_DESCRIPTORS_PAUSE
                    self._epoll.unregister(self._listener)
                return
            sock.setblocking(False)
            if len(self._visitors) >= MOST_VISITORS:
                self._leave(next(iter(self._visitors.values())))
            self._visitors[sock.fileno()] = _Visitor(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def _read(self, visitor: _Visitor) -> None:
        data = visitor.socket.recv(_LONGEST_REQUEST)
        if not data:
            self._leave(visitor)
            return
        visitor.request += data
        if len(visitor.request) > _LONGEST_REQUEST:
            self._answer(visitor, "431 Request Header Fields Too Large", b"")
        elif b"\r\n\r\n" in visitor.request or b"\n\n" in visitor.request:
            self._take(visitor)

    def _take(self, visitor: _Visitor) -> None:
        line = bytes(visitor.request).split(b"\n", 1)[0].strip().split()
        if len(line) != 3 or not line[2].startswith(b"HTTP/1."):
            self._answer(visitor, "400 Bad Request", b"This is HTTP/1.\n")
            return
        method, target = line[0], line[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            self._answer(visitor, "405 Method Not Allowed", b"Only GET.\n", ("Allow: GET, HEAD",))
            return
        bare = method == b"HEAD"
        if target == b"/metrics":
            kind = (f"Content-Type: {self._content_type}",)
            self._answer(visitor, "200 OK", self._text(), kind, bare=bare)
        elif target == b"/":
            self._answer(visitor, "200 OK", _PAGE, bare=bare)
        else:
            self._answer(visitor, "404 Not Found", _PAGE, bare=bare)

    def _answer(
        self,
        visitor: _Visitor,
        status: str,
        body: bytes,
        headers: tuple[str, ...] = (),
        *,
        bare: bool = False,
    ) -> None:
        """`bare`: without the body, which HEAD asks for."""
        if not any(header.startswith("Content-Type") for header in headers):
            headers = (*headers, "Content-Type: text/plain; charset=utf-8")
        lines = [f"HTTP/1.0 {status}", *headers, f"Content-Length: {len(body)}"]
        lines += ["Connection: close", "", ""]
        visitor.answer = memoryview("\r\n".join(lines).encode() + (b"" if bare else body))
        self._epoll.modify(visitor.socket, select.EPOLLOUT)

    def _write(self, visitor: _Visitor) -> None:
        assert visitor.answer is not None
        sent = visitor.socket.send(visitor.answer)
        visitor.answer = visitor.answer[sent:]
        if not visitor.answer:
            self._leave(visitor)

    def _leave(self, visitor: _Visitor) -> None:
        self._visitors.pop(visitor.socket.fileno(), None)
        with contextlib.suppress(OSError):
            visitor.socket.shutdown(socket.SHUT_WR)
        visitor.socket.close()


_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


def _find(address: Address) -> _Found:
    """What its host's name stands for."""
    try:
        return socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise _unusable(address, error) from error


def _listen(address: Address) -> socket.socket:
    family, kind, protocol, _, where = _find(address)
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(address, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(MOST_VISITORS)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _unusable(address, error) from error
    return sock


def _unusable(address: Address, error: OSError | UnicodeError) -> MetricsError:
    why = error.strerror if isinstance(error, OSError) else None
    return MetricsError(
        f"metrics can't be served at {address}: {why or error}",
        hint="Give another HOST:PORT with --metrics.",
    )
