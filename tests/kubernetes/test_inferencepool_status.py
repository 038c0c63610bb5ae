"""InferencePools on a real API server: their pods are followed, and what becomes of them is written in their status.

How pickers are asked, and each case of the Inference Extension's suite, is the business of `tests/envoy/test_inferencepool.py`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.kubernetes.installed import Installed

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

HOST = "pools.example.com"
POOLS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: pools, namespace: pools}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: member, namespace: pools}
spec:
  replicas: 3
  selector: {matchLabels: {app: member}}
  template:
    metadata: {labels: {app: member}}
    spec:
      containers:
      - name: echo
        image: registry.example/gateway-api/echo-basic:v1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /health, port: 3000}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: members, namespace: pools}
spec:
  selector: {matchLabels: {app: member}}
  targetPorts: [{number: 3000}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pickerless, namespace: pools}
spec:
  selector: {matchLabels: {app: member}}
  targetPorts: [{number: 3000}]
  endpointPickerRef: {name: non-existent, port: {number: 9002}}
"""


def route(name: str, path: str, pool: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: pools}}
spec:
  parentRefs: [{{name: pools}}]
  hostnames: [{HOST}]
  rules:
  - matches: [{{path: {{value: {path}}}}}]
    backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: {pool}, port: 8888}}]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(installed_specification: Installed) -> AsyncIterator[Installed]:
    cluster = installed_specification.cluster
    routes = [route("good", "/good", "members"), route("missing", "/missing", "nothing"), route("bad", "/bad", "pickerless")]
    await cluster.kubectl("create", "namespace", "pools")
    await cluster.kubectl("apply", "-f", "-", stdin="---".join((POOLS, *routes)))
    await installed_specification.rolled_out("pools", "member")
    yield installed_specification
    await cluster.kubectl("delete", "namespace", "pools", "--wait=false")


async def conditions(world: Installed, kind: str, name: str) -> dict[str, tuple[str, str]]:
    """Status and reason of every condition, by type, of the object's only parent; nothing where it has none."""
    parents = (await world.cluster.get(kind, name, "pools")).get("status", {}).get("parents", [])
    return {one["type"]: (one["status"], one["reason"]) for parent in parents for one in parent["conditions"]}


async def asked(world: Installed, path: str) -> tuple[int, str]:
    """The status of a request through the Gateway, and the pod that answered; 0 while there is no address."""
    status: dict[str, Any] = (await world.cluster.get("gateway", "pools", "pools")).get("status", {})
    if not status.get("addresses"):
        return 0, ""
    text = await world.cluster.run(
        *("curl", "-s", "-m", "5", "-w", "\n%{http_code}", "-H", f"host: {HOST}"),
        f"http://{status['addresses'][0]['value']}{path}",
    )
    body, _, code = text.rpartition("\n")
    return int(code), json.loads(body).get("pod", "") if code == "200" else ""


async def answering(world: Installed) -> set[str]:
    return {pod for _, pod in [await asked(world, "/good") for _ in range(20)]}


async def test_a_pool_is_accepted_and_its_pods_answer(world: Installed) -> None:
    async def all_answer() -> bool:
        return await answering(world) == set(await world.pods("pools", "app=member"))

    await world.cluster.eventually("all pods of the pool answer", all_answer, within=60)
    found = await conditions(world, "inferencepool", "members")
    assert found == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert await conditions(world, "httproute", "good") == found  # the port of a reference to a pool means nothing


async def test_a_pool_grows_and_shrinks_with_its_pods(world: Installed) -> None:
    for replicas in (1, 3):
        await world.cluster.kubectl("scale", "deployment/member", "-n", "pools", f"--replicas={replicas}")

        async def follows(wanted: int = replicas) -> bool:
            pods = set(await world.pods("pools", "app=member"))
            return len(pods) == wanted and await answering(world) == pods

        await world.cluster.eventually(f"{replicas} pods answer", follows, within=60)


async def test_a_pool_that_does_not_exist_is_the_routes_problem(world: Installed) -> None:
    async def told() -> bool:
        return (await conditions(world, "httproute", "missing")).get("ResolvedRefs") == ("False", "BackendNotFound")

    await world.cluster.eventually("the route says so", told)
    await world.cluster.eventually("requests get 500", lambda: _is(world, "/missing", 500), within=60)


async def test_a_picker_that_does_not_exist_is_the_pools_problem(world: Installed) -> None:
    async def told() -> bool:
        return (await conditions(world, "inferencepool", "pickerless")).get("ResolvedRefs") == ("False", "InvalidExtensionRef")

    await world.cluster.eventually("the pool says so", told)
    await world.cluster.eventually("requests get 500", lambda: _is(world, "/bad", 500), within=60)


async def test_a_pool_that_no_route_names_any_more_says_nothing(world: Installed) -> None:
    await world.cluster.kubectl("delete", "httproute", "good", "-n", "pools")

    async def silent() -> bool:
        return await conditions(world, "inferencepool", "members") == {}

    await world.cluster.eventually("its status is empty", silent)
    await world.cluster.eventually("requests get 404", lambda: _is(world, "/good", 404))


async def _is(world: Installed, path: str, status: int) -> bool:
    return (await asked(world, path))[0] == status
