"""Tests that need a Kubernetes cluster are run by `pytest -m kubernetes` only: they need Go, root and some 700 MB.

Without that expression they are deselected, so that the tests of a fresh checkout need neither.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installed import Installed, specification_installed


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kubernetes: needs the test cluster (Go and root); only by -m kubernetes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "kubernetes" in config.option.markexpr:
        return
    needing = [item for item in items if item.get_closest_marker("kubernetes")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """One cluster for all tests of this process; a test takes a namespace of its own."""
    async with Cluster() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A namespace named after the test, with nothing in it; its removal goes on after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    await cluster.kubectl("create", "namespace", name)
    yield name
    await cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed_specification() -> AsyncIterator[Installed]:
    """The specification's world, in a cluster of its own, for all tests that leave it as they found it."""
    async with specification_installed() as world:
        yield world
