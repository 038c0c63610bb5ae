"""The demo's world: the specification's manifests, unchanged, before simulated model servers, served as `up` does it."""

from collections.abc import AsyncIterator

import pytest_asyncio

from gwanmun.app.demo import DemoWorld, demo_world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world() -> AsyncIterator[DemoWorld]:
    async with demo_world(concurrency=2) as world:
        yield world
