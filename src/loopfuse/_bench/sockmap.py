"""eBPF sockmap redirection, the other way to get around TCP on one host: what a socket sends is
put into its peer's receive queue by a program in the kernel. Needs root.

The two programs are five instructions each, so no compiler is needed, and go when their
descriptors do.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from loopfuse._errors import BenchError

# bpf(2), asm/unistd.h and linux/bpf.h.
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
_MAP_CREATE, _PROG_LOAD, _PROG_ATTACH = 0, 5, 8
_SOCKMAP, _SK_MSG, _SK_MSG_VERDICT = 15, 16, 7
_MSG_REDIRECT_MAP, _INGRESS, _PSEUDO_MAP_FD = 60, 1, 1
_ATTRIBUTES = 128
_INSTRUCTION = struct.Struct("=BBhi")


@functools.cache
def obstacle() -> str | None:
    """Why it can't be had here; None: it can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        with maps():
            return None
    except BenchError as error:
        return str(error)


@contextmanager
def maps() -> Iterator[tuple[int, int]]:
    """Descriptors of the server's and of the client's map. Raises BenchError."""
    with ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        ends = [kept(_bpf(_MAP_CREATE, struct.pack("=5I", _SOCKMAP, 4, 4, 1, 0))) for _ in "sc"]
        for own, other in (ends, ends[::-1]):
            program = kept(_load(other))
            _bpf(_PROG_ATTACH, struct.pack("=4I", own, program, _SK_MSG_VERDICT, 0))
        yield ends[0], ends[1]


def _load(target: int) -> int:
    """A program that redirects each message to the socket in that map."""
    code = b"".join(
        _INSTRUCTION.pack(*words)
        for words in (
            (0x18, 2 | _PSEUDO_MAP_FD << 4, 0, target),  # r2 = the map; r1 is the message
            (0, 0, 0, 0),
            (0xB7, 3, 0, 0),  # r3 = the key, 0
            (0xB7, 4, 0, _INGRESS),  # r4 = into its receive queue
            (0x85, 0, 0, _MSG_REDIRECT_MAP),
            (0x95, 0, 0, 0),  # return what that says
        )
    )
    instructions, license = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"BSD")
    attributes = struct.pack(
        "=2I2Q",
        _SK_MSG,
        len(code) // _INSTRUCTION.size,
        ctypes.addressof(instructions),
        ctypes.addressof(license),
    ).ljust(68, b"\0") + struct.pack("=I", _SK_MSG_VERDICT)  # expected_attach_type
    return _bpf(_PROG_LOAD, attributes)


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise BenchError(f"the number of bpf(2) on {platform.machine()} is not known here")
    buffer = ctypes.create_string_buffer(attributes.ljust(_ATTRIBUTES, b"\0"), _ATTRIBUTES)
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), command, buffer, _ATTRIBUTES))
    if result < 0:
        code = ctypes.get_errno()
        what = "the kernel has no bpf(2)" if code == errno.ENOSYS else "the kernel refuses it"
        raise BenchError(f"{what}: {os.strerror(code)}")
    return result
