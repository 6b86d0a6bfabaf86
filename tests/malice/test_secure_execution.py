"""Programs that run with more than their caller's rights: not touched, and not led astray."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_fixtures import PATIENCE
from conftest import tool

pytest_plugins = ["broker_fixtures"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can make setuid programs"
)
ALICE, BOB = 61001, 61002

# Receives 20 bytes one by one, then says what it is and what it has mapped. A second word: whom it
# is for the moment.
_PROGRAM = """
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0), got = 0, mapped = 0;
	char byte = 'b', line[512];
	if (argc > 2 && seteuid(atoi(argv[2])) == -1)
		return 1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == -1)
		return 1;
	while (got < 20 && send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1)
		got++;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps))
		mapped |= strstr(line, "libloopfuse") != NULL;
	printf("uid %d got %d %s\\n", (int)geteuid(), got, mapped ? "mapped" : "untouched");
	return 0;
}
"""


@pytest.fixture
def place(library: Path) -> Iterator[Path]:
    """A folder where every user may run things, with the program and the library."""
    # Not pytest's own, which others can't enter.
    folder = Path(tempfile.mkdtemp(prefix="loopfuse-secure-"))
    folder.chmod(0o755)
    source = folder / "program.c"
    source.write_text(_PROGRAM)
    shutil.copy(library, folder / "libloopfuse.so")
    command = ["gcc", "-o", folder / "plain", source]
    subprocess.run(command, check=True)
    # With the library among its own, found at a fixed place: ld.so loads it whoever it is.
    linked = ["-Wl,--no-as-needed", f"-Wl,-rpath,{folder}", folder / "libloopfuse.so"]
    subprocess.run(["gcc", "-o", folder / "linked", source, *linked], check=True)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def echo_server() -> Iterator[int]:
    """Answers one connection byte by byte, in a child; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            try:
                sock, _ = listener.accept()
                while byte := sock.recv(1):
                    sock.sendall(byte)
            finally:
                os._exit(0)
        try:
            yield listener.getsockname()[1]
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def run_as(uid: int, program: Path, port: int, environment: dict[str, str], *words: str) -> str:
    command = [tool("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    done = subprocess.run(
        [*command, str(program), str(port), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("how", ["setuid", "capabilities"])
def test_a_program_with_rights_of_its_own_is_not_touched(place: Path, how: str) -> None:
    program = place / "plain"
    if how == "setuid":
        program.chmod(0o4755)
    else:
        subprocess.run([tool("setcap"), "cap_net_bind_service=ep", program], check=True)
    environment = {"LD_PRELOAD": str(place / "libloopfuse.so"), "LOOPFUSE_BROKER": "/nowhere"}
    uid = 0 if how == "setuid" else ALICE
    with echo_server() as port:
        assert run_as(ALICE, program, port, environment) == f"uid {uid} got 20 untouched\n"


@contextmanager
def somebodys_socket(place: Path, uid: int) -> Iterator[tuple[Path, socket.socket]]:
    """A broker's socket as that user would put it up."""
    path = place / "broker.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.fspath(path))
    path.chmod(0o666)
    # SO_PEERCRED tells a caller who called listen(2).
    os.seteuid(uid)
    try:
        listener.listen()
    finally:
        os.seteuid(0)
    listener.setblocking(False)
    with listener:
        yield path, listener


def preloaded(place: Path, broker: Path) -> dict[str, str]:
    """An environment in which the library claims at once."""
    library = str(place / "libloopfuse.so")
    return {"LD_PRELOAD": library, "LOOPFUSE_BROKER": str(broker), "LOOPFUSE_AFTER": "0"}


def hears_hello(listener: socket.socket) -> bool:
    """Has somebody called, and said anything?"""
    try:
        caller, _ = listener.accept()
    except BlockingIOError:
        return False
    with caller:
        caller.settimeout(PATIENCE)
        return caller.recv(100) != b""


def test_a_setuid_program_takes_no_broker_of_its_callers(place: Path) -> None:
    """Even where the library is in it: the caller would see, and say, all that it does."""
    program = place / "linked"
    program.chmod(0o4755)
    with somebodys_socket(place, ALICE) as (path, listener), echo_server() as port:
        environment = {"LOOPFUSE_BROKER": str(path), "LOOPFUSE_AFTER": "0"}
        assert run_as(ALICE, program, port, environment) == "uid 0 got 20 mapped\n"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_another_users_broker_is_not_believed(place: Path) -> None:
    program = place / "plain"
    with somebodys_socket(place, BOB) as (path, listener):
        environment = preloaded(place, path)
        with echo_server() as port:
            said = run_as(ALICE, program, port, environment)
        assert said == f"uid {ALICE} got 20 mapped\n"
        assert not hears_hello(listener)
        # Its own user's programs do speak to it.
        with echo_server() as port:
            run_as(BOB, program, port, environment)
        assert hears_hello(listener)


def test_a_server_that_is_somebody_for_a_moment_does_not_believe_his_broker(place: Path) -> None:
    """It would still be in his hands when the server is itself again."""
    with somebodys_socket(place, ALICE) as (path, listener):
        environment = preloaded(place, path)
        with echo_server() as port:
            said = run_as(0, place / "plain", port, environment, str(ALICE))
        assert said == f"uid {ALICE} got 20 mapped\n"
        assert not hears_hello(listener)
