"""The demo's world: the specification's manifests, unchanged, before simulated model servers, served as `up` does it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gwanmun.app.demo import DemoWorld, demo_world


@pytest.fixture(scope="session", autouse=True)
def run_directories() -> Iterator[Path]:
    """Run directories of tests are not among the user's. The path is short, since sockets have to fit in it."""
    directory = Path(tempfile.mkdtemp(prefix="gwt-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        yield directory
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world() -> AsyncIterator[DemoWorld]:
    async with demo_world(concurrency=2) as world:
        yield world
