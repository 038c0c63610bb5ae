"""Does a control plane that comes back bring Envoy only what has changed meanwhile, and nobody notices it?

What else there is to a takeover (its messages, `down`, a second control plane) is in `test_process`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from serving import CLASS, HOST, backend, gateway, route, simulated, to, until

from free_ports import free_port
from gwanmun.app.standalone import end
from gwanmun.infra.admin import Admin
from gwanmun.infra.rundir import run_directory
from gwanmun.sim.load import Load, Target, http_request
from gwanmun.sim.spec import SimSpec

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

ADDRESS = "127.0.3.41"
OTHER = "b.example.com"
MADE_ANEW = r"(listener_manager\.listener_(added|modified|removed)|cluster_manager\.cluster_(added|modified|removed))$"
"""What a listener or cluster that is sent again and differs would count in: its connections would be drained."""


@asynccontextmanager
async def up(manifests: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`gwanmun up`, killed outright at the end of the block."""
    command = (sys.executable, "-c", "from gwanmun.cli.main import main; main()", "up", str(manifests))
    process = await asyncio.create_subprocess_exec(*command, "--address", ADDRESS, "--concurrency", "1")
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


AWAY_S = 20
"""Longer than Envoy waits for anything, such as between two tries to reach its control plane."""


async def answered_by(port: int, host: str, server: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{ADDRESS}:{port}", headers={"host": host}, trust_env=False) as client:

        async def server_of_one() -> str:
            try:
                return (await client.get("/")).headers.get("x-served-by", "")
            except httpx.TransportError:
                return ""  # not listening yet

        async with asyncio.timeout(60):
            while await server_of_one() != server:  # noqa: ASYNC110  Envoy tells nobody
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_only_what_changed_while_it_was_away_reaches_envoy(tmp_path: Path) -> None:
    manifests, port = tmp_path / "manifests", free_port(ADDRESS)
    manifests.mkdir()
    async with simulated(SimSpec("one", "echo"), SimSpec("two", "echo")) as [one, two]:
        backends = backend("one", one.port) + backend("two", two.port)
        others = route("keeps-two", to("two"), host="c.example.com")
        (manifests / "a.yaml").write_text(CLASS + gateway(port) + backends + route("stays", to("one")) + others)
        (manifests / "b.yaml").write_text(route("moves", to("one"), host=OTHER))
        rundir = run_directory(manifests, os.environ)
        admin = Admin(rundir.admin_socket)
        load = Load(Target(ADDRESS, port, http_request("GET", HOST, "/")), connections=4, interval=0.01)
        try:
            async with up(manifests):
                await answered_by(port, OTHER, "one")
            envoy = rundir.read_state().envoys
            before = await admin.stats(MADE_ANEW)
            async with load as tally:
                (manifests / "b.yaml").write_text(route("moves", to("two"), host=OTHER))
                await asyncio.sleep(AWAY_S)
                assert tally.answered > 200
                async with up(manifests):
                    await answered_by(port, OTHER, "two")
                    seen = tally.answered
                    await until(lambda: tally.answered > seen + 200)
            assert rundir.read_state().envoys == envoy
            assert await admin.stats(MADE_ANEW) == before
        finally:
            await end((manifests,))
    assert tally.failed == 0, tally.failures
    assert tally.connections == 4  # the same ones all the time
    assert before["listener_manager.listener_added"] == 1
