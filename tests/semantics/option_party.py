"""One end of connections, driven by a test line by line; knows nothing of loopfuse.

Each line of standard input is a JSON list of steps, each a list whose head names a function
below; the answer is a line with the list of their results. A failed call gives its errno's
name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
SOCKETS: dict[str, socket.socket] = {}
KEPT: list[Any] = []
SIGNALS: list[int] = []
PATIENCE_MS = 8000
NOBODY_TOLD = -1

Result = int | str | list[int] | None


def failed() -> str:
    return errno.errorcode[ctypes.get_errno()]


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def new(name: str, host: str) -> Result:
    SOCKETS[name] = socket.socket(family_of(host), socket.SOCK_STREAM)
    return None


def listen(name: str, host: str) -> Result:
    SOCKETS[name].bind((host, 0))
    SOCKETS[name].listen(8)
    port: int = SOCKETS[name].getsockname()[1]
    return port


def connect(name: str, host: str, port: int) -> Result:
    SOCKETS[name].connect((host, port))
    own: int = SOCKETS[name].getsockname()[1]
    return own


def accept(name: str, listener: str) -> Result:
    SOCKETS[name], _ = SOCKETS[listener].accept()
    return None


def close(name: str) -> Result:
    SOCKETS.pop(name).close()
    return None


def classic_filter() -> bytes:
    """A struct sock_fprog that lets everything through."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    KEPT.append(code)
    return struct.pack("HxxxxxxP", 1, ctypes.addressof(code))


def bpf_program() -> bytes:
    """The same as a BPF program's descriptor; -1 where that is not permitted."""
    code = ctypes.create_string_buffer(
        struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0x7FFFFFFF, 0x95, 0, 0, 0)
    )
    license_text = ctypes.create_string_buffer(b"GPL")
    request = struct.pack("IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(license_text))
    number = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)
    fd = LIBC.syscall(number, 5, request.ljust(128, b"\0"), 128) if number > 0 else -1
    return struct.pack("i", fd)


MADE_HERE = {"@filter": classic_filter, "@bpf": bpf_program}


def put(name: str, level: int, number: int, value: str) -> Result:
    """setsockopt, with the value in hexadecimal or the name of something made here."""
    data = MADE_HERE[value]() if value in MADE_HERE else bytes.fromhex(value)
    if LIBC.setsockopt(SOCKETS[name].fileno(), level, number, data, len(data)) == -1:
        return failed()
    return 0


def get(name: str, level: int, number: int, size: int) -> Result:
    """getsockopt, into zeros; the value in hexadecimal."""
    buffer, length = ctypes.create_string_buffer(max(1, size)), ctypes.c_uint(size)
    fd = SOCKETS[name].fileno()
    if LIBC.getsockopt(fd, level, number, buffer, ctypes.byref(length)) == -1:
        return failed()
    return buffer.raw[: min(length.value, size)].hex()


_PATTERN = bytes(i * 7 & 0xFF for i in range(256))


def send(name: str, size: int) -> Result:
    SOCKETS[name].sendall((_PATTERN * (size // len(_PATTERN) + 1))[:size])
    return None


def send_flags(name: str, size: int, flags: int) -> Result:
    """One send of that many bytes."""
    return SOCKETS[name].send(b"x" * size, flags)


def fill(name: str, most: int) -> Result:
    """Sends until nothing more finds room; the count."""
    sent = 0
    while sent < most:
        try:
            sent += SOCKETS[name].send(b"f" * min(8192, most - sent), socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not select.select([], [SOCKETS[name]], [], 0.05)[1]:
                break
    return sent


def receive(name: str, size: int) -> Result:
    """Exactly so many bytes; their digest."""
    data = b""
    while len(data) < size:
        if not select.select([SOCKETS[name]], [], [], 8)[0]:
            return f"{len(data)} bytes, then nothing"
        part = SOCKETS[name].recv(size - len(data))
        if not part:
            return f"{len(data)} bytes, then the end"
        data += part
    return hashlib.sha256(data).hexdigest()[:16]


def receive_ancillary(name: str, size: int, flags: int) -> Result:
    """One recvmsg: bytes, and kinds of control messages that came."""
    data, control, _, _ = SOCKETS[name].recvmsg(size, 512, flags)
    return [len(data), *(kind for _, kind, _ in control)]


def receive_left(name: str, size: int, room: int, flags: int) -> Result:
    """One recvmsg with TCP_INQ: bytes that came; that are left, or -1; MSG_CTRUNC or 0."""
    data, control, told, _ = SOCKETS[name].recvmsg(size, room, flags)
    whole = [value for _, _, value in control if len(value) == 4]
    left = struct.unpack("i", whole[0])[0] if whole else -1
    return [len(data), left, told & socket.MSG_CTRUNC]


def want_by_tcp(name: str) -> Result:
    """What lies in the ring is sent again: a FILE would read it past the library."""
    LIBC.fdopen(os.dup(SOCKETS[name].fileno()), b"r")
    return None


def receive_now(name: str, size: int, flags: int) -> Result:
    """One recv; the bytes in hexadecimal."""
    return SOCKETS[name].recv(size, flags).hex()


def send_to(name: str, host: str, port: int, size: int, flags: int) -> Result:
    return SOCKETS[name].sendto(b"t" * size, flags, (host, port))


def rounds(name: str, count: int) -> Result:
    for _ in range(count):
        SOCKETS[name].sendall(b"r")
        SOCKETS[name].recv(1)
    return None


def echo(name: str, count: int) -> Result:
    for _ in range(count):
        SOCKETS[name].sendall(SOCKETS[name].recv(1))
    return None


def echo_pushed(name: str, count: int) -> Result:
    """Under a cork: each answer is let go by setting TCP_NODELAY again."""
    for _ in range(count):
        SOCKETS[name].sendall(SOCKETS[name].recv(1))
        SOCKETS[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return None


def ioctl(name: str, request: int, value: int) -> Result:
    """An ioctl with a pointer to an int; what is there afterwards."""
    answer = fcntl.ioctl(SOCKETS[name], request, struct.pack("i", value))
    result: int = struct.unpack("i", answer)[0]
    return result


def flags(name: str, command: int, value: int) -> Result:
    return fcntl.fcntl(SOCKETS[name], command, value)


def at_mark(name: str) -> Result:
    result: int = LIBC.sockatmark(SOCKETS[name].fileno())
    return result


def poll(name: str, events: int, milliseconds: int) -> Result:
    poller = select.poll()
    poller.register(SOCKETS[name], events)
    return sum(bits for _, bits in poller.poll(milliseconds))


def pause(milliseconds: int) -> Result:
    time.sleep(milliseconds / 1000)
    return None


def take_when_told(name: str, way: str, size: int, flags: int = 0) -> Result:
    """Waits for input in that way, and receives once; how many bytes came.

    "second-edge": after a byte that was told of before.
    """
    sock, told = SOCKETS[name], True
    match way:
        case "poll":
            poller = select.poll()
            poller.register(sock, select.POLLIN)
            told = bool(poller.poll(PATIENCE_MS))
        case "select":
            told = bool(select.select([sock], [], [], PATIENCE_MS / 1000)[0])
        case "epoll" | "edge" | "second-edge":
            edge = 0 if way == "epoll" else select.EPOLLET
            with select.epoll() as epoll:
                epoll.register(sock, select.EPOLLIN | edge)
                told = bool(epoll.poll(PATIENCE_MS / 1000))
                if way == "second-edge":
                    sock.recv(1)
                    told = bool(epoll.poll(PATIENCE_MS / 1000))
    return len(sock.recv(size, flags)) if told else NOBODY_TOLD


def receive_until_shut(name: str, size: int) -> Result:
    """One recv, while another thread shuts that direction down; how many bytes came.

    Both on one CPU, and the receiver first, where that is allowed: it goes on before the other one
    is back from the system call.
    """
    sock, cpus = SOCKETS[name], os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    shutting = threading.Timer(0.05, sock.shutdown, [socket.SHUT_RD])
    shutting.start()
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    came = len(sock.recv(size))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, cpus)
    shutting.join()
    return came


def send_file(name: str, size: int) -> Result:
    with tempfile.TemporaryFile() as file:
        file.write(b"f" * size)
        file.flush()
        return os.sendfile(SOCKETS[name].fileno(), file.fileno(), 0, size)


def splice_more(name: str, size: int) -> Result:
    """Through a pipe, with SPLICE_F_MORE."""
    out, into = os.pipe()
    os.write(into, b"p" * size)
    moved = LIBC.splice(out, None, SOCKETS[name].fileno(), None, ctypes.c_size_t(size), 4)
    os.close(out)
    os.close(into)
    return int(moved)


def send_when_told(name: str, size: int) -> Result:
    """Sends only what poll has said there is room for."""
    sock, sent = SOCKETS[name], 0
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while sent < size and poller.poll(PATIENCE_MS):
        sent += sock.send(b"w" * min(1000, size - sent), socket.MSG_DONTWAIT)
    return sent


def _look(epoll: select.epoll, seconds: float) -> None:
    end = time.monotonic() + 0.12
    while time.monotonic() < end and not epoll.poll(seconds):
        pass


def two_threads_wait(name: str, who: str, size: int) -> Result:
    """One thread sleeps in an epoll set, and receives what it is told of.

    Another one re-arms the entry when bytes have come ("rearmed"); or is told of them first, and
    leaves ("left"); or looks again and again for a while, without waiting ("looked") or for
    a moment each ("briefly").
    """
    sock = SOCKETS[name]
    once = select.EPOLLONESHOT if who == "rearmed" else 0
    with select.epoll() as epoll:
        epoll.register(sock, 0 if once else select.EPOLLIN)
        told: list[Any] = []
        sleeper = threading.Thread(target=lambda: told.extend(epoll.poll(PATIENCE_MS / 1000)))
        if once:
            sleeper.start()
            time.sleep(0.15)
            epoll.modify(sock, select.EPOLLIN | once)
        else:
            sleeper.start()
            time.sleep(0.02)
            _look(epoll, {"left": 0.15, "looked": 0.0, "briefly": 0.001}[who])
        sleeper.join()
    return len(sock.recv(size)) if told else NOBODY_TOLD


def in_a_child(*steps: list[Any]) -> Result:
    """Does them in a forked process; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            for head, *rest in steps:
                STEPS[head](*rest)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shut(name: str, how: int) -> Result:
    SOCKETS[name].shutdown(how)
    return None


def zero_copy(name: str, length: int) -> Result:
    """TCP_ZEROCOPY_RECEIVE: bytes mapped, and bytes it leaves to recv."""
    fd = SOCKETS[name].fileno()
    at = LIBC.mmap(None, length, 1, 1, fd, 0)
    buffer = ctypes.create_string_buffer(struct.pack("QIIIi", at, length, 0, 0, 0), 24)
    size = ctypes.c_uint(24)
    if LIBC.getsockopt(fd, socket.IPPROTO_TCP, 35, buffer, ctypes.byref(size)) == -1:
        return failed()
    _, mapped, left, _, _ = struct.unpack("QIIIi", buffer.raw[:24])
    return [mapped, left]


def count_signals(number: int) -> Result:
    signal.signal(number, lambda *_: SIGNALS.append(number))
    return None


def signals_came() -> Result:
    came = len(SIGNALS)
    SIGNALS.clear()
    return min(came, 1)


def me() -> Result:
    return os.getpid()


STEPS = {
    step.__name__: step
    for step in (
        *(new, listen, connect, accept, close, put, get, send, send_flags, fill, receive),
        *(
            receive_now,
            send_to,
            receive_ancillary,
            rounds,
            echo,
            ioctl,
            flags,
            at_mark,
            poll,
            shut,
            zero_copy,
        ),
        *(count_signals, signals_came, me),
        *(pause, take_when_told, send_file, in_a_child),
        *(splice_more, send_when_told, two_threads_wait, receive_left, want_by_tcp),
        *(echo_pushed, receive_until_shut),
    )
}


def act(step: list[Any]) -> Result:
    try:
        return STEPS[step[0]](*step[1:])
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def main() -> None:
    for line in sys.stdin:
        print(json.dumps([act(step) for step in json.loads(line)]), flush=True)


main()
