"""Run directories of these tests are not among the user's."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def run_directories() -> Iterator[Path]:
    """The path is short, since sockets have to fit in it."""
    directory = Path(tempfile.mkdtemp(prefix="gwd-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        yield directory
    shutil.rmtree(directory)
