"""`loopfuse run`: the program must find everything as it would without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import eventually
from conftest import PROGRAMS
from sessions import free_port

LOOPFUSE = str(Path(sys.executable).with_name("loopfuse"))


@pytest.fixture
def environment(tmp_path: Path, library: Path) -> Iterator[dict[str, str]]:
    """With a broker of the test's own, once `run` has started it; it ends with the test."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LOOPFUSE_")}
    env |= {"LOOPFUSE_BROKER": str(tmp_path / "broker.sock"), "LOOPFUSE_LIBRARY": str(library)}
    yield env
    for pid in brokers(tmp_path):
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not brokers(tmp_path), "the broker ends")


def brokers(directory: Path) -> list[int]:
    """Processes that serve a socket in the directory."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in cmdline.read_bytes():
                found.append(int(cmdline.parent.name))
        except OSError:
            continue
    return found


def run(
    environment: dict[str, str], *argv: str, **options: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOOPFUSE, "run", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
def test_the_exit_status_is_the_programs(environment: dict[str, str], code: int) -> None:
    assert run(environment, "--", "sh", "-c", f"exit {code}").returncode == code


def test_a_signal_that_kills_the_program_is_reported_as_ever(environment: dict[str, str]) -> None:
    assert run(environment, "--", "sh", "-c", "kill -9 $$").returncode == -signal.SIGKILL
    assert run(environment, "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_stdio_goes_through(environment: dict[str, str]) -> None:
    done = run(environment, "--", "sh", "-c", "cat; echo said >&2", input="given\n")
    assert (done.stdout, done.stderr) == ("given\n", "said\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_may_be_run_with_stdio_closed(
    environment: dict[str, str], tmp_path: Path, closed: str
) -> None:
    report = tmp_path / "report"
    shell = f"{LOOPFUSE} run -- sh -c 'echo ran >{report}' {closed}"
    done = subprocess.run(
        ["sh", "-c", shell],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert report.exists()


def test_where_errors_can_not_be_told_output_is_the_programs(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{LOOPFUSE} run -- sh -c 'echo ran' 2>&-"],
        env=environment | {"LOOPFUSE_LIBRARY": "/nonexistent"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_libuv_keeps_to_epoll_ctl(environment: dict[str, str]) -> None:
    environment["UV_USE_IO_URING"] = "1"
    assert run(environment, "--", "sh", "-c", "echo $UV_USE_IO_URING").stdout == "0\n"


def test_it_is_the_same_process(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [LOOPFUSE, "run", "--", "sh", "-c", "echo $$"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert int(said) == process.pid


def test_signal_dispositions_and_descriptors_are_as_without(environment: dict[str, str]) -> None:
    look = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd"
    plain = subprocess.run(
        ["sh", "-c", look], env=environment, capture_output=True, text=True, check=True
    )
    assert run(environment, "--", "sh", "-c", look).stdout == plain.stdout


def test_the_environment_differs_by_what_fusing_needs(environment: dict[str, str]) -> None:
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    base = environment | {"LD_PRELOAD": "", "UV_USE_IO_URING": "1", "SPEAKING": "ünïcode =\n"}
    told = json.loads(run(base, "--", sys.executable, "-c", show).stdout)
    changed = {k for k in {*told, *base} if told.get(k) != base.get(k)}
    assert changed == {"LD_PRELOAD", "UV_USE_IO_URING"}
    assert told["UV_USE_IO_URING"] == "0"
    assert told["LOOPFUSE_BROKER"] == base["LOOPFUSE_BROKER"]
    told = json.loads(run(base, "--eager", "--", sys.executable, "-c", show).stdout)
    assert told["LOOPFUSE_EAGER"] == "1"


def test_children_inherit_it(environment: dict[str, str]) -> None:
    done = run(environment, "--", "sh", "-c", "sh -c 'grep -c libloopfuse /proc/self/maps'")
    assert int(done.stdout) > 0


def test_what_was_preloaded_before_stays(environment: dict[str, str]) -> None:
    done = run(environment | {"LD_PRELOAD": "libc.so.6"}, "sh", "-c", "echo $LD_PRELOAD")
    assert done.stdout.strip().endswith("libloopfuse.so:libc.so.6")


def test_options_after_the_program_are_the_programs(environment: dict[str, str]) -> None:
    assert run(environment, "echo", "--eager", "-v", "--").stdout == "--eager -v --\n"


def test_an_unknown_program_is_127(environment: dict[str, str]) -> None:
    done = run(environment, "--", "no-such-program")
    assert done.returncode == 127
    assert done.stderr == "loopfuse: no-such-program: no such program on PATH\n"


def test_a_file_that_is_no_program_is_126(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("just text")
    done = run(environment, "--", str(file))
    assert done.returncode == 126
    assert "can't be run: Permission denied" in done.stderr
    file.chmod(0o755)
    assert run(environment, "--", str(file)).returncode == 126


def test_a_program_that_can_not_be_looked_at_is_126(environment: dict[str, str]) -> None:
    done = run(environment, "--", "/tmp/" + 300 * "x")
    assert (done.returncode, "can't be run" in done.stderr) == (126, True)


def test_a_library_that_can_not_be_looked_at_is_missing(environment: dict[str, str]) -> None:
    done = run(
        environment | {"LOOPFUSE_LIBRARY": "/tmp/" + 300 * "x"}, "--", "sh", "-c", "echo ran"
    )
    assert (done.returncode, done.stdout, "is missing" in done.stderr) == (0, "ran\n", True)


def test_a_script_whose_interpreter_is_missing_is_127(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = run(environment, "--", str(script))
    assert (done.returncode, "check the #! line" in done.stderr) == (127, True)


@pytest.mark.parametrize("argv", [[], ["--after", "x", "true"], ["--after=-1", "true"], ["--hm"]])
def test_a_bad_command_line_is_2(environment: dict[str, str], argv: list[str]) -> None:
    done = run(environment, *argv)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_broker_the_program_runs_plain(
    environment: dict[str, str], tmp_path: Path
) -> None:
    nowhere = {"LOOPFUSE_BROKER": str(tmp_path / "missing" / "broker.sock")}
    done = run(environment | nowhere, "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "sh runs plain" in done.stderr


def test_a_static_program_runs_plain(environment: dict[str, str], tmp_path: Path) -> None:
    source, program = tmp_path / "static.c", tmp_path / "static"
    source.write_text('#include <stdlib.h>\nint main(void) { return getenv("LD_PRELOAD") != 0; }')
    subprocess.run(["gcc", "-static", "-o", str(program), str(source)], check=True)
    done = run(environment, "-v", "--", str(program))
    assert done.returncode == 0
    assert "runs plain: it is statically linked" in done.stderr


def test_the_broker_is_started_once(environment: dict[str, str], tmp_path: Path) -> None:
    running = [
        subprocess.Popen([LOOPFUSE, "run", "--", "sleep", "0.5"], env=environment) for _ in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    done = subprocess.run(
        [LOOPFUSE, "ps", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
    assert len(brokers(tmp_path)) == 1


ORDINARY_USER = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    # The checkout or the interpreter may lie where other users can't look; this much, and no
    # more, is kept of root's powers.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]


def test_an_ordinary_user_can(tmp_path: Path, library: Path) -> None:
    """From `run` to a fused row, without privileges."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(home, 65534, 65534)
    script = f"""
        set -e
        export HOME={home} XDG_RUNTIME_DIR={home} LOOPFUSE_LIBRARY={library}
        unset LOOPFUSE_BROKER
        {LOOPFUSE} run -- {sys.executable} {PROGRAMS}/servers.py thread $0 & server=$!
        until grep -q ":$(printf %04X $0) 00000000:0000 0A" /proc/net/tcp; do sleep 0.1; done
        {LOOPFUSE} run -- {sys.executable} {PROGRAMS}/many_clients.py $0 20
        {LOOPFUSE} ps --json
        kill $server
    """
    prefix = ORDINARY_USER if os.getuid() == 0 else []
    try:
        done = subprocess.run(
            [*prefix, "sh", "-c", script, str(free_port())],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        for pid in brokers(home):
            os.kill(pid, signal.SIGTERM)
    first, _, rest = done.stdout.partition("\n")
    assert first == "80 ok", done.stderr
    fused = [row for row in json.loads(rest) if row["bytes_to_server"] > 0]
    assert fused, rest
    assert {row["client"]["uid"] for row in fused} == {os.getuid() or 65534}
