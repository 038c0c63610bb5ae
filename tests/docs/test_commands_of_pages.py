"""Do the commands of the pages work as written? They run in order, in a shell, as a reader would run them.

Two things are different: it happens on a loopback address of the tests' own, and the ports that a reader reads off the
screen are read from `status`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from applied import EXAMPLES, loopback
from pages import DOCS, Block, blocks, pages

pytestmark = [pytest.mark.envoy, pytest.mark.native, pytest.mark.shell, pytest.mark.slow]

ADDRESS = loopback(20)
_PATIENCE_S = 60.0


class Reader:
    """Somebody at a keyboard. Owns what they have started, until `leave`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: list[subprocess.Popen[bytes]] = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "EXAMPLES": str(EXAMPLES), "COLUMNS": "200"}

    def do(self, block: Block) -> None:
        match block.mark:
            case "start":
                self._start(block)
            case "run":
                self._expect(["bash", "-euo", "pipefail", "-c", here(block.text)], block.words)
            case "python":
                self._expect([sys.executable, "-c", here(block.text)], block.words)
            case _:
                assert block.mark in ("", "from"), block.mark

    def leave(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(_PATIENCE_S)

    def _expect(self, command: list[str], words: str) -> None:
        """Run it until it says the words: a change of a file is in force a moment later."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            ran = subprocess.run(command, cwd=self._home, env=self._environment, capture_output=True, text=True, check=False)
            said = ran.stdout + ran.stderr
            if ran.returncode == 0 and words in said:
                return
            assert time.monotonic() < until, f"{command[-1]}\nsays:\n{said}"
            time.sleep(0.1)

    def _start(self, block: Block) -> None:
        log = self._home / f"{len(self._started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {here(block.text)}"],
                cwd=self._home,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        until = time.monotonic() + _PATIENCE_S
        while block.words not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        if " up " in block.text:
            self._note_ports()

    def _note_ports(self) -> None:
        told = subprocess.run(
            ["gwanmun", "status", "manifests", "-o", "json"],
            cwd=self._home,
            env=self._environment,
            capture_output=True,
            check=True,
        )
        bound = {entry["port"]: entry["address"].rpartition(":")[2] for entry in json.loads(told.stdout)["addresses"]}
        self._environment |= {"HTTPS": bound[443], "HTTP": bound[80]}


def here(text: str) -> str:
    """The command on the tests' address."""
    text = text.replace("gwanmun up manifests", f"gwanmun up manifests --address {ADDRESS} --concurrency 1")
    return text.replace(",port=", f",host={ADDRESS},port=").replace("127.0.0.1", ADDRESS)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.leave()


@pytest.mark.parametrize("page", ["tutorial.md", "how-to/simulate-model-servers.md"])
def test_a_reader_gets_what_the_page_says(reader: Reader, page: str) -> None:
    for block in blocks(DOCS / page):
        reader.do(block)


def test_no_page_has_commands_that_nobody_runs() -> None:
    marked = {page for page in pages() if any(block.mark in ("run", "start", "python") for block in blocks(page))}
    assert marked == {DOCS / "tutorial.md", DOCS / "how-to/simulate-model-servers.md"}
