"""Do proxies send to the pods of their own node or zone where a Service asks for that, each to its own?

Three proxies in three zones of two nodes each. Pods are put on nodes by name: one on the node of the first proxy, one on the
other node of its zone, one on the node of the second proxy, and none in the zone of the third.
"""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.kubernetes.installed import Installed
from tests.kubernetes.test_controller import ROUTED, of_class

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

REQUESTS = 300
MOST = 0.97
"""The share that near pods get at least. Further ones count a thousandth of them, as long as near ones have little to do."""
SOME = 0.1
"""The share that each of several pods gets at least that are as good as one another."""

Proxy = dict[str, Any]

MANIFESTS = of_class("kgateway", ROUTED)
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: echo}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: registry.example/gateway-api/echo-basic:v1
    env:
    - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
    readinessProbe: {{httpGet: {{path: /health, port: 3000}}, periodSeconds: 1}}
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """The proxies of the first, the second and the third zone, and the namespace of the Gateway and its pods."""

    world: Installed
    namespace: str
    proxies: tuple[Proxy, Proxy, Proxy]

    async def prefer(self, distribution: str | None) -> None:
        patch = json.dumps({"spec": {"trafficDistribution": distribution}})
        await self.world.cluster.kubectl("patch", "-n", self.namespace, "service", "echo", "--type=merge", "-p", patch)

    async def delete(self, *pods: str) -> None:
        await self.world.cluster.kubectl("delete", "pod", "-n", self.namespace, *pods, "--wait=false")

    async def until(self, proxy: Proxy, *names: str) -> None:
        """These pods get most requests of a proxy, and each of them some."""

        async def reached() -> bool:
            found = await answers(self.world, proxy, 50)
            return all(found[name] >= SOME * 50 for name in names) and sum(found[name] for name in names) >= 49

        await self.world.cluster.eventually(f"{proxy['spec']['nodeName']} sends to {names}", reached)
        found = await answers(self.world, proxy)
        print(proxy["spec"]["nodeName"], dict(found))
        assert found.total() == REQUESTS
        assert sum(found[name] for name in names) >= MOST * REQUESTS
        assert all(found[name] >= SOME * REQUESTS for name in names)


@pytest_asyncio.fixture(loop_scope="session")
async def placed(installed_specification: Installed, request: pytest.FixtureRequest) -> AsyncIterator[Placed]:
    """`here` is on the node of the first proxy, `beside` in its zone, `there` on the node of the second."""
    world, cluster = installed_specification, installed_specification.cluster
    namespace = re.sub("[^a-z]+", "-", request.node.name.lower()).strip("-")[-50:].strip("-")
    await cluster.kubectl("create", "namespace", namespace)
    try:
        await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=MANIFESTS)
        first, second, third = await proxies(world, namespace)
        here, there = first["spec"]["nodeName"], second["spec"]["nodeName"]
        beside = here[:-1] + ("1" if here.endswith("0") else "0")
        nodes = {"here": here, "beside": beside, "there": there}
        pods = "---".join(POD.format(name=name, node=node) for name, node in nodes.items())
        await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pods)
        yield Placed(world, namespace, (first, second, third))
    finally:
        await cluster.kubectl("delete", "namespace", namespace, "--wait=false")


async def proxies(world: Installed, namespace: str) -> list[Proxy]:
    """The proxies of the Gateway when all three are ready."""

    async def ready() -> Any:
        found = await world.pods(namespace, "gateway.networking.k8s.io/gateway-name=gw")
        states = [{one["type"]: one["status"] for one in pod["status"].get("conditions", ())} for pod in found.values()]
        return list(found.values()) if [one.get("Ready") for one in states] == ["True"] * 3 else None

    found: list[Proxy] = await world.cluster.eventually("three proxies are ready", ready, within=60)
    return found


async def answers(world: Installed, proxy: Proxy, requests: int = REQUESTS) -> Counter[str]:
    """How many requests to this proxy each pod has answered; a request that failed counts for nobody."""
    url = f"http://{proxy['status']['podIP']}:10080/?[1-{requests}]"
    text = await world.cluster.run("curl", "-s", "-m", "60", url)
    return Counter(re.findall(r'"pod": ?"([^"]+)"', text))


async def streams(world: Installed, proxy: Proxy) -> float:
    """How many xDS streams a proxy has begun so far."""
    text = await world.cluster.run("curl", "-sf", f"http://{proxy['status']['podIP']}:9090/metrics")
    lines = [line for line in text.splitlines() if line.startswith("envoy_cluster_upstream_rq_total{") and "xds" in line]
    (line,) = lines
    return float(line.split()[-1])


async def test_each_proxy_sends_to_the_pods_of_its_node(placed: Placed) -> None:
    first, second, third = placed.proxies
    for proxy in placed.proxies:
        await placed.until(proxy, "here", "beside", "there")
    begun = [await streams(placed.world, proxy) for proxy in placed.proxies]
    await placed.prefer("PreferSameNode")
    await placed.until(first, "here")
    await placed.until(second, "there")
    await placed.until(third, "here", "beside", "there")
    await placed.delete("here")
    await placed.until(first, "beside")
    await placed.until(second, "there")
    await placed.prefer(None)
    for proxy in placed.proxies:
        await placed.until(proxy, "beside", "there")
    assert [await streams(placed.world, proxy) for proxy in placed.proxies] == begun, "nobody had to connect again"


@pytest.mark.parametrize("distribution", ["PreferClose", "PreferSameZone"])
async def test_each_proxy_sends_to_the_pods_of_its_zone_and_beyond_when_they_go(placed: Placed, distribution: str) -> None:
    first, second, third = placed.proxies
    await placed.prefer(distribution)
    await placed.until(first, "here", "beside")
    await placed.until(second, "there")
    await placed.until(third, "here", "beside", "there")
    await placed.delete("here", "beside")
    for proxy in placed.proxies:
        await placed.until(proxy, "there")
