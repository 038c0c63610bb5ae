"""1,000 HTTPRoutes are attached to a Gateway and detached: how long until its status says so, and how much is written.

Seconds run from the first creation (the deletion) until the listener's attachedRoutes is right. Writes are counted by the API
server itself. Others are known for this by gateway-api-bench, which counts writes of the Gateway's status: kgateway 12 s,
16 s and 323 writes, Cilium 1 s, 18 s and 193. The status that every route needs of its own is counted beside it.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from tests.kubernetes.installed import Installed

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

ROUTES = 1000
PATH = "/apis/gateway.networking.k8s.io/v1/namespaces/scale/httproutes"
AT_A_TIME = 24
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: scale}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: backend, namespace: scale}
spec: {ports: [{port: 80}]}
"""


def route(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"r{number}"},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "hostnames": [f"h{number}.example.com"],
            "rules": [{"backendRefs": [{"name": "backend", "port": 80}]}],
        },
    }


async def status_writes(world: Installed) -> Counter[str]:
    """By resource, how often somebody has written a status of Gateway API's kinds."""
    found: Counter[str] = Counter()
    for line in (await world.cluster.kubectl("get", "--raw", "/metrics")).splitlines():
        if line.startswith("apiserver_request_total{") and 'subresource="status"' in line:
            labels = dict(part.split("=", 1) for part in line[line.index("{") + 1 : line.index("}")].split(",") if "=" in part)
            if labels["verb"] in ('"APPLY"', '"PATCH"', '"PUT"') and "gateway.networking" in labels["group"]:
                found[labels["resource"].strip('"')] += int(float(line.rsplit(" ", 1)[1]))
    return found


async def attached(world: Installed) -> int:
    status = (await world.cluster.get("gateway", "gw", "scale"))["status"]
    return int(status["listeners"][0]["attachedRoutes"])


async def until_attached(world: Installed, number: int, began: float) -> float:
    async def so_many() -> bool:
        return await attached(world) == number

    await world.cluster.eventually(f"{number} routes are attached", so_many, within=90)
    return time.monotonic() - began


async def written(world: Installed, before: Counter[str]) -> Counter[str]:
    """What has been written since, once nothing is written any more."""
    last: Counter[str] = Counter()

    async def settled() -> bool:
        nonlocal last
        now = await status_writes(world)
        same, last = now == last, now
        if not same:
            await asyncio.sleep(1.5)  # longer than whatever is put together to one write
        return same

    await world.cluster.eventually("nothing more is written", settled, within=60)
    return last - before


async def test_1000_routes_are_attached_and_detached(installed_specification: Installed) -> None:
    world = installed_specification
    await world.cluster.kubectl("create", "namespace", "scale")
    await world.cluster.kubectl("apply", "-f", "-", stdin=GATEWAY)

    async def programmed() -> bool:
        conditions = (await world.cluster.get("gateway", "gw", "scale"))["status"]["conditions"]
        return any(one["type"] == "Programmed" and one["status"] == "True" for one in conditions)

    await world.cluster.eventually("the Gateway is programmed", programmed, within=60)
    with world.cluster.network():
        async with world.cluster.client() as client:
            at_a_time = asyncio.Semaphore(AT_A_TIME)

            async def create(number: int) -> None:
                async with at_a_time:
                    try:
                        await client.call("POST", PATH, route(number))
                    except httpx.RemoteProtocolError:  # a kept connection that the server had just closed: once more
                        await client.call("POST", PATH, route(number))

            before, began = await written(world, Counter()), time.monotonic()
            await asyncio.gather(*(create(number) for number in range(ROUTES)))
            created = time.monotonic() - began
            up = await until_attached(world, ROUTES, began)
            writes_up = await written(world, before)
            before, began = await status_writes(world), time.monotonic()
            await client.call("DELETE", PATH)
            deleted = time.monotonic() - began
            down = await until_attached(world, 0, began)
            writes_down = await written(world, before)
    print(f"{ROUTES} routes: attached after {up:.1f} s (created in {created:.1f} s), {dict(writes_up)} writes")
    print(f"{ROUTES} routes: detached after {down:.1f} s (deleted in {deleted:.1f} s), {dict(writes_down)} writes")
    await world.cluster.kubectl("delete", "namespace", "scale", "--wait=false")
    assert writes_up["gateways"] + writes_down["gateways"] < 100
    assert writes_up["httproutes"] <= ROUTES * 1.1
    assert writes_down["httproutes"] <= ROUTES * 0.1, "nobody needs a status that is about to go"
