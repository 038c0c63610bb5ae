"""Model servers of two zones: are those of the other zone there when those of the own one have too much to do?

Who takes a request is a draw with weights: shares are held to bounds.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import CLASS, Served, gateway, ref, route, served, simulated

from free_ports import free_port
from gwanmun.sim.faults import Error, RateLimited
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec

pytestmark = pytest.mark.envoy

ADDRESS = "127.0.3.3"
CHAT = "/v1/chat/completions"
SEATS, SPEED = 4, 0.2
"""Few seats, and so slow that the servers are what is short, not this machine's processors."""
ZONES = ("east", "east", "west", "west")


@asynccontextmanager
async def zoned(folder: Path) -> AsyncIterator[tuple[Served, list[SimServer]]]:
    """A gateway in the zone east, and two model servers in each zone, of which each has few seats."""
    specs = [SimSpec(f"{zone}-{n}", "vllm", ("m",), seats=SEATS, zone=zone, speed=SPEED) for n, zone in enumerate(ZONES)]
    port = free_port(ADDRESS)
    async with simulated(*specs) as servers:
        endpoints = ", ".join(f"{{address: 127.0.0.1, port: {one.port}, zone: {one.spec.zone}}}" for one in servers)
        backend = f"""\
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {{name: models}}
spec: {{engine: vllm, endpoints: [{endpoints}]}}
"""
        texts = {"all": CLASS + gateway(port) + backend + route("models", f"{{backendRefs: [{ref('models')}]}}")}
        async with served(folder, texts, port=port, address=ADDRESS, zone="east") as found:
            yield found, servers


async def answers(there: Served, number: int, *, at_a_time: int, tokens: int = 2) -> Counter[str | int]:
    """From which zone the answers came, or which status there was if not 200."""
    body: dict[str, Any] = {"model": "m", "max_tokens": tokens, "messages": [{"role": "user", "content": "Hello"}]}
    left = iter(range(number))
    found: Counter[str | int] = Counter()

    async def ask_on() -> None:
        for _ in left:
            response = await client.post(CHAT, json=body)
            found[response.headers["x-served-zone"] if response.status_code == 200 else response.status_code] += 1

    async with there.client() as client:
        await asyncio.gather(*(ask_on() for _ in range(at_a_time)))
    return found


async def test_the_other_zone_helps_only_where_the_own_one_is_saturated(tmp_path: Path) -> None:
    async with zoned(tmp_path / "m") as (there, _):
        quiet = await answers(there, 100, at_a_time=2)
        assert quiet["west"] <= 10, quiet
        busy = await answers(there, 300, at_a_time=48, tokens=50)
        assert busy["west"] >= 6, busy
        assert busy["east"] + busy["west"] == 300, busy


@pytest.mark.parametrize("fault", [RateLimited(), Error(status=503)])
async def test_the_other_zone_answers_what_the_own_one_refuses(tmp_path: Path, fault: RateLimited | Error) -> None:
    async with zoned(tmp_path / "m") as (there, servers):
        for server in servers[:2]:
            server.set_faults([fault])
        assert await answers(there, 200, at_a_time=8) == {"west": 200}
