"""`gwanmun controller` against a real API server: traffic, statuses, identity of proxies, two controllers, an absent server."""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.kubernetes.cluster import Cluster, ClusterError

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
CLASS = ROOT / "conformance" / "gatewayclass.yaml"
SYSTEM = "gwanmun-system"

ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 8080, targetPort: 3000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: echo, port: 8080}]}]
"""
"""A Gateway that leads to the pods of `echo`."""
ECHO = """---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: echo
        image: registry.example/gateway-api/echo-basic:v1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /health, port: 3000}}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
"""
MANIFESTS = ROUTED + ECHO


def of_class(name: str, manifests: str = MANIFESTS) -> str:
    """The same for a GatewayClass of another name."""
    return manifests.replace("gatewayClassName: gwanmun", f"gatewayClassName: {name}")


class Running:
    """A controller as a process of the cluster's network; `port` is its xDS port, `port` + 1 answers /readyz. Of the
    `arguments` those count that come last."""

    def __init__(self, cluster: Cluster, port: int, log: Path, arguments: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        self.port = port
        self.log = log
        self.arguments = arguments
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await self.cluster.start_process(
                str(Path(sys.executable).parent / "gwanmun"),
                "controller",
                f"--namespace={SYSTEM}",
                f"--xds-address={self.cluster.host_address}:18000",
                f"--xds-listen={self.cluster.host_address}:{self.port}",
                f"--metrics-listen=127.0.0.1:{self.port + 1}",
                *self.arguments,
                stdout=log,
                stderr=log,
            )
        await self.cluster.eventually("the controller is ready", self.ready, within=60)

    async def ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        with contextlib.suppress(ClusterError):
            return "ready" in await self.cluster.run("curl", "-sf", f"http://127.0.0.1:{self.port + 1}/readyz")
        return False

    async def metric(self, name: str) -> float:
        text = await self.cluster.run("curl", "-sf", f"http://127.0.0.1:{self.port + 1}/metrics")
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))

    async def end(self, *, kill: bool = False) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 15)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def controller(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A controller that runs for all tests here, with the class `gwanmun`."""
    crds = [path for path in sorted((ROOT / "src/gwanmun/api/crds").glob("*.yaml")) if "gateway.networking" not in path.name]
    await cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in crds))
    await cluster.kubectl("create", "namespace", SYSTEM)
    await cluster.kubectl("apply", "-f", str(CLASS))
    running = Running(cluster, 18000, tmp_path_factory.mktemp("controller") / "log")
    await running.start()
    yield running
    await running.end()


async def served(cluster: Cluster, namespace: str, manifests: str = MANIFESTS) -> str:
    """Apply the manifests; the address of the Gateway when it answers."""
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifests)

    async def programmed() -> str:
        status = (await cluster.get("gateway", "gw", namespace)).get("status") or {}
        states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        addresses = status.get("addresses") or []
        return addresses[0]["value"] if states.get("Programmed") == "True" and addresses else ""

    address: str = await cluster.eventually("the Gateway is programmed", programmed, within=60)

    async def answers() -> bool:
        return "pod" in await cluster.run("curl", "-sf", "-m", "2", f"http://{address}/")

    await cluster.eventually("the Gateway answers", answers, within=15)
    return address


UID = "jsonpath={.metadata.uid}"
LOAD = """
import http.client, json, signal, sys
results = {}
def end(*_):
    print(json.dumps(results))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    connection = http.client.HTTPConnection(sys.argv[1], timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        result = str(answer.status)
    except OSError as error:
        result = repr(error)
    connection.close()
    results[result] = results.get(result, 0) + 1
"""
"""One request after another, each on a connection of its own; at the end how often each result came."""


@contextlib.asynccontextmanager
async def load(cluster: Cluster, address: str) -> AsyncIterator[Counter[str]]:
    """Requests for as long as the block lasts; afterwards the results are in what it gives."""
    results: Counter[str] = Counter()
    process = await cluster.start_process(sys.executable, "-c", LOAD, address, stdout=asyncio.subprocess.PIPE)
    await asyncio.sleep(0.5)  # it is to be under way before anything happens
    try:
        yield results
    finally:
        process.terminate()
        output, _ = await process.communicate()
        results.update(json.loads(output))


async def test_statuses_say_what_is_served(cluster: Cluster, controller: Running, namespace: str) -> None:
    await served(cluster, namespace)
    gateway = (await cluster.get("gateway", "gw", namespace))["status"]
    assert gateway["listeners"][0]["attachedRoutes"] == 1
    (parent,) = (await cluster.get("httproute", "echo", namespace))["status"]["parents"]
    assert parent["controllerName"] == "gwanmun.dev/gateway-controller"
    assert {one["type"]: one["status"] for one in parent["conditions"]} == {"Accepted": "True", "ResolvedRefs": "True"}
    gateway_class = await cluster.get("gatewayclass", "gwanmun")
    assert {"name": "HTTPRoute"} in gateway_class["status"]["supportedFeatures"]


async def test_nothing_is_written_when_nothing_changes(cluster: Cluster, controller: Running, namespace: str) -> None:
    await served(cluster, namespace)
    await cluster.eventually("writes settle", lambda: _settled(controller), within=15)
    before = (await cluster.get("httproute", "echo", namespace))["metadata"]["resourceVersion"]
    writes, touches = await controller.metric("gwanmun_status_writes_total"), 5
    for number in range(touches):
        await cluster.kubectl("label", "--overwrite", "-n", namespace, "service", "echo", f"touched={number}")
        await asyncio.sleep(1.0)  # long enough for a write that must not come
    # Other objects of the cluster may still be written to, the one that was touched would be each time.
    assert await controller.metric("gwanmun_status_writes_total") < writes + touches
    assert (await cluster.get("httproute", "echo", namespace))["metadata"]["resourceVersion"] == before


async def _settled(controller: Running) -> bool:
    first = await controller.metric("gwanmun_status_writes_total")
    await asyncio.sleep(1.0)
    return await controller.metric("gwanmun_status_writes_total") == first


async def test_other_controllers_entries_are_left_alone(cluster: Cluster, controller: Running, namespace: str) -> None:
    await served(cluster, namespace)
    route = await cluster.get("httproute", "echo", namespace)
    theirs = {**route["status"]["parents"][0], "controllerName": "other.example/controller"}
    patch = {"status": {"parents": [theirs, *route["status"]["parents"]]}}
    arguments = ("-n", namespace, "httproute", "echo", "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    await cluster.kubectl("patch", *arguments)
    backend = [{"op": "replace", "path": "/spec/rules/0/backendRefs/0/name", "value": "nobody"}]
    await cluster.kubectl("patch", "-n", namespace, "httproute", "echo", "--type=json", "-p", json.dumps(backend))

    async def both() -> list[dict[str, Any]]:
        parents = (await cluster.get("httproute", "echo", namespace))["status"]["parents"]
        states = {one["reason"] for parent in parents[1:] for one in parent["conditions"]}
        return parents if "BackendNotFound" in states else []

    parents = await cluster.eventually("the broken reference is told", both, within=10)
    assert parents[0] == theirs


async def test_the_fleet_goes_with_its_gateway(cluster: Cluster, controller: Running, namespace: str) -> None:
    await served(cluster, namespace)
    await cluster.kubectl("delete", "-n", namespace, "gateway", "gw")

    async def gone() -> bool:
        left = await cluster.kubectl("get", "-n", namespace, "deployment,service,serviceaccount", "-o", "name")
        return "gw-gwanmun" not in left

    await cluster.eventually("the fleet is gone", gone, within=30)
    assert "deployment.apps/echo" in await cluster.kubectl("get", "-n", namespace, "deployment", "-o", "name")


async def test_what_somebody_deletes_of_a_fleet_or_changes_back_is_there_again(
    cluster: Cluster, controller: Running, namespace: str
) -> None:
    await served(cluster, namespace)
    for kind in ("serviceaccount", "configmap", "service", "deployment", "poddisruptionbudget"):
        before = (await cluster.get(kind, "gw-gwanmun", namespace))["metadata"]["uid"]
        await cluster.kubectl("delete", "-n", namespace, kind, "gw-gwanmun", "--wait=false")

        async def again(kind: str = kind, before: str = before) -> bool:
            found = await cluster.kubectl("get", "-n", namespace, kind, "gw-gwanmun", "--ignore-not-found", "-o", UID)
            return bool(found) and found != before

        await cluster.eventually(f"the {kind} is there again", again, within=20)
    await cluster.kubectl("scale", "-n", namespace, "deployment", "gw-gwanmun", "--replicas=0")

    async def scaled() -> bool:
        return (await cluster.get("deployment", "gw-gwanmun", namespace))["spec"]["replicas"] > 0

    await cluster.eventually("it has its replicas again", scaled, within=30)
    await asyncio.sleep(2.0)  # for what we wrote ourselves to come back to us
    applied = await controller.metric("gwanmun_fleet_applied_total")
    await asyncio.sleep(2.0)
    assert await controller.metric("gwanmun_fleet_applied_total") == applied, "our own writes are no reason to write"


async def condition(cluster: Cluster, namespace: str, gateway: str, name: str) -> dict[str, Any]:
    conditions = (await cluster.get("gateway", gateway, namespace))["status"]["conditions"]
    return next(one for one in conditions if one["type"] == name)


async def test_a_class_that_is_made_anew_costs_no_request(cluster: Cluster, controller: Running, namespace: str) -> None:
    address = await served(cluster, namespace)
    before = (await cluster.get("deployment", "gw-gwanmun", namespace))["metadata"]["uid"]
    async with load(cluster, address) as results:
        await cluster.kubectl("delete", "gatewayclass", "gwanmun")

        async def told() -> bool:
            found = await condition(cluster, namespace, "gw", "Accepted")
            return found["status"] == "Unknown" and "GatewayClass gwanmun does not exist" in found["message"]

        await cluster.eventually("the Gateway says that its class is missing", told, within=20)
        await cluster.kubectl("apply", "-f", str(CLASS))

        async def well() -> bool:
            found = [await condition(cluster, namespace, "gw", name) for name in ("Accepted", "Programmed")]
            return [one["status"] for one in found] == ["True", "True"]

        await cluster.eventually("all is as it was", well, within=20)
    assert set(results) == {"200"}
    assert (await cluster.get("deployment", "gw-gwanmun", namespace))["metadata"]["uid"] == before


async def test_a_gateway_does_not_get_the_proxies_of_another_one(cluster: Cluster, controller: Running, namespace: str) -> None:
    """`gw` of class `x-gwanmun` and `gw-x` of class `gwanmun` would both have proxies that are called `gw-x-gwanmun`."""
    await cluster.kubectl("apply", "-f", "-", stdin=CLASS.read_text().replace("name: gwanmun", "name: x-gwanmun"))
    try:
        address = await served(cluster, namespace, of_class("x-gwanmun"))
        async with load(cluster, address) as results:
            other = ROUTED.partition("---")[0].replace("name: gw}", "name: gw-x}")
            await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=other)

            async def told() -> bool:
                found = (await cluster.get("gateway", "gw-x", namespace))["status"].get("conditions", ())
                return any(f"is that of the proxies of Gateway {namespace}/gw:" in one["message"] for one in found)

            await cluster.eventually("the new Gateway says who has them", told, within=20)
        assert set(results) == {"200"}
        assert (await condition(cluster, namespace, "gw", "Programmed"))["status"] == "True"
        assert (await condition(cluster, namespace, "gw-x", "Programmed"))["status"] == "False"
        await cluster.kubectl("delete", "gateway", "gw", "gw-x", "-n", namespace)
    finally:
        await cluster.kubectl("delete", "gatewayclass", "x-gwanmun")


async def test_it_serves_on_while_the_api_server_is_away(cluster: Cluster, controller: Running, namespace: str) -> None:
    address = await served(cluster, namespace)
    async with load(cluster, address) as results:
        async with cluster.without("kube-apiserver"):
            await asyncio.sleep(5.0)
        await asyncio.sleep(1.0)
    assert set(results) == {"200"}
    assert results["200"] > 50
    assert await controller.ready()
    weight = [{"op": "add", "path": "/spec/hostnames", "value": ["only.example"]}]
    await cluster.kubectl("patch", "-n", namespace, "httproute", "echo", "--type=json", "-p", json.dumps(weight))

    async def followed() -> bool:
        return "404" in await cluster.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/")

    await cluster.eventually("changes are followed again", followed, within=20)


async def test_the_other_controller_takes_over(cluster: Cluster, controller: Running, namespace: str, tmp_path: Path) -> None:
    address = await served(cluster, namespace)
    second = Running(cluster, 18100, tmp_path / "second.log")
    await second.start()
    try:
        assert await controller.metric("gwanmun_leading") == 1
        assert await second.metric("gwanmun_leading") == 0
        async with load(cluster, address) as results:
            await controller.end(kill=True)

            async def leads() -> bool:
                return await second.metric("gwanmun_leading") == 1

            await cluster.eventually("the second controller leads", leads, within=30)
            await cluster.kubectl("delete", "-n", namespace, "httproute", "echo", "--wait=true")

            async def noticed() -> bool:
                status = (await cluster.get("gateway", "gw", namespace))["status"]
                return bool(status["listeners"][0]["attachedRoutes"] == 0)

            await cluster.eventually("it writes statuses", noticed, within=10)
        assert set(results) <= {"200", "404"}, "the route was deleted in the end"
        assert results["200"] > 50
    finally:
        await controller.start()
        await second.end()
