"""redis' unit tests, from the Debian source package of the server that is installed.

The suite is Tcl: a process that hands out units, one that runs them, and servers that it
starts; all of them talk TCP to each other, and all are fused.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from judges.downloads import Unavailable, debian_source
from judges.suite import FusedCounter, run_suite
from judges.verdict import Verdict
from sessions import Session

SHORT = {
    "basic": "protocol auth quit info networking multi pubsub pubsubshard",
}
LONG = {
    "types": "type/string type/incr type/list type/list-2 type/list-3 type/set type/zset"
    " type/hash type/stream type/stream-cgroups",
    "keys": "keyspace scan sort expire dump bitops bitfield geo hyperloglog other aofrw",
    "scripts": "scripting functions acl acl-v2 introspection introspection-2 info-command"
    " slowlog latency-monitor tracking violations",
    "buffers": "limits obuf-limits querybuf pendingquerybuf replybufsize client-eviction"
    " maxmemory memefficiency lazyfree",
    "servers": "wait pause shutdown oom-score-adj cluster cluster-scripting cluster/misc"
    " cluster/links",
}
"""Names of ours for groups of units."""
LEFT_OUT = ["printver", "tls"]
"""One tests nothing, one needs a server built with TLS."""
_PROGRAMS = ["redis-server", "redis-cli", "redis-benchmark", "redis-check-rdb", "redis-check-aof"]
_LIMIT = 900.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TESTING = re.compile(r"^Testing (\S+)$")
_RESULT = re.compile(r"^\[(ok|err|ignore|skip)\]: (.*?)(?: \(\d+ ms\))?$")


def judge(group: str, session: Session) -> Verdict:
    """Runs the units of one group. Raises Unavailable where they can't be had."""
    source = debian_source("redis-server")
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        raise Unavailable("tclsh is missing: scripts/debian test")
    with tempfile.TemporaryDirectory(prefix="loopfuse-judge-") as directory:
        _lay_out(source, Path(directory))
        # One unit at a time: results don't say which unit they come from.
        command = [tclsh, "tests/test_helper.tcl", "--clients", "1", "--durable"]
        command += ["--tags", "-large-memory", "--baseport", "27111", "--portcount", "900"]
        for unit in (SHORT | LONG)[group].split():
            command += ["--single", f"unit/{unit}"]
        counter = FusedCounter(session)
        said = run_suite(command, session, Path(directory), _LIMIT)
        fused = counter.stop()
    verdict = read_results(said)
    assert "The End" in said, f"{group} did not come to its end\n{said[-3000:]}"
    verdict.fused = fused
    return verdict


def _lay_out(source: Path, directory: Path) -> None:
    """Tests beside programs, as in a source tree that has been built."""
    shutil.copytree(source / "tests", directory / "tests")
    shutil.copy(source / "redis.conf", directory)
    (directory / "src").mkdir()
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program is None:
            raise Unavailable(f"{name} is missing: scripts/debian test")
        (directory / "src" / name).symlink_to(program)


def read_results(said: str) -> Verdict:
    """Of tests of one name in one unit, each is counted."""
    verdict = Verdict()
    of_kind = {"ok": verdict.passed, "err": verdict.failed}
    unit = ""
    seen: dict[str, int] = {}
    for line in _COLOUR.sub("", said).splitlines():
        if begun := _TESTING.match(line):
            unit = begun[1]
        elif result := _RESULT.match(line):
            name = f"{unit}: {result[2].removesuffix(f' in tests/{unit}.tcl')}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            of_kind.get(result[1], verdict.skipped).add(name)
    return verdict
