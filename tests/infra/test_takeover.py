"""A control plane that is killed outright leaves Envoy serving; the next one takes it over without a lost connection."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gwanmun.infra.rundir import run_directory

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]


@asynccontextmanager
async def control_plane(folder: Path, runtime: Path, port: int, answer: str) -> AsyncIterator[tuple[Process, list[str]]]:
    """Yields the process and what it has said once Envoy serves the answer; killed at the end."""
    script = Path(__file__).parent / "control_plane.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(folder), str(runtime), str(port), answer, stdout=PIPE
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(30):
            while not said or not said[-1].startswith("applied"):
                line = await process.stdout.readline()
                assert line, f"the control plane ended: {said}"
                said.append(line.decode().strip())
        yield process, said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_control_plane_is_replaced_under_load(runtime: Path, tmp_path: Path, port: int) -> None:
    stop = asyncio.Event()
    answers: list[str] = []

    async def load() -> None:
        # One connection, for the whole time: a lost one is an exception here, since there is no other.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not stop.is_set():
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200 ")
            assert "connection: close" not in head
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            answers.append((await reader.readexactly(length)).decode())
        writer.close()

    async with control_plane(tmp_path, runtime, port, "one") as (first, said):
        assert said[0].startswith("Started(")
        pid = said[-1].split()[1]
        loads = [asyncio.create_task(load()) for _ in range(4)]
        first.kill()
        await first.wait()
    served = len(answers)
    async with asyncio.timeout(10):
        while len(answers) < served + 100:  # noqa: ASYNC110  a list tells nobody
            await asyncio.sleep(0.01)
    async with control_plane(tmp_path, runtime, port, "two") as (_, said):
        assert said[0] == f"Adopted(pid={pid})"
        assert said[-1] == f"applied {pid}"
        assert sum(line.startswith(("Adopted", "Started")) for line in said) == 1
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "two"
        stop.set()
        await asyncio.gather(*loads)
    assert answers[0] == "one"
    assert answers[-1] == "two"
    assert run_directory(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)}).read_state().envoys[0].process.pid == int(pid)
