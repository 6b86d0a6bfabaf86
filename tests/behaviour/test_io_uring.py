"""A program with an io_uring might wait for bytes where no library can see it: it stays plain."""

from __future__ import annotations

import sys

import pytest

from sessions import Session, free_port

SYS_IO_URING_SETUP = 425

PROGRAM = """
import ctypes, socket, sys, time
if sys.argv[1] == "ring":
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall({setup}, 4, ctypes.create_string_buffer(120)) < 0:
        print("no io_uring here:", ctypes.get_errno())
        sys.exit()
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()

def fused():
    with open("/proc/self/maps") as maps:
        return "loopfuse-segment" in maps.read()

# On a busy machine the broker takes its time.
deadline = time.monotonic() + (0.5 if sys.argv[1] == "ring" else 10)
over = False
while not over:
    over = fused() or time.monotonic() > deadline
    for _ in range(100):
        client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)
print("done")
"""


@pytest.mark.parametrize("what", ["ring", "none"])
def test_who_sets_up_a_ring_is_not_fused(lazily_fused: Session, what: str) -> None:
    port = free_port()
    program = PROGRAM.format(setup=SYS_IO_URING_SETUP)
    said = lazily_fused.run(
        [*lazily_fused.prefix, sys.executable, "-c", program, what, str(port)]
    ).stdout
    if said.startswith("no io_uring"):
        pytest.skip(said.strip())
    assert bool(lazily_fused.fused_rows(port)) == (what == "none")
