"""Scenarios in which a descriptor moves to another program or process; see parties.py.

The server has the connection and hands it on, with unread bytes in flight both ways; the
client must not notice. SCENARIO_FILE is the folder with holder and holder-static (holder.c).
"""

import array
import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import reduction
from pathlib import Path

import parties
from parties import attempt, say, sync, wait

SCENARIOS = parties.SCENARIOS
SCENARIOS.clear()
PROGRAMS = os.environ.get("SCENARIO_FILE", "")
STATIC, DYNAMIC = f"{PROGRAMS}/holder-static", f"{PROGRAMS}/holder"
BARE = {"PATH": "/usr/bin:/bin"}
FROM_CLIENT, FROM_SERVER = bytes(range(250)) * 12, bytes(range(250, 0, -1)) * 20
COUNT = str(len(FROM_CLIENT))
libc = ctypes.CDLL(None, use_errno=True)


def exactly(sock, count):
    data = b""
    while len(data) < count and (part := sock.recv(count - len(data))):
        data += part
    return data


def line(sock):
    data = b""
    while not data.endswith(b"\n") and (part := sock.recv(1)):
        data += part
    return data


def client(s, p, busy):
    """Fills its direction, then talks to whoever has the other end by then."""
    s.sendall(FROM_CLIENT)
    sync(p)
    time.sleep(busy)
    say("all", exactly(s, len(FROM_SERVER)) == FROM_SERVER)
    say(line(s))
    s.sendall(b"more!")
    say(exactly(s, 5), attempt(s.recv, 10))


def hold(sock):
    """As holder.c."""
    data = exactly(sock, len(FROM_CLIENT))
    total = 0
    for byte in data:
        total = (total * 31 + byte) & 0xFFFFFFFF
    sock.sendall(b"missing %d, sum %08x\n" % (len(FROM_CLIENT) - len(data), total))
    sock.sendall(exactly(sock, 5))


BUSY = "_while_the_client_is_busy"


def moves(give, busy=0):
    """A scenario in which the server gives its socket away."""

    def act(s, side, p):
        if side == "c":
            client(s, p, busy)
            return
        s.sendall(FROM_SERVER)
        wait(p)
        s.set_inheritable(True)
        give(s)

    SCENARIOS[give.__name__ + BUSY * (busy > 0)] = act
    return give


def holder(program, s, how="inherited"):
    return [program, how, str(s.fileno()), COUNT]


# --- exec ---


@moves
def exec_static(s):
    os.execv(STATIC, holder(STATIC, s))


@moves
def exec_dynamic(s):
    os.execv(DYNAMIC, holder(DYNAMIC, s))


@moves
def exec_with_an_empty_environment(s):
    os.execve(DYNAMIC, holder(DYNAMIC, s), {})


@moves
def exec_through_env(s):
    os.execv("/usr/bin/env", ["env", "-i", *holder(DYNAMIC, s)])


@moves
def exec_through_a_shell(s):
    os.dup2(s.fileno(), 9)  # a shell knows one digit
    os.execv("/bin/sh", ["sh", "-c", f"exec {STATIC} inherited 9 {COUNT}"])


@moves
def exec_on_standard_input_and_output(s):
    """As inetd does it."""
    os.dup2(s.fileno(), 0)
    os.dup2(s.fileno(), 1)
    os.execv(STATIC, [STATIC, "inherited", "0", COUNT])


@moves
def fexecve_static(s):
    os.execve(os.open(STATIC, os.O_RDONLY), holder(STATIC, s), BARE)


@moves
def exec_in_a_forked_child(s):
    child = os.fork()
    if child == 0:
        os.execv(STATIC, holder(STATIC, s))
    s.close()
    os.waitpid(child, 0)


@moves
def exec_in_a_child_of_another_thread(s):
    thread = threading.Thread(target=exec_in_a_forked_child, args=(s,))
    thread.start()
    thread.join()


@moves
def spawned(s):
    child = os.posix_spawn(STATIC, holder(STATIC, s), BARE)
    s.close()
    os.waitpid(child, 0)


@moves
def popen_with_pass_fds(s):
    with subprocess.Popen(holder(STATIC, s), pass_fds=[s.fileno()], env=BARE):
        s.close()


@moves
def popen_as_standard_input_and_output(s):
    command = [STATIC, "inherited", "0", COUNT]
    with subprocess.Popen(command, stdin=s, stdout=s, env=BARE):
        s.close()


@moves
def system_inherits(s):
    libc.system(" ".join(holder(STATIC, s)).encode())
    s.close()


@moves
def exec_fails_and_it_goes_on(s):
    say(attempt(os.execv, "/nonexistent", ["nonexistent"]))
    hold(s)


# --- SCM_RIGHTS ---


def pass_to(program, environment, s, *, keep=False):
    ours, theirs = socket.socketpair()
    command = [program, "passed", str(theirs.fileno()), COUNT]
    with theirs:
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
    socket.send_fds(ours, [b"x"], [s.fileno()])
    if not keep:
        s.close()
    child.wait()
    say("holder", child.returncode)


@moves
def passed_to_a_preloaded_process(s):
    pass_to(DYNAMIC, None, s)


@moves
def passed_to_a_plain_process(s):
    pass_to(DYNAMIC, BARE, s)


@moves
def passed_to_a_static_process(s):
    pass_to(STATIC, None, s)


@moves
def passed_and_kept(s):
    pass_to(STATIC, None, s, keep=True)


@moves
def passed_to_itself(s):
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [s.fileno()])
    s.close()
    fds = array.array("i", socket.recv_fds(theirs, 1, 1)[1])
    with socket.socket(fileno=fds[0]) as again:
        hold(again)


# --- multiprocessing ---


def _process(method, target, *arguments):
    context = multiprocessing.get_context(method)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _hold_what_comes(pipe):
    hold(pipe.recv())


def _hold_handle(pipe):
    with socket.socket(fileno=reduction.recv_handle(pipe)) as sock:
        hold(sock)


def _as_argument(method, s):
    process = _process(method, hold, s)
    s.close()
    process.join()


def _through_a_pipe(method, s):
    ours, theirs = multiprocessing.Pipe()
    process = _process(method, _hold_what_comes, theirs)
    ours.send(s)
    process.join()
    s.close()


def _as_a_handle(method, s):
    ours, theirs = multiprocessing.Pipe()
    process = _process(method, _hold_handle, theirs)
    reduction.send_handle(ours, s.fileno(), process.pid)
    s.close()
    process.join()


@moves
def multiprocessing_fork_argument(s):
    _as_argument("fork", s)


@moves
def multiprocessing_spawn_argument(s):
    _as_argument("spawn", s)


@moves
def multiprocessing_fork_pipe(s):
    _through_a_pipe("fork", s)


@moves
def multiprocessing_spawn_pipe(s):
    _through_a_pipe("spawn", s)


@moves
def multiprocessing_fork_handle(s):
    _as_a_handle("fork", s)


@moves
def multiprocessing_spawn_handle(s):
    _as_a_handle("spawn", s)


# --- daemons that close everything ---


def _close_range(first):
    assert libc.close_range(first, 0xFFFFFFFF, 0) == 0


def _closefrom(first):
    libc.closefrom(first)


def _loop(first):
    for fd in range(first, os.sysconf("SC_OPEN_MAX") if first < 0 else 20000):
        libc.close(fd)


def _listed(first):
    """What /proc/self/fd lists, as OpenSSH and others do."""
    for name in [file.name for file in Path("/proc/self/fd").iterdir()]:
        if int(name) >= first:
            libc.close(int(name))


SWEEPS = {f.__name__.strip("_"): f for f in (_close_range, _closefrom, _loop, _listed)}


def _kept(sweep):
    def give(s):
        os.dup2(s.fileno(), 3)
        s.detach()
        sweep(4)
        with socket.socket(fileno=3) as kept:
            hold(kept)

    give.__name__ = f"kept_at_3_while_{sweep.__name__.strip('_')}_closes_the_rest"
    moves(give)


def _swept(sweep):
    """With bytes unread, so the client is reset."""

    def act(s, side, p):
        if side == "c":
            s.sendall(FROM_CLIENT)
            sync(p)
            wait(p)
            say(attempt(s.recv, 10), attempt(s.send, b"x"))
            sync(p)
            return
        wait(p)
        pipes = [os.dup2(p.r, 3), os.dup2(p.w, 4)]
        s.detach()
        sweep(5)
        os.write(pipes[1], b".")
        os.read(pipes[0], 1)

    SCENARIOS[f"closed_by_{sweep.__name__.strip('_')}"] = act


def _daemon(sweep):
    """A child closes everything it has inherited; the parent goes on."""

    def give(s):
        child = os.fork()
        if child == 0:
            sweep(3)
            os._exit(0)
        os.waitpid(child, 0)
        hold(s)

    give.__name__ = f"parent_goes_on_while_a_child_uses_{sweep.__name__.strip('_')}"
    moves(give)


for each in SWEEPS.values():
    _kept(each)
    _swept(each)
    _daemon(each)


@moves
def close_on_exec_by_close_range(s):
    """What a launcher does before it runs a program: only the socket goes through."""
    os.dup2(s.fileno(), 3)
    s.detach()
    assert libc.close_range(4, 0xFFFFFFFF, 4) == 0
    os.execv(STATIC, [STATIC, "inherited", "3", COUNT])


def exec_in_a_forked_child_and_a_later_close(s):
    """The parent had gone on with what lies unread, and did not read it."""
    child = os.fork()
    if child == 0:
        os.execv(STATIC, holder(STATIC, s))
    time.sleep(1.3)
    s.close()
    os.waitpid(child, 0)


# The client can't send again what lies unread before it is back: longer than exec waits.
for each in (
    exec_static,
    exec_in_a_forked_child,
    exec_in_a_forked_child_and_a_later_close,
    popen_with_pass_fds,
    spawned,
    passed_to_a_static_process,
    passed_and_kept,
    exec_fails_and_it_goes_on,
    multiprocessing_fork_argument,
):
    moves(each, busy=1.8)


# --- the peer is gone, or has said its last, before the socket moves ---

LONG = bytes(range(251)) * 900  # more than TCP's window of that moment


def _shuts_down(s):
    s.shutdown(socket.SHUT_WR)


def _closes(s):
    s.close()


def _exits(s):
    """The last that holds it is a child."""
    if (child := os.fork()) == 0:
        os._exit(0)
    s.close()
    os.waitpid(child, 0)


def _is_killed(s):
    """The last that holds it is a child, which can say nothing any more."""
    if (child := os.fork()) == 0:
        signal.pause()
    s.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _reads_a_part(s):
    return exactly(s, 1000)


def _reads_all_but_the_end(s):
    return exactly(s, len(FROM_CLIENT))


def _reads_nothing(s):
    return b""


def _to_a_program(s):
    """Plain, whatever we are."""
    return subprocess.run(
        ["/usr/bin/cksum"], stdin=s, stdout=subprocess.PIPE, env=BARE, check=True, text=True
    ).stdout.split()


def _passes_on(s):
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", TAKES_AND_SUMS, str(theirs.fileno())]
        child = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=BARE, stdout=subprocess.PIPE, text=True
        )
    socket.send_fds(ours, [b"x"], [s.fileno()])
    s.close()
    return child.communicate()[0].split()


TAKES_AND_SUMS = """
import os, socket, sys
with socket.socket(fileno=int(sys.argv[1])) as s:
    os.dup2(socket.recv_fds(s, 1, 1)[1][0], 0)
os.execv("/usr/bin/cksum", ["cksum"])
"""


def _last_words(leave, read, move, data=FROM_CLIENT):
    """The server moves what the client has said its last on."""

    def act(s, side, p):
        if side == "c":
            s.sendall(data)
            leave(s)
            sync(p)
            wait(p)
            if leave is _shuts_down:
                say(attempt(s.recv, 10))
            return
        wait(p)
        time.sleep(0.05)  # FIN is on its way
        got = read(s)
        say(got == data[: len(got)], move(s))
        s.close()
        sync(p)

    names = [f.__name__ for f in (leave, read, move)]
    SCENARIOS[f"last_words{''.join(names)}{'_long' * (data is LONG)}"] = act


for each in (_shuts_down, _closes, _exits, _is_killed):
    _last_words(each, _reads_nothing, _to_a_program)
    _last_words(each, _reads_a_part, _passes_on)
_last_words(_closes, _reads_a_part, _to_a_program)
_last_words(_closes, _reads_all_but_the_end, _to_a_program)
_last_words(_shuts_down, _reads_nothing, _passes_on)
_last_words(_closes, _reads_a_part, _to_a_program, LONG)
_last_words(_is_killed, _reads_a_part, _to_a_program, LONG)
_last_words(_shuts_down, _reads_nothing, _to_a_program, LONG)


if __name__ == "__main__":
    sys.modules["movers"] = sys.modules["__main__"]
    parties.main()
