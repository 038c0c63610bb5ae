"""The gRPC server itself: who gets in, what is refused, and that one slow proxy holds up nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import trustme
from delta_client import resources

from gwanmun.protos import pb
from gwanmun.xds_server import Cause, Node, Peer, Publisher, Refusal, ServerOptions, XdsServer
from gwanmun.xds_server.messages import Response, decode_node, decode_request, encode_response
from gwanmun.xds_server.resources import CLUSTER, LISTENER, resource
from gwanmun.xds_server.server import METHOD, SERVICE, Metadata

ANY_SCOPE = "gateway"


def request(url: str = CLUSTER, node: str = "envoy", **fields: Any) -> bytes:
    message = pb("envoy.service.discovery.v3.DeltaDiscoveryRequest")(type_url=url, node={"id": node}, **fields)
    return message.SerializeToString()


def opened(raw: bytes) -> Any:
    return pb("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(raw)


class Talk:
    """One stream of raw bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()

    async def say(self, message: bytes) -> None:
        await self.call.write(message)

    async def hear(self) -> Any:
        async with asyncio.timeout(5):
            return opened(await self.call.read())

    async def status(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(5):
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def serving(scope_of=lambda node, peer: ANY_SCOPE, options=None) -> AsyncIterator[tuple[Publisher, XdsServer, Any, int]]:
    publisher = Publisher()
    server = XdsServer(publisher, scope_of, options or ServerOptions())
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield publisher, server, channel, port
    finally:
        await server.stop(0)


def test_encoded_responses_are_what_protobuf_reads() -> None:
    made = [resource("a", b"x" * 10), resource("long" * 50, b"y" * 70_000)]
    message = opened(encode_response(Response(CLUSTER, "7", tuple(made), ("gone", "too"))))
    assert (message.type_url, message.nonce, list(message.removed_resources)) == (CLUSTER, "7", ["gone", "too"])
    for sent, found in zip(made, message.resources, strict=True):
        assert (found.name, found.version) == (sent.name, sent.version)
        assert (found.resource.type_url, found.resource.value) == (CLUSTER, sent.body)


def test_requests_are_read() -> None:
    raw = request(
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"a": "1"},
        response_nonce="3",
        error_detail={"message": "odd"},
    )
    read = decode_request(raw)
    assert (read.subscribe, read.unsubscribe, read.initial_versions) == (("a",), ("b",), {"a": "1"})
    assert (read.nonce, read.error) == ("3", "odd")
    assert decode_request(request()).error is None
    assert decode_node(raw) == Node("envoy")


async def test_nothing_is_said_before_the_first_publication() -> None:
    async with serving() as (publisher, _, channel, _port):
        talk = Talk(channel)
        await talk.say(request())
        hearing = asyncio.create_task(talk.hear())
        done, _ = await asyncio.wait({hearing}, timeout=0.1)
        assert not done
        publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"1"}}))
        assert [found.name for found in (await hearing).resources] == ["a"]


async def test_each_proxy_gets_its_own_scope_and_strangers_get_nothing() -> None:
    def scope_of(node: Node, peer: Peer) -> str | Refusal:
        return node.id if node.id in ("red", "blue") else Refusal(f"no Gateway is called {node.id!r}")

    async with serving(scope_of) as (publisher, _, channel, _port):
        for scope in ("red", "blue"):
            publisher.publish(scope, resources({CLUSTER: {scope: b"1"}}))
        for scope in ("red", "blue"):
            talk = Talk(channel)
            await talk.say(request(node=scope))
            assert [found.name for found in (await talk.hear()).resources] == [scope]
        stranger = Talk(channel)
        await stranger.say(request(node="green"))
        assert await stranger.status() == (grpc.StatusCode.PERMISSION_DENIED, "no Gateway is called 'green'")
        assert {state.node.id for state in publisher.proxies()} == {"red", "blue"}


async def test_who_is_turned_away_is_told_about() -> None:
    told: list[tuple[Cause, str]] = []
    server = XdsServer(
        Publisher(),
        lambda node, peer: Refusal("not you", Cause.OTHER_ACCOUNT),
        turned_away=lambda peer, cause, reason: told.append((cause, reason)),
    )
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        talk = Talk(channel)
        await talk.say(request())
        assert (await talk.status())[0] == grpc.StatusCode.PERMISSION_DENIED
    await server.stop(0)
    assert told == [(Cause.OTHER_ACCOUNT, "not you")]


@pytest.mark.parametrize("before", [[], [request()]])
async def test_garbage_ends_its_stream_only(before: list[bytes]) -> None:
    async with serving() as (publisher, _, channel, _port):
        publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"1"}}))
        talk = Talk(channel)
        for message in before:
            await talk.say(message)
            await talk.hear()
        await talk.say(b"\xff\xff")
        code, details = await talk.status()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "not a DeltaDiscoveryRequest" in details
        assert publisher.proxies() == ()


async def test_streams_are_limited() -> None:
    async with serving(options=ServerOptions(max_streams=1)) as (publisher, _, channel, port):
        publisher.publish(ANY_SCOPE, resources({}))
        first = Talk(channel)
        await first.say(request())
        await first.hear()
        # It says nothing: grpc has another status for what fails because the stream has been refused meanwhile.
        assert await silent(port) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1 proxies are connected already")


async def silent(port: int) -> tuple[grpc.StatusCode, str]:
    """How a stream ends that says nothing, on a connection of its own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return await Talk(channel).status()


async def test_a_stream_is_not_waited_for_for_ever() -> None:
    told: list[Cause] = []
    options = ServerOptions(first_request_seconds=0.2)
    server = XdsServer(Publisher(), lambda *_: ANY_SCOPE, options, turned_away=lambda _, cause, __: told.append(cause))
    port = await server.start("127.0.0.1:0")
    assert await silent(port) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no request came within 0.2 s")
    assert told == [Cause.SILENT]
    await server.stop(0)


async def test_strangers_take_no_ones_place_and_no_one_takes_all_of_them() -> None:
    known = iter(("red", "red", "stranger", "blue", "red"))
    checking = asyncio.Event()

    async def identify(_: Metadata, peer: Peer) -> Peer | Refusal:
        name = next(known)
        if name == "stranger":
            await checking.wait()
            return Refusal("who?", Cause.BAD_TOKEN)
        return replace(peer, names=(name,))

    options = ServerOptions(max_streams=3, max_streams_of_one=2, max_unidentified=1)
    publisher = Publisher()
    publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"1"}}))
    server = XdsServer(publisher, lambda *_: ANY_SCOPE, options, identify=identify)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(2):
            talk = Talk(channel)
            await talk.say(request())
            await talk.hear()
        stranger = asyncio.create_task(silent(port))
        async with asyncio.timeout(5):
            while not server._unidentified:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        assert await silent(port) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1 others have yet to prove who they are")
        checking.set()
        assert (await stranger)[0] == grpc.StatusCode.UNAUTHENTICATED
        last = Talk(channel)
        await last.say(request())
        await last.hear()
        last.call.cancel()
        async with asyncio.timeout(5):
            await publisher.until(lambda: len(publisher.proxies()) == 2)
        assert await silent(port) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "2 proxies of red are connected already")
    await server.stop(0)


async def test_a_proxy_that_does_not_answer_holds_up_no_other() -> None:
    async with serving() as (publisher, _, channel, _port):
        publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"x" * 3_000_000}}))
        slow, quick = Talk(channel), Talk(channel)
        await slow.say(request(node="slow"))  # and never reads
        await quick.say(request(LISTENER, node="quick"))
        await quick.hear()
        for n in range(20):
            publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"%d" % n * 3_000_000}, LISTENER: {"l": b"%d" % n}}))
            await quick.say(request(LISTENER, response_nonce=str(n + 1)))
            assert (await quick.hear()).resources[0].name == "l"


async def test_a_stopped_server_ends_streams_in_good_order() -> None:
    async with serving() as (publisher, server, channel, _):
        publisher.publish(ANY_SCOPE, resources({}))
        connected, waiting = Talk(channel), Talk(channel)
        await connected.say(request())
        await connected.hear()
        publisher.retire(ANY_SCOPE)
        assert (await connected.status())[0] == grpc.StatusCode.OK
        await waiting.say(request())
        await server.stop(5)
        assert (await waiting.status())[0] == grpc.StatusCode.OK


async def test_a_scope_is_followed_as_long_as_a_proxy_of_it_is_connected() -> None:
    async with serving(lambda node, peer: node.id) as (publisher, _, channel, _port):
        for scope in ("red", "blue"):
            publisher.publish(scope, resources({CLUSTER: {scope: b"1"}}))
        assert publisher.followed() == frozenset()
        first, second, other = Talk(channel), Talk(channel), Talk(channel)
        for talk, scope in ((first, "red"), (second, "red"), (other, "blue")):
            await talk.say(request(node=scope))
            await talk.hear()
        assert publisher.followed() == {"red", "blue"}
        assert len(publisher.proxies("red")) == 2
        first.call.cancel()
        other.call.cancel()
        async with asyncio.timeout(5):
            await publisher.until(lambda: len(publisher.proxies()) == 1)
        assert publisher.followed() == {"red"}


async def test_a_second_server_on_the_same_port_is_an_error() -> None:
    async with serving() as (publisher, _, _channel, port):
        with pytest.raises(RuntimeError):
            await XdsServer(publisher, lambda node, peer: ANY_SCOPE).start(f"127.0.0.1:{port}")


async def test_mutual_tls_tells_who_the_peer_is() -> None:
    authority = trustme.CA()
    server_cert, client_cert = authority.issue_cert("localhost"), authority.issue_cert("proxy.gwanmun.test")
    root = authority.cert_pem.bytes()
    peers: list[Peer] = []

    def scope_of(node: Node, peer: Peer) -> str:
        peers.append(peer)
        return ANY_SCOPE

    publisher = Publisher()
    publisher.publish(ANY_SCOPE, resources({CLUSTER: {"a": b"1"}}))
    server = XdsServer(publisher, scope_of)
    pair = (server_cert.private_key_pem.bytes(), server_cert.cert_chain_pems[0].bytes())
    port = await server.start("localhost:0", grpc.ssl_server_credentials([pair], root, require_client_auth=True))
    ours = grpc.ssl_channel_credentials(root, client_cert.private_key_pem.bytes(), client_cert.cert_chain_pems[0].bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", ours) as channel:
        talk = Talk(channel)
        await talk.say(request())
        assert (await talk.hear()).resources[0].name == "a"
    assert "proxy.gwanmun.test" in peers[0].names
    nobody = grpc.ssl_channel_credentials(root)
    async with grpc.aio.secure_channel(f"localhost:{port}", nobody) as channel:
        talk = Talk(channel)
        assert (await talk.status())[0] == grpc.StatusCode.UNAVAILABLE
    await server.stop(0)
