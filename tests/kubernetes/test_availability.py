"""Does no request fail while a controller, a proxy or the API server goes away?

The load are chat completions over HTTPS through the load balancer, on connections that are kept and on new ones. A request
counts as failed if it was not answered with 200, for whatever reason. The API server is away for a minute, or for as long as
GWANMUN_TEST_OUTAGE_S says.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator

import pytest
from tests.kubernetes.installed import CONTROLLER, SYSTEM, Installed, kill

from gwanmun.app.demo import GATEWAY
from gwanmun.sim.load import Load, Tally

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

OUTAGE_S = float(os.environ.get("GWANMUN_TEST_OUTAGE_S", "60"))
SAYS_WITHIN_S = 15.0
KEPT, NEW = 3, 2
"""Connections of either kind at a time."""


@contextlib.asynccontextmanager
async def load(world: Installed, *, kept_connections: int = KEPT) -> AsyncIterator[tuple[Tally, Tally]]:
    """Load on kept connections and on new ones, until the block ends; the world's network is that of this thread."""
    with world.cluster.network():
        async with (
            Load(world.chat(), connections=kept_connections) as kept,
            Load(world.chat(), connections=NEW, requests_per_connection=5) as new,
        ):
            await world.cluster.eventually("the load is under way", lambda: _answered(kept, new, 50))
            yield kept, new


async def _answered(kept: Tally, new: Tally, least: int) -> bool:
    return min(kept.answered, new.answered) >= least


def without_failure(kept: Tally, new: Tally) -> None:
    print(f"{kept.answered} answers on kept connections, {new.answered} on {new.connections} new ones")
    assert kept.failed == 0, kept.failures
    assert new.failed == 0, new.failures
    assert kept.answered > 200
    assert new.connections > 30


async def change_of_route_arrives(world: Installed) -> float:
    """Let a header that nobody has sent yet lead to claude-3; the seconds until it does. It is taken back in the end."""
    value = f"model-{time.monotonic_ns()}"
    route = ("httproute", "model-header-routing", "-n", GATEWAY.namespace)
    path = "/spec/rules/1/matches/0/headers/0/value"
    began = time.monotonic()
    await world.cluster.kubectl("patch", *route, "--type=json", "-p", json.dumps([_replaced(path, value)]))

    async def arrived() -> bool:
        return await world.served_by(value) == "vllm-claude3"

    try:
        await world.cluster.eventually("the change arrives", arrived, within=SAYS_WITHIN_S)
        return time.monotonic() - began
    finally:
        await world.cluster.kubectl("patch", *route, "--type=json", "-p", json.dumps([_replaced(path, "claude-3")]))


def _replaced(path: str, value: str) -> dict[str, str]:
    return {"op": "replace", "path": path, "value": value}


async def test_the_leader_is_killed_and_the_other_takes_over(installed_specification: Installed) -> None:
    world = installed_specification
    leader = await world.leader()
    (other,) = set(await world.controllers()) - {leader}
    async with load(world) as tallies:
        assert kill(leader, "controller")
        began = time.monotonic()
        routed = await change_of_route_arrives(world)  # both serve proxies: nobody waits for the election

        async def leads() -> bool:
            return await world.metric(other, "gwanmun_leading") == 1

        await world.cluster.eventually("the other controller leads", leads, within=40)
        led = time.monotonic() - began
        written = await status_is_written(world)
    print(f"a route change took {routed:.2f} s, the next leader {led:.1f} s, a status then {written:.2f} s")
    without_failure(*tallies)
    await world.rolled_out(SYSTEM, CONTROLLER)


async def status_is_written(world: Installed) -> float:
    """Seconds until a change of a route is acknowledged in its status."""
    route = ("httproute", "path-based-routing", "-n", GATEWAY.namespace)
    began = time.monotonic()
    patch = {"spec": {"hostnames": ["inference.example.com", f"x{time.monotonic_ns()}.example.com"]}}
    await world.cluster.kubectl("patch", *route, "--type=merge", "-p", json.dumps(patch))

    async def acknowledged() -> bool:
        found = await world.cluster.get("httproute", "path-based-routing", GATEWAY.namespace)
        generations = {one["observedGeneration"] for parent in found["status"]["parents"] for one in parent["conditions"]}
        return generations == {found["metadata"]["generation"]}

    await world.cluster.eventually("the status is written", acknowledged, within=SAYS_WITHIN_S)
    seconds = time.monotonic() - began
    patch = {"spec": {"hostnames": ["inference.example.com"]}}
    await world.cluster.kubectl("patch", *route, "--type=merge", "-p", json.dumps(patch))
    return seconds


async def test_a_proxy_is_deleted(installed_specification: Installed) -> None:
    world = installed_specification
    gone = next(iter(await world.proxies()))
    async with load(world) as tallies:
        await world.cluster.kubectl("delete", "pod", gone, "-n", GATEWAY.namespace, "--wait=true", "--timeout=60s")
        await three_proxies(world)
    without_failure(*tallies)


async def three_proxies(world: Installed) -> None:
    async def ready() -> bool:
        return len(await world.proxies()) == 3

    await world.cluster.eventually("there are three proxies", ready, within=30)
    await world.rolled_out(GATEWAY.namespace, f"{GATEWAY.name}-kgateway")


async def test_a_proxy_crashes(installed_specification: Installed) -> None:
    """Connections end with the process that holds them, and with each at most the one request that was under way on it;
    nothing can answer that. No other request fails: what comes on a new connection goes to the others at once."""
    world = installed_specification
    crashed = next(iter(await world.proxies()))
    connections = 9
    async with load(world, kept_connections=connections) as (kept, new):
        assert kill(crashed, "envoy")
        async with Load(world.chat(), connections=4, requests_per_connection=3) as after:
            await asyncio.sleep(3.0)  # long enough for the crash to be noticed everywhere and the proxy to come back
            await three_proxies(world)
    assert after.failed == 0, after.failures
    assert after.connections > 20
    broken = kept.failed + new.failed
    print(
        f"{broken} requests, of {connections + NEW} at a time, were under way in the crashed proxy; "
        f"{after.answered} others were answered"
    )
    assert broken <= connections + NEW, (kept.failures, new.failures)


async def test_the_api_server_is_away(installed_specification: Installed) -> None:
    world = installed_specification
    async with load(world) as tallies:
        async with world.cluster.without("kube-apiserver"):
            await asyncio.sleep(OUTAGE_S)
        routed = await change_of_route_arrives(world)
        written = await status_is_written(world)
    print(f"after {OUTAGE_S:.0f} s without an API server: a route change took {routed:.2f} s, a status {written:.2f} s")
    without_failure(*tallies)
    await three_proxies(world)


async def test_all_controllers_are_away(installed_specification: Installed) -> None:
    world = installed_specification
    async with load(world) as tallies:
        await world.cluster.kubectl("scale", "-n", SYSTEM, f"deployment/{CONTROLLER}", "--replicas=0")

        async def gone() -> bool:
            return not await world.controllers()

        await world.cluster.eventually("no controller is left", gone, within=45)
        await asyncio.sleep(5.0)
        await world.cluster.kubectl("scale", "-n", SYSTEM, f"deployment/{CONTROLLER}", "--replicas=2")
        await world.rolled_out(SYSTEM, CONTROLLER)
        routed = await change_of_route_arrives(world)
    print(f"after they came back a route change took {routed:.2f} s")
    without_failure(*tallies)
