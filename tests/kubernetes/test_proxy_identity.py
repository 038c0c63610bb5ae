"""What a client of the control plane gets that has no proof, the wrong one, or another Gateway's: nothing that is not its own.

The controllers are those that the chart runs, reached over their Service as proxies reach them. Nonsense on the wire is the
business of `tests/xds_server`.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from tests.kubernetes.installed import CONTROLLER, FLEET, SYSTEM, Installed

from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.app.demo import GATEWAY
from gwanmun.infra.authority import SERVER_NAME
from gwanmun.infra.fleet.contract import TOKEN_AUDIENCE
from gwanmun.protos import pb

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
TYPES = {
    "listeners": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "clusters": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "secrets": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}
OTHER = "other-team"
OTHERS_GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: other-team}
spec:
  gatewayClassName: kgateway
  listeners:
    - {name: https, port: 443, protocol: HTTPS, hostname: other.example.com, tls: {certificateRefs: [{name: other-tls}]}}
"""

Metadata = tuple[tuple[str, str], ...]


class Client:
    """Asks the control plane as a proxy would. `authority` has signed the control plane's certificate."""

    def __init__(self, world: Installed, address: str, authority: str) -> None:
        self.world = world
        self.address = address
        self.authority = authority

    async def ask(self, metadata: Metadata, kind: str, *names: str) -> grpc.StatusCode | dict[str, bytes]:
        """How the stream ends, or the resources of the first answer by name; none where none came within two seconds."""
        with self.world.cluster.network():
            credentials = grpc.ssl_channel_credentials(self.authority.encode())
            options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(f"{self.address}:18000", credentials, options=options) as channel:
                # grpc says INTERNAL of a request that it could not write since the stream had been refused meanwhile.
                while (answer := await _first_answer(channel, metadata, TYPES[kind], names)) is grpc.StatusCode.INTERNAL:
                    pass
                return answer

    async def token(self, namespace: str, account: str, *more: str, audience: str = TOKEN_AUDIENCE) -> Metadata:
        text = await self.world.cluster.kubectl("create", "token", account, "-n", namespace, f"--audience={audience}", *more)
        return (("authorization", f"Bearer {text.strip()}"),)


async def _first_answer(
    channel: grpc.aio.Channel, metadata: Metadata, url: str, names: tuple[str, ...]
) -> grpc.StatusCode | dict[str, bytes]:
    stream = channel.stream_stream(METHOD)(metadata=metadata)
    # The node claims to be a proxy of the specification's Gateway: what counts is the token.
    node = {"id": "proxy", "cluster": f"{GATEWAY.namespace}/{GATEWAY.name}"}
    request = pb("envoy.service.discovery.v3.DeltaDiscoveryRequest")(
        node=node, type_url=url, resource_names_subscribe=list(names)
    )
    try:
        await stream.write(request.SerializeToString())
        async with asyncio.timeout(2):
            answer = await stream.read()
    except TimeoutError:
        return {}
    except grpc.aio.AioRpcError as error:
        return error.code()
    if answer is grpc.aio.EOF:
        return await stream.code()
    response = pb("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(answer)
    return {resource.name: resource.resource.value for resource in response.resources if resource.resource.value}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(installed_specification: Installed) -> AsyncIterator[Client]:
    """With a second Gateway beside the specification's, which has a certificate of its own."""
    world = installed_specification
    await world.cluster.kubectl("create", "namespace", OTHER)
    secret = tls_secret(OTHER, "other-tls", Authority().issue("other.example.com"))
    await world.cluster.kubectl("apply", "-f", "-", stdin=f"{secret}---\n{OTHERS_GATEWAY}")

    async def made() -> bool:
        return bool(await world.cluster.get("serviceaccount", "other-kgateway", OTHER))

    await world.cluster.eventually("the other Gateway has its account", made)
    service = await world.cluster.get("service", CONTROLLER, SYSTEM)
    config = await world.cluster.get("configmap", FLEET, GATEWAY.namespace)
    yield Client(world, service["spec"]["clusterIP"], config["data"]["ca.crt"])
    await world.cluster.kubectl("delete", "namespace", OTHER, "--wait=false")


@pytest.mark.parametrize("kind", TYPES)
async def test_without_a_token_there_is_nothing(client: Client, kind: str) -> None:
    assert await client.ask((), kind, "*") is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("value", ["Bearer", "Bearer a.b.c", "Basic dXNlcjpwYXNz"])
async def test_with_something_that_is_no_token_there_is_nothing(client: Client, value: str) -> None:
    assert await client.ask((("authorization", value),), "listeners") is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("audience", ["somebody-else", "https://kubernetes.default.svc.cluster.local"])
async def test_with_a_token_for_another_audience_there_is_nothing(client: Client, audience: str) -> None:
    metadata = await client.token(GATEWAY.namespace, FLEET, audience=audience)
    assert await client.ask(metadata, "listeners") is grpc.StatusCode.UNAUTHENTICATED


async def test_with_the_token_of_another_service_account_there_is_nothing(client: Client) -> None:
    for namespace, account in ((GATEWAY.namespace, "default"), (OTHER, "default"), (SYSTEM, CONTROLLER)):
        metadata = await client.token(namespace, account)
        assert await client.ask(metadata, "listeners") is grpc.StatusCode.PERMISSION_DENIED


async def test_an_account_of_the_same_name_in_another_namespace_gets_nothing(client: Client) -> None:
    await client.world.cluster.kubectl("create", "serviceaccount", FLEET, "-n", OTHER)
    assert await client.ask(await client.token(OTHER, FLEET), "listeners") is grpc.StatusCode.PERMISSION_DENIED


async def test_each_gateways_token_gets_its_own_and_not_the_others(client: Client) -> None:
    own, others = await client.token(GATEWAY.namespace, FLEET), await client.token(OTHER, "other-kgateway")
    mine, theirs = await client.ask(own, "listeners"), await client.ask(others, "listeners")
    assert isinstance(mine, dict)
    assert isinstance(theirs, dict)
    assert mine
    assert all(name.startswith(f"{GATEWAY.namespace}/{GATEWAY.name}") for name in mine)
    assert theirs
    assert all(name.startswith(f"{OTHER}/other") for name in theirs)


async def test_another_gateways_private_key_is_not_to_be_had_by_its_name(client: Client) -> None:
    own, others = await client.token(GATEWAY.namespace, FLEET), await client.token(OTHER, "other-kgateway")
    name = f"{GATEWAY.namespace}/inference-tls-cert"
    mine = await client.ask(own, "secrets", name)
    assert isinstance(mine, dict)
    assert b"PRIVATE KEY" in mine[name], "the name is the right one"
    assert await client.ask(others, "secrets", name) == {}
    assert await client.ask(others, "clusters") == {}, "it has no routes"


async def test_a_token_ends_with_the_pod_that_it_was_made_for(client: Client) -> None:
    pod = "short-lived"
    container = {"name": "main", "image": "busybox", "command": ["/bin/sh", "-c", "sleep 1000"]}
    manifest = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": OTHER},
            "spec": {"serviceAccountName": "other-kgateway", "containers": [container]},
        }
    )
    await client.world.cluster.kubectl("apply", "-f", "-", stdin=manifest)
    metadata = await client.token(OTHER, "other-kgateway", "--bound-object-kind=Pod", f"--bound-object-name={pod}")
    assert isinstance(await client.ask(metadata, "listeners"), dict)
    await client.world.cluster.kubectl("delete", "pod", pod, "-n", OTHER, "--grace-period=1")

    async def refused() -> bool:
        return await client.ask(metadata, "listeners") is grpc.StatusCode.UNAUTHENTICATED

    await client.world.cluster.eventually("the token of a pod that is gone is refused", refused, within=30)
