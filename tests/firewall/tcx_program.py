"""python tcx_program.py: attaches to lo an eBPF program that lets all pass, until killed.

Two instructions (r0 = TCX_NEXT; exit), loaded and attached with bpf(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import time

NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, PROG_ATTACH = 5, 8
SCHED_CLS, TCX_INGRESS, LO = 3, 46, 1
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attribute: bytes) -> int:
    attribute = attribute.ljust(128, b"\0")
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    result: int = LIBC.syscall(NUMBER, command, buffer, len(attribute))
    if result < 0:
        print(os.strerror(ctypes.get_errno()), flush=True)
        sys.exit()
    return result


code = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
instructions = ctypes.create_string_buffer(code, len(code))
licence = ctypes.create_string_buffer(b"GPL")
addresses = ctypes.addressof(instructions), ctypes.addressof(licence)
program = bpf(PROG_LOAD, struct.pack("=IIQQ", SCHED_CLS, len(code) // 8, *addresses))
bpf(PROG_ATTACH, struct.pack("=IIII", LO, program, TCX_INGRESS, 0))
print("attached", flush=True)
time.sleep(1000)
