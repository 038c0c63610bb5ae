"""Does no request fail while the pods of model servers or of proxies are replaced one after another?"""

import json

import pytest
from tests.kubernetes.installed import FLEET, Installed
from tests.kubernetes.test_availability import load, without_failure

from gwanmun.app.demo import GATEWAY

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_roll_of_the_model_servers(installed_specification: Installed) -> None:
    world = installed_specification
    before = await world.pods("ai-inference", "app=vllm-gpt4")
    async with load(world) as tallies:
        await world.cluster.kubectl("rollout", "restart", "deployment/vllm-gpt4", "-n", "ai-inference")
        await world.rolled_out("ai-inference", "vllm-gpt4")

        async def old_ones_are_gone() -> bool:
            left = await world.json("pods", "-n", "ai-inference", "-l", "app=vllm-gpt4")
            return not before.keys() & {one["metadata"]["name"] for one in left["items"]}

        await world.cluster.eventually("the old pods are gone", old_ones_are_gone, within=30)
    without_failure(*tallies)


async def test_roll_of_the_proxies_because_their_class_says_so(installed_specification: Installed) -> None:
    world = installed_specification
    before = await world.proxies()
    patch = {"spec": {"proxy": {"resources": {"requests": {"memory": "1Gi"}}}}}
    async with load(world) as tallies:
        await world.cluster.kubectl(
            "patch", "gatewayclassconfigs.kgateway.dev", "kgateway-config", "--type=merge", "-p", json.dumps(patch)
        )

        async def all_are_others() -> bool:
            left = await world.json(
                "pods", "-n", GATEWAY.namespace, "-l", f"gateway.networking.k8s.io/gateway-name={GATEWAY.name}"
            )
            return not before.keys() & {one["metadata"]["name"] for one in left["items"]}

        await world.cluster.eventually("all proxies are others", all_are_others, within=120)
        await world.rolled_out(GATEWAY.namespace, FLEET)
    without_failure(*tallies)
    for pod in (await world.proxies()).values():
        assert pod["spec"]["containers"][0]["resources"]["requests"]["memory"] == "1Gi"
    patch["spec"]["proxy"]["resources"]["requests"]["memory"] = "2Gi"
    await world.cluster.kubectl(
        "patch", "gatewayclassconfigs.kgateway.dev", "kgateway-config", "--type=merge", "-p", json.dumps(patch)
    )
    await world.rolled_out(GATEWAY.namespace, FLEET)
