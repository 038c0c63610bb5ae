"""The specification, end to end: its Helm values and its manifests, unchanged, on a real API server, and every request."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.chart.test_chart import SPECIFICATIONS_FLAGS
from tests.kubernetes.installed import CHART, CONTROLLER, FLEET, RELEASE, SYSTEM, VALUES, Installed, issue_certificates

from gwanmun.app.certificates import Authority
from gwanmun.app.demo import GATEWAY, REQUESTS, DemoRequest, send
from gwanmun.sim.load import Load

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.title)
async def test_request_of_the_demo_is_answered(installed_specification: Installed, request_: DemoRequest) -> None:
    world = installed_specification
    with world.cluster.network():
        answer = await send(world.probe, request_)
    assert (answer.status, answer.served_by) == (request_.status, request_.answered_by), answer.text


async def test_annotations_for_aws_reach_the_service(installed_specification: Installed) -> None:
    service = await installed_specification.cluster.get("service", FLEET, GATEWAY.namespace)
    assert service["spec"]["type"] == "LoadBalancer"
    asked = {
        "service.beta.kubernetes.io/aws-load-balancer-type": "external",
        "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip",
        "service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing",
    }
    assert asked.items() <= service["metadata"]["annotations"].items()
    assert {port["port"] for port in service["spec"]["ports"]} == {80, 443, 8443}


async def test_three_proxies_with_the_resources_of_the_class_in_three_zones(installed_specification: Installed) -> None:
    world = installed_specification
    pods = await world.proxies()
    assert len(pods) == 3
    for pod in pods.values():
        assert pod["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"cpu": "2", "memory": "4Gi"},
        }
    assert {pod["spec"]["nodeName"].rpartition("-")[0] for pod in pods.values()} == {"zone-a", "zone-b", "zone-c"}


async def test_two_controllers_apart_from_each_other(installed_specification: Installed) -> None:
    world = installed_specification
    pods = await world.controllers()
    assert len(pods) == 2
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == 2
    resources = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    assert all(pod["spec"]["containers"][0]["resources"] == resources for pod in pods.values())
    assert await world.leader() in pods


async def test_statuses_say_that_all_is_well(installed_specification: Installed) -> None:
    world = installed_specification
    gateway_class = await world.cluster.get("gatewayclass", "kgateway")
    assert _states(gateway_class["status"])["Accepted"] == "True"
    gateway = (await world.cluster.get("gateway", GATEWAY.name, GATEWAY.namespace))["status"]
    assert _states(gateway)["Programmed"] == "True"
    assert {one["name"]: one["attachedRoutes"] for one in gateway["listeners"]} == {"https": 2, "http": 2, "grpc": 1}
    for listener in gateway["listeners"]:
        assert _states(listener) == {"Accepted": "True", "Conflicted": "False", "Programmed": "True", "ResolvedRefs": "True"}
    for kind in ("httproutes", "grpcroutes"):
        for route in (await world.json(kind, "-n", GATEWAY.namespace))["items"]:
            for parent in route["status"]["parents"]:
                assert _states(parent) == {"Accepted": "True", "ResolvedRefs": "True"}, route["metadata"]["name"]


def _states(status: Mapping[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


async def test_prometheus_finds_controllers_and_proxies(installed_specification: Installed) -> None:
    world = installed_specification
    monitor = await world.cluster.get("servicemonitor", CONTROLLER, SYSTEM)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"][0]["interval"] == "15s"
    for pods in (await world.controllers(), await world.proxies()):
        for pod in pods.values():
            text = await world.cluster.run("curl", "-sf", "-m", "5", f"http://{pod['status']['podIP']}:9090/metrics")
            assert "# TYPE" in text


async def test_every_line_of_the_logs_is_json(installed_specification: Installed) -> None:
    world = installed_specification
    for namespace, pods in ((SYSTEM, await world.controllers()), (GATEWAY.namespace, await world.proxies())):
        for pod in pods:
            lines = (await world.cluster.kubectl("logs", pod, "-n", namespace)).splitlines()
            assert lines
            for line in lines:
                assert isinstance(json.loads(line), dict), line


async def test_a_certificate_is_asked_for_and_its_renewal_drops_no_connection(installed_specification: Installed) -> None:
    world = installed_specification
    with world.cluster.network():
        async with Load(world.chat(), connections=4) as tally:
            renewed = Authority("renewed")
            asked = await issue_certificates(world.cluster, renewed)
            world.authority = renewed

            async def shown() -> bool:
                async with Load(world.chat(), connections=12, requests_per_connection=1) as after:  # by all proxies
                    pass
                return after.failed == 0

            await world.cluster.eventually("new connections are shown the new certificate", shown, within=15)
    wanted = {
        "inference-tls-cert": ["inference.example.com"],
        "inference-grpc-tls-cert": ["inference-grpc.example.com"],
    }
    assert wanted.items() <= asked.items()  # other tests have Gateways, too
    assert tally.failed == 0, tally.failures
    assert tally.connections == 4


async def test_the_documents_flags_are_taken_by_an_upgrade_under_load(installed_specification: Installed) -> None:
    world = installed_specification
    flags = [word for name, value in SPECIFICATIONS_FLAGS.items() for word in ("--set", f"{name}={value}")]
    upgrade = ("upgrade", RELEASE, str(CHART), "--namespace", SYSTEM, "--reset-values", "--wait", "--timeout", "120s")
    with world.cluster.network():
        async with Load(world.chat(), connections=2) as tally:
            await world.cluster.helm(*upgrade, *flags)
            await world.cluster.helm(*upgrade, "--values", str(VALUES))
    assert tally.failed == 0, tally.failures
    assert tally.answered > 100
