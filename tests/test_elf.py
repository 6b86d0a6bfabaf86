"""What kind of program a file is."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopfuse._elf import Obstacle, examine, find_program


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dynamic` and `static`, compiled."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "main.c"
    source.write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-o", str(folder / "dynamic"), str(source)], check=True)
    subprocess.run(["gcc", "-static", "-o", str(folder / "static"), str(source)], check=True)
    return folder


def test_a_dynamic_program_has_no_obstacle(built: Path) -> None:
    program = examine(built / "dynamic")
    assert program.obstacle is None
    assert program.interpreter is not None
    assert Path(program.interpreter).exists()


def test_a_static_program_can_not_load_a_library(built: Path) -> None:
    assert examine(built / "static").obstacle is Obstacle.STATIC


def test_a_musl_program_can_not_load_a_glibc_library(built: Path, tmp_path: Path) -> None:
    interpreter = examine(built / "dynamic").interpreter
    assert interpreter is not None
    image = (built / "dynamic").read_bytes()
    other = b"/lib/ld-musl-x.so.1".ljust(len(interpreter), b"\0")
    musl = tmp_path / "musl"
    musl.write_bytes(image.replace(interpreter.encode(), other, 1))
    assert examine(musl).obstacle is Obstacle.MUSL


@pytest.mark.parametrize(("offset", "value"), [(4, 1), (18, 8)])
def test_a_program_for_another_machine_is_foreign(
    built: Path, tmp_path: Path, offset: int, value: int
) -> None:
    image = bytearray((built / "dynamic").read_bytes())
    image[offset] = value  # the word size; the machine (8: MIPS)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(image)
    assert examine(foreign).obstacle is Obstacle.FOREIGN


def test_a_setuid_program_ignores_preloading(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "setuid"
    shutil.copy(built / "dynamic", copy)
    copy.chmod(0o4755)
    assert examine(copy).obstacle is Obstacle.PRIVILEGED


def test_a_program_with_capabilities_ignores_preloading(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "capable"
    shutil.copy(built / "dynamic", copy)
    try:  # capabilities(7): VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE
        os.setxattr(copy, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    except PermissionError:
        pytest.skip("file capabilities are root's to give")
    assert examine(copy).obstacle is Obstacle.PRIVILEGED


def test_a_script_is_judged_by_its_interpreter(built: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    for interpreter, obstacle in (("dynamic", None), ("static", Obstacle.STATIC)):
        script.write_text(f"#!{built / interpreter} -x\n")
        program = examine(script)
        assert (program.binary, program.obstacle) == (built / interpreter, obstacle)


def test_a_script_run_through_env_is_judged_by_what_env_runs(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(built), prepend=":")
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env static\n")
    assert examine(script).obstacle is Obstacle.STATIC


def test_scripts_that_call_each_other_for_ever_end(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{script}\n")
    assert examine(script).obstacle is Obstacle.NOT_ELF


def test_programs_are_found_as_execvp_finds_them(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(built))
    assert find_program("static") == built / "static"
    assert find_program("main.c") is None  # not executable
    assert find_program("./main.c") is None
    assert find_program(str(built / "main.c")) == built / "main.c"


@settings(
    max_examples=200,
    deadline=None,  # on a busy machine none holds
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_garbage_never_surprises(built: Path, tmp_path: Path, data: st.DataObject) -> None:
    image = bytearray((built / "dynamic").read_bytes()[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(4, 400))] = data.draw(st.integers(0, 255))
    file = tmp_path / "garbage"
    file.write_bytes(image[: data.draw(st.integers(0, len(image)))])
    assert examine(file).obstacle in {None, *Obstacle}
