"""`check`, `explain`, `xds` and `status` of `@`: a cluster looked at with a kubeconfig, by the program that a user runs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.kubernetes.cluster import ClusterError
from tests.kubernetes.installed import Installed

from gwanmun.app.demo import CHAT, GATEWAY, HTTP_HOST

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

PROGRAM = str(Path(sys.executable).with_name("gwanmun"))
READER = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
  - {apiGroups: [gateway.networking.k8s.io], resources: ["*"], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
"""
"""Somebody who may see the Gateway API's objects, but neither Services nor Secrets."""


async def gwanmun(world: Installed, *arguments: str) -> str:
    """What the program prints; ClusterError with its messages where it does not end with 0."""
    return await world.cluster.run(PROGRAM, *arguments)


async def document(world: Installed, *arguments: str) -> Any:
    return json.loads(await gwanmun(world, *arguments, "-o", "json"))


async def test_status_is_what_the_api_server_says(installed_specification: Installed) -> None:
    found = await document(installed_specification, "status", "@")
    assert found["healthy"]
    assert {one["kind"] for one in found["objects"]} == {"GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute"}
    addresses = {one["address"] for one in found["addresses"]}
    assert addresses == {f"{installed_specification.address}:{port}" for port in (80, 443, 8443)}


async def test_check_is_content_with_what_serves(installed_specification: Installed) -> None:
    assert GATEWAY.name in await gwanmun(installed_specification, "check", "@")


async def test_explain_says_which_rule_takes_a_request(installed_specification: Installed) -> None:
    asked = (f"https://{HTTP_HOST}{CHAT}", "-H", "x-model-id: gpt-4")
    text = await gwanmun(installed_specification, "explain", "@", *asked)
    assert "model-header-routing" in text
    assert "vllm-gpt4-service" in text


async def test_xds_shows_listeners_and_no_private_key(installed_specification: Installed) -> None:
    text = await gwanmun(installed_specification, "xds", "@")
    assert "vllm-gpt4-service" in text
    assert "PRIVATE KEY" not in text


async def test_a_context_that_does_not_exist_is_named(installed_specification: Installed) -> None:
    with pytest.raises(ClusterError, match="nowhere"):
        await gwanmun(installed_specification, "status", "@nowhere")


async def test_what_may_not_be_read_is_named(installed_specification: Installed) -> None:
    world = installed_specification
    await world.cluster.kubectl("apply", "-f", "-", stdin=READER)
    token = (await world.cluster.kubectl("create", "token", "reader")).strip()
    config = json.loads(await world.cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": "reader", "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = "reader"
    path = world.cluster.state / "reader.kubeconfig"
    path.write_text(json.dumps(config))
    text = await world.cluster.run(*("env", f"KUBECONFIG={path}", PROGRAM, "status", "@", "-o", "json"))
    problems = json.loads(text)["problems"]
    assert "secrets may not be read with these credentials" in problems
    assert not any(problem.startswith("httproutes") for problem in problems)
