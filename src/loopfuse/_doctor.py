"""``loopfuse doctor``: is everything in place on this machine, and can a program be fused?"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from loopfuse._elf import Obstacle, examine, find_program
from loopfuse._errors import LoopfuseError
from loopfuse._listings import Finding, Verdict
from loopfuse._paths import is_file
from loopfuse._preload import library_path, preload_environment

_DESCRIPTORS_WANTED = 4096
_RULES_SHOWN = 5


def examine_machine() -> Iterator[Finding]:
    """All checks of the machine, cheapest first."""
    checks: list[Callable[[], Finding]] = [
        _kernel,
        _socket_cookies,
        _library,
        _preloading,
        _broker,
        _policy,
        _firewall,
        _descriptors,
        _cpus,
    ]
    for check in checks:
        yield check()


def examine_program(name: str) -> Finding:
    """Can this program load the library?

    Raises LoopfuseError if there is no such program or it can't be read.
    """
    path = find_program(name)
    if path is None:
        raise LoopfuseError(f"{name}: no such program on PATH")
    try:
        program = examine(path)
    except OSError as error:
        raise LoopfuseError(f"{path}: can't be read: {error.strerror}") from error
    through = "" if program.binary == path else f" (runs {program.binary})"
    if program.obstacle is None:
        return Finding("program", Verdict.OK, f"{path}{through} can be fused")
    advice = {
        Obstacle.STATIC: "use a dynamically linked build of it",
        Obstacle.MUSL: "use a build against glibc",
        Obstacle.FOREIGN: "use a build for this machine",
        Obstacle.PRIVILEGED: "run it without privileges on the file; loopfuse leaves it alone",
        Obstacle.NOT_ELF: "give it a #! line, or name its interpreter",
    }[program.obstacle]
    return Finding(
        "program",
        Verdict.FAIL,
        f"{path}{through} stays plain TCP: {program.obstacle.value}",
        advice,
    )


def _kernel() -> Finding:
    release = os.uname().release
    try:
        fd = os.memfd_create("loopfuse-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        return Finding("kernel", Verdict.FAIL, f"no memfd_create: {error.strerror}", "Linux 3.17")
    os.close(fd)
    return Finding("kernel", Verdict.OK, f"Linux {release}, sealed memfds work")


def _socket_cookies() -> Finding:
    from loopfuse._kernel import socket_cookie
    from loopfuse._sockdiag import SockDiag

    try:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            socket_cookie(sock)
        diag = SockDiag()
        try:
            diag.held_cookies()
        finally:
            diag.close()
    except (OSError, LoopfuseError) as error:
        return Finding(
            "sock_diag",
            Verdict.FAIL,
            f"the kernel won't tell about sockets: {error}",
            "load the modules tcp_diag and inet_diag, or allow NETLINK_SOCK_DIAG",
        )
    return Finding("sock_diag", Verdict.OK, "the kernel confirms sockets by cookie")


def _library() -> Finding:
    path = library_path()
    if is_file(path):
        return Finding("library", Verdict.OK, str(path))
    return Finding("library", Verdict.FAIL, f"{path} is missing", "reinstall loopfuse")


def _preloading() -> Finding:
    environment = preload_environment(dict(os.environ), Path("/nonexistent"))
    done = subprocess.run(
        ["/bin/true"], env=environment, capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode == 0 and not done.stderr:
        return Finding("preloading", Verdict.OK, "/bin/true runs with the library loaded")
    said = done.stderr.strip() or f"exit status {done.returncode}"
    return Finding("preloading", Verdict.FAIL, said, "reinstall loopfuse on this machine")


def _broker() -> Finding:
    from loopfuse._runtime_dir import broker_path, ensure_broker

    try:
        path = ensure_broker()
    except (LoopfuseError, OSError) as error:
        return Finding("broker", Verdict.FAIL, str(error), f"look at {broker_path().parent}")
    return Finding("broker", Verdict.OK, f"answers at {path}")


def _policy() -> Finding:
    from loopfuse._control import fetch_status
    from loopfuse._runtime_dir import broker_path

    try:
        return Finding("policy", Verdict.OK, fetch_status(broker_path()).policy_words)
    except LoopfuseError as error:
        return Finding("policy", Verdict.WARN, f"not known: {error.message}")


def _firewall() -> Finding:
    from loopfuse._control import fetch_status
    from loopfuse._runtime_dir import broker_path

    try:
        status = fetch_status(broker_path())
    except LoopfuseError as error:
        return Finding("firewall", Verdict.WARN, f"not known: {error.message}")
    rules = status.firewall[:_RULES_SHOWN]
    if len(status.firewall) > len(rules):
        rules.append(f"and {len(status.firewall) - len(rules)} more rules")
    if rules:
        return Finding(
            "firewall",
            Verdict.WARN,
            "\n".join(["stands aside for", *rules]),
            "narrow these rules, or ignore their kind in a policy file (docs/firewall.md)",
        )
    if status.firewall_blind is not None:
        return Finding(
            "firewall",
            Verdict.WARN,
            f"packet filter rules can't be read by the broker: {status.firewall_blind}",
            "if rules here look at payload on lo, use root's broker (docs/firewall.md)",
        )
    return Finding("firewall", Verdict.OK, "no rule looks at the payload of connections on lo")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = hard - soft if hard != resource.RLIM_INFINITY and hard > soft else soft // 2
    if hard == resource.RLIM_INFINITY or room >= _DESCRIPTORS_WANTED:
        return Finding("descriptors", Verdict.OK, f"soft limit {soft}, hard limit {hard}")
    return Finding(
        "descriptors",
        Verdict.WARN,
        f"soft limit {soft}, hard limit {hard}: about {room} fused connections a process",
        "raise the hard limit (ulimit -Hn); each fused connection needs one descriptor more",
    )


def _cpus() -> Finding:
    count = len(os.sched_getaffinity(0))
    if count > 1:
        return Finding("cpus", Verdict.OK, f"{count} usable")
    return Finding("cpus", Verdict.WARN, "one usable: programs take turns, a round trip gains less")
