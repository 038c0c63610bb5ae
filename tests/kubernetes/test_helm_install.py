"""The chart installed by real helm: controllers and proxies run with the rights and the restrictions that it gives them."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.test_controller import load, of_class

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "gwanmun"
VALUES = ROOT / "tests" / "chart" / "specification-values.yaml"
SYSTEM = "helm-system"
CLASS = "helm-test"

CERTIFICATES = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.cert-manager.io}
spec:
  group: cert-manager.io
  names: {kind: Certificate, plural: certificates}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
"""As much of cert-manager as is needed to see what it is asked for."""

QUICK = f"""
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {{name: {CLASS}}}
spec: {{proxy: {{settleTimeout: 5s}}}}
"""
"""A test waits for proxies to end."""

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: helm-test
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: https, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: a-tls}]}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installed(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The specification's values; with names of our own, as another controller may run in this cluster."""
    await cluster.kubectl("apply", "-f", "-", stdin=CERTIFICATES)
    await cluster.helm(
        *("install", "ours", str(CHART), "--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"),
        *("--values", str(VALUES), "--set", f"gatewayClass.name={CLASS}"),
        *("--set", "controller.controllerNames={example.com/helm-test}", "--set", f"gatewayClass.parametersRef={CLASS}"),
    )
    await cluster.kubectl("apply", "-f", "-", stdin=QUICK)
    yield cluster
    await cluster.helm("uninstall", "ours", "--namespace", SYSTEM, "--wait")


async def get(cluster: Cluster, *arguments: str) -> Any:
    return json.loads(await cluster.kubectl("get", *arguments, "-o", "json"))


async def condition(cluster: Cluster, namespace: str, name: str) -> tuple[str, str]:
    status = (await get(cluster, "gateway", "gw", "-n", namespace)).get("status", {})
    return next(((one["status"], one["message"]) for one in status.get("conditions", []) if one["type"] == name), ("", ""))


async def test_two_controllers_run_and_one_leads(installed: Cluster) -> None:
    deployment = await get(installed, "deployment", "ours-gwanmun", "-n", SYSTEM)
    assert deployment["status"]["readyReplicas"] == 2
    lease = await get(installed, "lease", f"gwanmun-controller.{SYSTEM}.ours", "-n", SYSTEM)
    assert lease["spec"]["holderIdentity"].startswith("ours-gwanmun-")


async def test_a_second_release_leaves_the_shared_kinds_to_the_first(installed: Cluster) -> None:
    """Helm refuses a release whose CRDs another one has brought, and a CRD that is taken away takes every object with it."""
    await installed.helm(
        *("install", "second", str(CHART), "--namespace", f"{SYSTEM}-2", "--create-namespace"),
        *("--set", "gatewayClass.create=false", "--set", "controller.controllerNames={example.com/second}"),
    )
    await installed.helm("uninstall", "second", "--namespace", f"{SYSTEM}-2", "--wait")
    await installed.kubectl("delete", "namespace", f"{SYSTEM}-2")
    crd = await get(installed, "crd", "gatewayclassconfigs.kgateway.dev")
    assert "deletionTimestamp" not in crd["metadata"]


async def test_a_gateway_gets_proxies_certificates_and_nothing_it_lacks_a_right_for(installed: Cluster, namespace: str) -> None:
    await installed.kubectl("apply", "-n", namespace, "-f", "-", stdin=GATEWAY)

    async def programmed() -> bool:
        return (await condition(installed, namespace, "Programmed"))[0] == "True"

    await installed.eventually("the Gateway is programmed", programmed, within=60)
    kinds = "deployment,service,serviceaccount,configmap,poddisruptionbudget,certificate"
    made = await get(installed, kinds, "-n", namespace, "-l", "app.kubernetes.io/managed-by=gwanmun")
    assert sorted((one["kind"], one["metadata"]["name"]) for one in made["items"]) == [
        ("Certificate", "a-tls"),
        ("ConfigMap", f"gw-{CLASS}"),
        ("Deployment", f"gw-{CLASS}"),
        ("PodDisruptionBudget", f"gw-{CLASS}"),
        ("Service", f"gw-{CLASS}"),
        ("ServiceAccount", f"gw-{CLASS}"),
    ]
    (certificate,) = (one for one in made["items"] if one["kind"] == "Certificate")
    assert certificate["spec"]["issuerRef"]["name"] == "letsencrypt-prod"
    logs = await installed.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=gwanmun", "--tail=-1")
    lines = [json.loads(line) for line in logs.splitlines()]
    assert not [line for line in lines if "grant" in line]

    await installed.kubectl("delete", "gateway", "gw", "-n", namespace)

    async def nothing_left() -> bool:
        rest = await get(installed, kinds, "-n", namespace, "-l", "app.kubernetes.io/managed-by=gwanmun")
        return rest["items"] == []

    await installed.eventually("everything that was made for it is gone", nothing_left, within=60)


async def test_a_service_that_somebody_else_made_is_left_alone_and_the_gateway_says_so(
    installed: Cluster, namespace: str
) -> None:
    await installed.kubectl("create", "service", "clusterip", f"gw-{CLASS}", "--tcp=80", "-n", namespace)
    before = await get(installed, "service", f"gw-{CLASS}", "-n", namespace)
    await installed.kubectl("apply", "-n", namespace, "-f", "-", stdin=GATEWAY)

    async def told() -> bool:
        return "gwanmun did not make it" in (await condition(installed, namespace, "Programmed"))[1]

    await installed.eventually("the Gateway says what is in the way", told, within=60)
    assert (await get(installed, "service", f"gw-{CLASS}", "-n", namespace))["spec"] == before["spec"]
    await installed.kubectl("delete", "service", f"gw-{CLASS}", "-n", namespace)

    async def programmed() -> bool:
        return (await condition(installed, namespace, "Programmed"))[0] == "True"

    await installed.eventually("the Gateway is programmed", programmed, within=60)


async def test_pods_are_admitted_where_the_restricted_level_is_enforced(installed: Cluster, namespace: str) -> None:
    await installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    await installed.kubectl("apply", "-n", namespace, "-f", "-", stdin=GATEWAY)

    async def ready() -> bool:
        found = await get(installed, "deployment", "-n", namespace)
        return any(one["status"].get("readyReplicas") == 2 for one in found["items"])

    await installed.eventually("proxies are ready", ready, within=60)
    await installed.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    await installed.kubectl("delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/name=gwanmun")
    await installed.kubectl("rollout", "status", "deployment/ours-gwanmun", "-n", SYSTEM, "--timeout=60s")


async def test_new_proxies_and_new_controllers_cost_no_request(installed: Cluster, namespace: str) -> None:
    manifests = of_class(CLASS)
    await installed.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifests)

    async def address() -> str:
        status = (await get(installed, "gateway", "gw", "-n", namespace)).get("status", {})
        ready = await condition(installed, namespace, "Programmed") == ("True", "")
        return status["addresses"][0]["value"] if ready else ""

    where = await installed.eventually("the Gateway is programmed", address, within=60)

    async def answers() -> bool:
        return "pod" in await installed.run("curl", "-sf", "-m", "2", f"http://{where}/")

    await installed.eventually("the Gateway answers", answers, within=30)
    async with load(installed, where) as results:
        for what, place in ((f"deployment/gw-{CLASS}", namespace), ("deployment/ours-gwanmun", SYSTEM)):
            before = {one["metadata"]["name"] for one in (await get(installed, "pod", "-n", place))["items"]}
            await installed.kubectl("rollout", "restart", what, "-n", place)
            await installed.kubectl("rollout", "status", what, "-n", place, "--timeout=90s")
            old = {name for name in before if name.startswith(what.partition("/")[2])}
            await installed.eventually("the old pods have ended", partial(gone, installed, place, old), within=60)
    assert set(results) == {"200"}, results
    assert results["200"] > 50


async def gone(cluster: Cluster, namespace: str, pods: set[str]) -> bool:
    """Whether none of these pods is left."""
    return pods.isdisjoint(one["metadata"]["name"] for one in (await get(cluster, "pod", "-n", namespace))["items"])
