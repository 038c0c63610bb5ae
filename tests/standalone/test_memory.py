"""Bodies that never end fill the gateway up to its bound; then new requests are refused, until those are gone."""

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from serving import ADDRESS, CLASS, HOST, Served, backend, gateway, ref, route, served, simulated

from free_ports import free_port
from gwanmun.app import standalone
from gwanmun.sim.spec import SimSpec

pytestmark = [pytest.mark.envoy, pytest.mark.native]

MIB = 1 << 20
BOUND = 192 * MIB
LOOKS_S = 0.5
"""Longer than between two looks of Envoy at its memory: what comes in between is not seen in time."""
BY_MODEL = f"{{matches: [{{headers: [{{name: x-model-id, value: m}}]}}], backendRefs: [{ref('echo')}]}}"
BY_PATH = f"{{matches: [{{path: {{value: /v1}}}}], backendRefs: [{ref('echo')}]}}"


async def unfinished(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which the last byte never comes."""
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        f"content-length: {30 * MIB + 1}\r\n\r\n".encode()
    )
    with contextlib.suppress(ConnectionError, TimeoutError):  # answered, and not read any more
        writer.write(b'{"x": "'.ljust(30 * MIB, b"x"))
        await asyncio.wait_for(writer.drain(), 5)
    return reader, writer


def peak(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no such process")


async def answers(served: Served, status: int) -> httpx.Response:
    """The first answer with that status; Envoy looks at its memory four times a second."""
    async with asyncio.timeout(15):
        while (response := await served.ask("/v1/models")).status_code != status:  # noqa: ASYNC110  Envoy tells nobody
            await asyncio.sleep(0.1)
    return response


async def test_held_bodies_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "machine_heap", lambda memory: BOUND)
    port = free_port(ADDRESS)
    async with simulated(SimSpec("echo", "echo")) as (echo,):
        texts = {"all": CLASS + gateway(port) + backend("echo", echo.port) + route("r", BY_MODEL, BY_PATH)}
        async with served(tmp_path / "manifests", texts, port=port) as found:
            pid = found.gateway.status()["envoy"]["pid"]
            held = []
            while (answer := await found.ask("/v1/models")).status_code == 200:
                assert len(held) < 12, "so many are 430 MiB"
                held.append(await unfinished(port))
                await asyncio.sleep(LOOKS_S)
            assert answer.text == "envoy overloaded"
            assert peak(pid) < BOUND + 140 * MIB, "code is no heap"
            for _, writer in held:
                writer.close()
            await answers(found, 200)
