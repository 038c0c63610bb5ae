"""Does no request fail while something is changed, renewed or killed?"""

import asyncio
import json
import ssl
from collections.abc import Callable

import pytest

from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.app.demo import GRPC_HOST, HTTP_HOST, DemoWorld
from gwanmun.sim.load import Load, Target, http_request

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

CHAT = json.dumps({"model": "gpt-4", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}).encode()


def https_target(world: DemoWorld, authority_pem: str | None = None) -> Target:
    tls = ssl.create_default_context(cadata=authority_pem or world.authority.read_text())
    request = http_request("POST", HTTP_HOST, "/v1/chat/completions", CHAT, (("x-model-id", "gpt-4"),))
    return Target(world.address, world.ports[443], request, tls, HTTP_HOST)


async def test_a_route_edited_twenty_times_under_load_fails_no_request(world: DemoWorld) -> None:
    route = world.manifests / "40-route-by-header.yaml"
    original = route.read_text()
    async with Load(https_target(world)) as tally:
        for edit in range(20):
            version = world.gateway.version
            route.write_text(original.replace('value: "claude-3"', f'value: "claude-{edit}"'))
            await asyncio.wait_for(world.gateway.serving_after(version), 10)
            await until(lambda seen=tally.answered: tally.answered > seen + 20)
        version = world.gateway.version
        route.write_text(original)
        await asyncio.wait_for(world.gateway.serving_after(version), 10)
    assert tally.failed == 0, tally.failures
    assert tally.answered > 400


async def test_a_renewed_certificate_reaches_new_connections_and_fails_no_request(world: DemoWorld) -> None:
    renewed = Authority("renewed")
    secrets = world.manifests / "90-certificates.yaml"
    original = secrets.read_text()
    async with Load(https_target(world)) as tally:
        await until(lambda: tally.answered > 50)
        version = world.gateway.version
        secrets.write_text(
            "---\n".join(
                tls_secret("ai-gateway", name, renewed.issue(host))
                for name, host in (("inference-tls-cert", HTTP_HOST), ("inference-grpc-tls-cert", GRPC_HOST))
            )
        )
        await asyncio.wait_for(world.gateway.serving_after(version), 10)
        async with Load(https_target(world, renewed.pem), connections=2) as after:
            await until(lambda: after.answered > 20)
        seen = tally.answered
        await until(lambda: tally.answered > seen + 50)  # the old connections go on
    assert after.failed == 0, after.failures
    assert tally.failed == 0, tally.failures
    assert tally.connections == 8  # none was dropped
    version = world.gateway.version
    secrets.write_text(original)
    await asyncio.wait_for(world.gateway.serving_after(version), 10)


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  counters tell nobody
            await asyncio.sleep(0.01)


async def test_a_broken_route_keeps_serving_what_it_said_before(world: DemoWorld) -> None:
    route = world.manifests / "40-route-by-header.yaml"
    original = route.read_text()
    async with Load(https_target(world), connections=2) as tally:
        version = world.gateway.status()["version"]
        route.write_text(original.replace("rules:", "rulez:"))
        await asyncio.wait_for(world.gateway.changed(version), 10)
        assert any("rulez" in line for line in world.gateway.status()["problems"])
        seen = tally.answered
        await until(lambda: tally.answered > seen + 20)
        route.write_text(original)
        await until(lambda: not any("rulez" in line for line in world.gateway.status()["problems"]))
    assert tally.failed == 0, tally.failures
