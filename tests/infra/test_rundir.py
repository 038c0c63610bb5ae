"""The run directory: always the same one, ours alone, one control plane at a time."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from gwanmun.infra.ending import Ended, down
from gwanmun.infra.processes import Process
from gwanmun.infra.rundir import AlreadyRunningError, EnvoyProcess, Lock, RunDir, RunDirError, State, run_directory


def test_the_same_folder_has_the_same_directory(runtime: Path, tmp_path: Path, monkeypatch) -> None:
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    (tmp_path / "My Models" / "below").mkdir(parents=True)
    found = run_directory(tmp_path / "My Models", environ)
    monkeypatch.chdir(tmp_path / "My Models" / "below")
    for named in ("..", "../../My Models", "../below/../.", str(tmp_path / "My Models/")):
        assert run_directory(Path(named), environ).path == found.path
    assert run_directory(tmp_path, environ).path != found.path
    assert found.path.parent == runtime / "gwanmun"
    assert found.name.startswith("my-models-")
    assert found.path.stat().st_mode & 0o777 == 0o700


def test_a_link_has_the_same_directory_wherever_it_leads(runtime: Path, tmp_path: Path) -> None:
    environ, link = {"XDG_RUNTIME_DIR": str(runtime)}, tmp_path / "current"
    found = set()
    for version in ("1", "2"):
        (tmp_path / version / "below").mkdir(parents=True)
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / version / "below")
        found.add(run_directory(link, environ).path)
        # What `..` means behind a link is what the kernel says.
        assert run_directory(link / ".." / "below", environ).path == run_directory(tmp_path / version / "below", environ).path
    assert len(found) == 1


def test_without_a_runtime_directory_the_home_is_used(runtime: Path, tmp_path: Path) -> None:
    assert run_directory(tmp_path, {"HOME": str(runtime)}).path.parent == runtime / ".local" / "state" / "gwanmun"


def test_sockets_need_a_short_path(runtime: Path, tmp_path: Path) -> None:
    long = runtime / ("x" * 80)
    long.mkdir()
    found = run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(long), "HOME": str(runtime)})
    assert found.path.parent == runtime / ".local" / "state" / "gwanmun"
    assert len(str(found.hot_restart_socket)) + len("_udp_parent_2684354559") < 104


def test_a_directory_that_others_prepared_is_refused(runtime: Path, tmp_path: Path) -> None:
    (runtime / "elsewhere").mkdir()
    (runtime / "gwanmun").symlink_to(runtime / "elsewhere")
    with pytest.raises(RunDirError, match="is not a directory of ours"):
        run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)})
    (runtime / "gwanmun").unlink()


def test_an_open_directory_is_closed(runtime: Path, tmp_path: Path) -> None:
    (runtime / "gwanmun").mkdir()
    (runtime / "gwanmun").chmod(0o777)
    run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)})
    assert (runtime / "gwanmun").stat().st_mode & 0o777 == 0o700


def test_state_comes_back_or_is_empty(rundir: RunDir) -> None:
    assert rundir.read_state() == State()
    state = State((EnvoyProcess(Process(1, "boot/2"), 3, "f", "1.40.0"),))
    rundir.write_state(state)
    assert rundir.read_state() == state
    rundir.write("state.json", b'{"envoys": [{"pid": 3}]}')
    assert rundir.read_state() == State()


def test_two_control_planes_do_not_share_a_folder(rundir: RunDir) -> None:
    with Lock(rundir):
        with pytest.raises(AlreadyRunningError, match=rf"\(process {os.getpid()}\).*gwanmun down") as refused:
            Lock(rundir).take()
        assert refused.value.pid == os.getpid()
    with Lock(rundir):
        pass


_HOLDER = """
import sys, time
from pathlib import Path
from gwanmun.infra.rundir import Lock, RunDir
lock = Lock(RunDir(Path(sys.argv[1]), "models")).take()
print("held", flush=True)
time.sleep(60)
"""


async def holder(rundir: RunDir) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(rundir.path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    return process


async def test_a_killed_control_plane_holds_nothing(rundir: RunDir) -> None:
    process = await holder(rundir)
    with pytest.raises(AlreadyRunningError) as refused:
        Lock(rundir).take()
    assert refused.value.pid == process.pid
    process.kill()
    await process.wait()
    with Lock(rundir):
        pass


async def test_down_ends_the_control_plane_first(rundir: RunDir) -> None:
    process = await holder(rundir)
    assert await down(rundir, grace=timedelta(seconds=1)) == Ended(process.pid, ())
    assert await process.wait() == -signal.SIGTERM
