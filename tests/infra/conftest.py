"""Run directories of their own for every test; whatever Envoy is left in one when the test is over is ended."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from free_ports import free_port
from gwanmun.infra.ending import down
from gwanmun.infra.rundir import RunDir, run_directory


@pytest.fixture
async def runtime() -> AsyncIterator[Path]:
    """A short path, as the paths of sockets have to be; pytest's own are too long."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    yield path
    for rundir in (path / "gwanmun").glob("*"):
        await down(RunDir(rundir, rundir.name), grace=timedelta())
    shutil.rmtree(path)


@pytest.fixture
def rundir(runtime: Path, tmp_path: Path) -> RunDir:
    return run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)})


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def second_port() -> int:
    return free_port()
