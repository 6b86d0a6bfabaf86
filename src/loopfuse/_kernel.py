"""Where loopfuse's control plane calls Linux in ways the standard library has no name
for: numbers from the kernel's headers, one small function each.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

SO_COOKIE = 57
SO_NETNS_COOKIE = 71
_MFD_NOEXEC_SEAL = 0x8  # where vm.memfd_noexec is 2, no memfd without it
_CLONE_NEWNET = 0x40000000
_SOCKADDR_STORAGE = 128
_UCRED = struct.Struct("=iII")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Credentials(NamedTuple):
    """Who is behind a unix socket, as of its connect(2) or listen(2)."""

    pid: int
    """0 if that process is not visible in this PID namespace."""
    uid: int
    gid: int


def sealed_memfd(name: str, size: int, content: bytes = b"", at: int = 0) -> int:
    """A descriptor of `size` bytes of shared memory that can neither grow nor shrink.

    It holds `content` at `at`, the rest is zero and takes no memory until touched. Raises
    OSError as memfd_create(2) does.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)  # before Linux 6.3
    try:
        os.ftruncate(fd, size)
        if content:
            os.pwrite(fd, content, at)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def send_packet(sock: socket.socket, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """Sends one packet, with descriptors if any (SCM_RIGHTS, unix(7))."""
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    else:
        sock.send(data, socket.MSG_NOSIGNAL)


def peer_credentials(sock: socket.socket) -> Credentials:
    """SO_PEERCRED of a connected unix socket (unix(7))."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))


def socket_cookie(sock: socket.socket) -> int:
    """SO_COOKIE: a number no other socket of this boot has had or will have."""
    return _native(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))


def netns_cookie(sock: socket.socket) -> int:
    """SO_NETNS_COOKIE: the same of the socket's network namespace; 0 before Linux 5.14."""
    try:
        return _native(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))
    except OSError:
        return 0


def _native(raw: bytes) -> int:
    (value,) = struct.unpack("=Q", raw)
    return int(value)


def enter_netns(fd: int) -> None:
    """Moves the calling thread into the network namespace behind `fd` (setns(2)).

    The standard library has os.setns() only since CPython 3.12.
    """
    import ctypes  # 5 ms that only a broker with foreign namespaces has to pay

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def raise_descriptor_limit() -> int:
    """Raises RLIMIT_NOFILE's soft limit to the hard one; returns what now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def command_name(pid: int) -> str | None:
    """The name of a process as `ps` shows it; None if it is gone or hidden. A process may call
    itself anything: what would move a cursor or begin a new line is a question mark here."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").removesuffix("\n")
    except OSError:
        return None
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def executable_of(pid: int) -> str | None:
    """The path of a process's program; None if it is gone or hidden."""
    return _link(Path(f"/proc/{pid}/exe")).removesuffix(" (deleted)") or None


def user_of(pid: int) -> int | None:
    """The effective user id of a process; None if it is gone or hidden."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def network_namespace_of(pid: int | str) -> str | None:
    """What stands for the network namespace of a process (or of "self"), for comparing;
    None if it is gone or hidden."""
    return _link(Path(f"/proc/{pid}/ns/net")) or None


def environment_of(pid: int) -> dict[str, str] | None:
    """The environment a process was started with; None if one can't look."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def processes() -> Iterator[int]:
    """The ids of all processes one can see."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


IO_URING = "anon_inode:[io_uring]"
"""What a descriptor of an io_uring leads to."""
_TAKER = "SqThread:"


def descriptors_of(pid: int) -> set[str] | None:
    """What a process has open: paths, or names such as `socket:[inode]`; None if one can't
    look."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return {_link(Path(entry.path)) for entry in entries}
    except OSError:
        return None


def has_polled_ring(pid: int) -> bool:
    """Has the process an io_uring out of whose memory a thread of the kernel takes requests
    (IORING_SETUP_SQPOLL), so that no call tells of them? False if one can't look.

    Source: io_uring_setup(2); /proc/PID/fdinfo, io_uring_show_fdinfo() in Linux.
    """
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            rings = [entry.name for entry in entries if _link(Path(entry.path)) == IO_URING]
        infos = [Path(f"/proc/{pid}/fdinfo/{name}").read_text() for name in rings]
    except OSError:
        return False
    threads = [line.split()[-1] for info in infos for line in info.splitlines() if _TAKER in line]
    return any(thread != "-1" for thread in threads)


def socket_link(inode: int) -> str:
    """How a socket of this inode is named among descriptors."""
    return f"socket:[{inode}]"


def holds_socket(pid: int, inode: int) -> bool:
    """Does the process have the socket of that inode open? False if one can't look."""
    return socket_link(inode) in (descriptors_of(pid) or ())


def runs_as(pid: int, uid: int) -> bool:
    """Is that user all that the process runs as: no setuid program, nobody else's by now?"""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
    line = next((line for line in status.splitlines() if line.startswith("Uid:")), "")
    return line.split()[1:] == [str(uid)] * 4


def holders_of_sockets(inodes: Collection[int]) -> dict[int, list[int]]:
    """The other processes that hold each of these sockets, as far as this one may look. Walks
    all of /proc: milliseconds for a few hundred processes. The kernel keeps an
    inode for each descriptor that was looked at, until memory is short: so not at our own."""
    wanted = {socket_link(inode): inode for inode in inodes}
    holders: dict[int, list[int]] = {}
    for pid in processes():
        if pid == os.getpid():
            continue
        for link in (descriptors_of(pid) or set()) & wanted.keys():
            holders.setdefault(wanted[link], []).append(pid)
    return holders


def has_mapped(pid: int, name: str) -> bool | None:
    """Has the process mapped a file whose name starts so? None if one can't look."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return None
    return f"/{name}" in maps


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def query_socket_option(fd: int, level: int, option: int, request: bytes) -> bytes:
    """getsockopt(2) where the buffer also says what is asked for. Raises OSError.

    The standard library's getsockopt() hands in zeroes only, and 1024 bytes at most.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint(len(request))
    if libc.getsockopt(fd, level, option, buffer, ctypes.byref(length)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return buffer.raw[: length.value]


def socket_address(fd: int, *, peer: bool) -> bytes:
    """getsockname(2), or getpeername(2), as a struct sockaddr. Raises OSError.

    For a descriptor that somebody else's socket object may own: to make another object of it,
    socket.socket(fileno=...), can change its O_NONBLOCK (socket.setdefaulttimeout).
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_SOCKADDR_STORAGE)
    length = ctypes.c_uint(_SOCKADDR_STORAGE)
    ask = libc.getpeername if peer else libc.getsockname
    if ask(fd, buffer, ctypes.byref(length)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return buffer.raw[: length.value]
