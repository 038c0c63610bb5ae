"""Simulated servers for one test, stopped at its end."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec

Serve = Callable[[SimSpec], Awaitable[SimServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server on a free port."""
    servers: list[SimServer] = []

    async def start(spec: SimSpec) -> SimServer:
        server = SimServer(spec)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client that gives up soon enough for a test to fail rather than hang."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        yield client
