"""Run directories of their own for every test; whatever Envoy is left in one when the test is over is ended."""

import contextlib
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gwanmun.infra.ending import down
from gwanmun.infra.rundir import RunDir, run_directory


@pytest.fixture
async def runtime() -> AsyncIterator[Path]:
    """A short path, as the paths of sockets have to be; pytest's own are too long."""
    path = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    yield path
    for rundir in (path / "gwanmun").glob("*"):
        await down(RunDir(rundir, rundir.name), grace=timedelta())
    shutil.rmtree(path)


@pytest.fixture
def rundir(runtime: Path, tmp_path: Path) -> RunDir:
    return run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)})


def free_port() -> int:
    """Below the ports that the kernel gives to outgoing connections: one of those could take it before Envoy does."""
    while True:
        candidate = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", candidate))
            return candidate


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def second_port(port: int) -> int:
    return next(other for other in iter(free_port, None) if other != port)
