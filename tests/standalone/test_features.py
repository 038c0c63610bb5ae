"""Does the gateway do with real traffic what its features promise? Simulated servers behind, plain clients in front."""

import asyncio
import hashlib
import json
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from serving import CLASS, Served, backend, gateway, ref, route, served, simulated, to, until

from free_ports import free_port
from gwanmun.app.accesslog import find_request
from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.app.explaining import explain_request, served_request
from gwanmun.infra.rundir import run_directory
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec, TlsFiles

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

ADDRESS = "127.0.3.20"
AI = "ai.example.com"
MODEL = "{matches: [{headers: [{name: x-model-id, value: %s}]}], backendRefs: [%s]}"


def zoned_service(name: str, *ports_and_places: int | str) -> str:
    """A Service that asks for near endpoints: each in a slice of its own, with what it says of its place."""
    ports, places = ports_and_places[::2], ports_and_places[1::2]
    slices = "".join(
        f"""\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{port}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1], {place}}}]
ports: [{{port: {port}}}]
"""
        for port, place in zip(ports, places, strict=True)
    )
    return f"""\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}], trafficDistribution: PreferClose}}
{slices}"""


@dataclass
class World:
    served: Served
    chat: SimServer
    https: int
    tcp: int
    udp: int
    passthrough: int
    limited: int
    mutual: int
    extra: int
    authority: Authority
    ca: Path

    def tls(self, **more: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        for name, value in more.items():
            setattr(context, name, value)
        return context


def manifests(ports: dict[str, int], servers: dict[str, int], authority: Authority) -> dict[str, str]:
    """By file. The Gateway `gw` has a listener of each kind, `limited` is of a class with tight limits."""
    l4 = "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{parentRefs: [{{name: gw, sectionName: {name}}}], {more}rules: [{{backendRefs: [{ref}]}}]}}\n"  # noqa: E501  a template
    return {
        "gateways": f"""\
{CLASS}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec:
  gatewayClassName: gwanmun
  listeners:
  - {{name: http, port: {ports["http"]}, protocol: HTTP}}
  - {{name: https, port: {ports["https"]}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
  - {{name: tcp, port: {ports["tcp"]}, protocol: TCP}}
  - {{name: udp, port: {ports["udp"]}, protocol: UDP}}
  - {{name: passthrough, port: {ports["passthrough"]}, protocol: TLS, tls: {{mode: Passthrough}}}}
  allowedListeners: {{namespaces: {{from: Same}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: more}}
spec:
  parentRef: {{name: gw}}
  listeners: [{{name: extra, port: {ports["extra"]}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: limited}}
spec:
  controllerName: gwanmun.dev/gateway-controller
  parametersRef: {{group: gwanmun.dev, kind: GatewayClassConfig, name: limited}}
---
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {{name: limited}}
spec:
  connectionSettings: {{idleTimeout: 1s, connectTimeout: 700ms}}
  inference: {{maxRequestBytes: 64Ki}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: limited}}
spec:
  gatewayClassName: limited
  listeners: [{{name: web, port: {ports["limited"]}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: mutual}}
spec:
  gatewayClassName: gwanmun
  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{{group: "", kind: ConfigMap, name: ca}}]}}}}}}}}
  listeners: [{{name: web, port: {ports["mutual"]}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: ca}}
data: {{ca.crt: {json.dumps(authority.pem)}}}
---
{tls_secret("default", "cert", authority.issue("a.example.com", AI, "rpc.example.com"))}""",
        "backends": "".join(
            backend(name, port, **({"protocol": "H2C"} if name == "rpc" else {})) for name, port in servers.items()
        )
        + f"""\
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {{name: named}}
spec: {{endpoints: [{{hostname: localhost, port: {servers["echo"]}}}]}}
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {{name: zoned}}
spec:
  endpoints:
  - {{address: 127.0.0.1, port: {servers["echo"]}, zone: east}}
  - {{address: 127.0.0.1, port: {servers["far"]}, zone: west}}
---
apiVersion: v1
kind: Service
metadata: {{name: empty}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: secure}}
spec: {{ports: [{{name: https, port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: secure, labels: {{kubernetes.io/service-name: secure}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: https, port: {servers["secure"]}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: secure}}
spec:
  targetRefs: [{{group: "", kind: Service, name: secure}}]
  validation: {{hostname: secure.example.com, caCertificateRefs: [{{group: "", kind: ConfigMap, name: ca}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: udp}}
spec: {{ports: [{{port: 9999, protocol: UDP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: udp, labels: {{kubernetes.io/service-name: udp}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{port: {servers["datagrams"]}, protocol: UDP}}]
"""
        + zoned_service("near", servers["echo"], "zone: east", servers["far"], "zone: west")
        + zoned_service(
            "hinted",
            servers["echo"],
            "zone: west, hints: {forZones: [{name: east}]}",
            servers["far"],
            "zone: east, hints: {forZones: [{name: west}]}",
        ),
        "routes": route("ai", MODEL % ("gpt-4", ref("chat")), MODEL % ("nobody", "{name: empty, port: 80}"), host=AI)
        + route(
            "plain",
            to("echo"),
            to("named", path="/named"),
            to("zoned", path="/zoned"),
            "{matches: [{path: {value: /near}}], backendRefs: [{name: near, port: 80}]}",
            "{matches: [{path: {value: /hinted}}], backendRefs: [{name: hinted, port: 80}]}",
            to("ws", path="/ws"),
            "{matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 80}]}",
            "{matches: [{path: {value: /secure}}], backendRefs: [{name: secure, port: 443}]}",
        )
        + route("limited", to("echo"), MODEL % ("gpt-4", ref("chat")), parent="limited")
        + route("mutual", to("echo"), parent="mutual")
        + route("extra", to("far"), to("far", path="/v1"), host="extra.example.com").replace(
            "{name: gw}", "{kind: ListenerSet, name: more}"
        )
        + "---\n"
        + route("rpc", f"{{backendRefs: [{ref('rpc')}]}}", host="rpc.example.com").replace("HTTPRoute", "GRPCRoute")
        + "---\n"
        + l4.format(kind="TCPRoute", name="tcp", more="", ref=ref("ws"))
        + "---\n"
        + l4.format(kind="UDPRoute", name="udp", more="", ref="{name: udp, port: 9999}")
        + "---\n"
        + l4.format(
            kind="TLSRoute", name="passthrough", more="hostnames: [secure.example.com], ", ref="{name: secure, port: 443}"
        ),
    }


class Datagrams(asyncio.DatagramProtocol):
    """Sends back what it gets, in capitals."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data.upper(), addr)  # type: ignore[attr-defined]  # of a datagram endpoint


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts any upgrade, then says everything back."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"upgrade: websocket" in head.lower():
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    else:
        writer.write(head)
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def other_servers() -> AsyncIterator[dict[str, int]]:
    sockets = await asyncio.start_server(websocket, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    try:
        yield {"ws": sockets.sockets[0].getsockname()[1], "datagrams": transport.get_extra_info("sockname")[1]}
    finally:
        sockets.close()
        transport.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("features")
    authority = Authority()
    files = {}
    issued = authority.issue("secure.example.com")
    for name, text in {"ca": authority.pem, "crt": issued.certificate, "key": issued.private_key}.items():
        files[name] = directory / f"{name}.pem"
        files[name].write_text(text)
    names = ("http", "https", "tcp", "udp", "passthrough", "extra", "limited", "mutual")
    ports = {name: free_port(ADDRESS) for name in names}
    specs = [
        SimSpec("chat", "vllm", ("gpt-4",), speed=0.01),
        SimSpec("echo", "echo"),
        SimSpec("far", "echo"),
        SimSpec("rpc", "grpc"),
        SimSpec("secure", "echo", tls=TlsFiles(files["crt"], files["key"])),
    ]
    async with simulated(*specs) as servers, other_servers() as others:
        at = {server.spec.name: server.port for server in servers} | others
        texts = manifests(ports, at, authority)
        async with served(directory / "manifests", texts, port=ports["http"], address=ADDRESS, zone="east") as gw:
            assert gw.problems == []
            rest = {name: ports[name] for name in ("https", "tcp", "udp", "passthrough", "limited", "mutual", "extra")}
            yield World(gw, servers[0], **rest, authority=authority, ca=files["ca"])


def chat(model: str = "gpt-4", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, **more}


CHAT = "/v1/chat/completions"


# Model APIs


@pytest.mark.native
async def test_events_arrive_as_they_are_produced(world: World) -> None:
    arrivals: list[float] = []
    async with world.served.client(AI) as client, client.stream("POST", CHAT, json=chat(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        arrivals.extend([time.monotonic() async for line in response.aiter_lines() if line.startswith("data:")])
    assert len(arrivals) > 10
    gaps = [later - sooner for sooner, later in pairwise(arrivals)]
    assert max(gaps) < (arrivals[-1] - arrivals[0]) / 2, arrivals  # not all at once


@pytest.mark.native
async def test_a_client_that_leaves_ends_the_work_upstream(world: World) -> None:
    before = world.chat.cancelled
    async with (
        world.served.client(AI) as client,
        client.stream("POST", CHAT, json=chat(stream=True, max_tokens=2000)) as response,
    ):
        await anext(response.aiter_lines())
    await until(lambda: world.chat.cancelled == before + 1)


@pytest.mark.native
async def test_a_model_that_nobody_serves(world: World) -> None:
    response = await world.served.ask(CHAT, "POST", host=AI, json=chat("gpt-5"))
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("model_not_found", "invalid_request_error", "model")
    assert "gpt-5" in error["message"]
    assert "x-model-id" in error["message"]


@pytest.mark.native
@pytest.mark.parametrize("body", [b'{"model": ', b"{}", b'{"model": 7}', b""])
async def test_a_body_without_a_model(world: World, body: bytes) -> None:
    response = await world.served.ask(CHAT, "POST", host=AI, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_body"
    assert "body" in response.json()["error"]["message"]


async def test_a_model_without_a_server(world: World) -> None:
    response = await world.served.ask(CHAT, "POST", host=AI, json=chat(), headers={"x-model-id": "nobody"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "no_backend_available"
    assert int(response.headers["retry-after"]) > 0
    plain = await world.served.ask("/empty")
    assert (plain.status_code, plain.headers["content-type"]) == (503, "text/plain")


@pytest.mark.native
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_over_the_limit(world: World, chunked: bool) -> None:
    body = json.dumps(chat(padding="x" * 100_000)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    limited = world.served.at(world.limited)
    headers = {"content-type": "application/json"}
    response = await limited.ask(CHAT, "POST", content=pieces() if chunked else body, headers=headers)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert (await limited.ask(CHAT, "POST", json=chat())).status_code == 200


@pytest.mark.native
async def test_bodies_are_not_read_where_no_rule_looks_at_the_model(world: World) -> None:
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    by_path = world.served.at(world.extra)
    response = await by_path.ask("/v1/embeddings", "POST", host="extra.example.com", content=b"packed", headers=packed)
    assert (response.status_code, response.json()["body_bytes"]) == (200, 6)
    response = await world.served.ask("/v1/embeddings", "POST", host=AI, content=b"packed", headers=packed)
    assert response.status_code == 415


# HTTP


async def test_large_bodies_arrive_whole(world: World) -> None:
    body = bytes(range(256)) * (20 * 1024 * 4)
    response = await world.served.ask("/", "POST", content=body)
    seen = response.json()
    assert (seen["body_bytes"], seen["body_sha256"]) == (20 * 1024 * 1024, hashlib.sha256(body).hexdigest())


async def test_http2_and_http1_are_offered(world: World) -> None:
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
        context = world.tls()
        context.set_alpn_protocols(offered)
        _, writer = await asyncio.open_connection(ADDRESS, world.https, ssl=context, server_hostname="a.example.com")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_versions_of_tls_are_refused(world: World) -> None:
    context = world.tls()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):  # the gateway's word, not our own library's
        await asyncio.open_connection(ADDRESS, world.https, ssl=context, server_hostname="a.example.com")


async def test_a_websocket_is_passed_through(world: World) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, world.served.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nhost: a.example.com\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101")
    for frame in (b"\x81\x85abcdhello", b"\x00\xff" * 300):
        writer.write(frame)
        assert await asyncio.wait_for(reader.readexactly(len(frame)), 10) == frame
    writer.close()


@pytest.mark.parametrize("secure", [False, True])
async def test_grpc_streams_in_both_directions(world: World, secure: bool) -> None:
    options = (("grpc.default_authority", "rpc.example.com"), ("grpc.ssl_target_name_override", "rpc.example.com"))
    if secure:
        credentials = grpc.ssl_channel_credentials(world.authority.pem.encode())
        channel = grpc.aio.secure_channel(f"{ADDRESS}:{world.https}", credentials, options=options)
    else:
        channel = grpc.aio.insecure_channel(f"{ADDRESS}:{world.served.port}", options=options)
    async with channel:
        call = channel.stream_stream("/test.Echo/TalkStream", bytes, bytes)(timeout=10)
        for message in (b"one", b"two"):
            await call.write(message)
            assert [await call.read() for _ in range(3)] == [message] * 3  # before the next is sent
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_tls_to_a_backend_is_checked(world: World) -> None:
    response = await world.served.ask("/secure")
    assert (response.status_code, response.json()["tls"]["version"]) == (200, "TLSv1.3")


async def test_a_backend_by_host_name(world: World) -> None:
    assert (await world.served.ask("/named")).headers["x-served-by"] == "echo"


@pytest.mark.parametrize("path", ["/zoned", "/near", "/hinted"], ids=["a Backend", "a Service", "where hints say otherwise"])
async def test_servers_for_the_own_zone_are_preferred(world: World, path: str) -> None:
    async with world.served.client() as client:
        by = Counter([(await client.get(path)).headers["x-served-by"] for _ in range(40)])
    assert by["echo"] >= 36, by  # a draw with weights: the other one takes about one in a thousand


async def test_clients_have_to_show_a_certificate(world: World, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await asyncio.wait_for(_tls_request(world.tls(), world.mutual), 10)
    issued = world.authority.issue("client.example.com")
    (tmp_path / "client.pem").write_text(issued.certificate + issued.private_key)
    context = world.tls()
    context.load_cert_chain(tmp_path / "client.pem")
    assert (await _tls_request(context, world.mutual)).startswith(b"HTTP/1.1 200")


async def _tls_request(context: ssl.SSLContext, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=context, server_hostname="a.example.com")
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n")
        if not (answer := await reader.read()):
            raise ConnectionError("closed without an answer")
        return answer
    finally:
        writer.close()


# Other transports and listeners


async def test_tcp_is_passed_on(world: World) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, world.tcp)
    writer.write(b"hello\r\n\r\n")
    assert await asyncio.wait_for(reader.readexactly(9), 10) == b"hello\r\n\r\n"
    writer.close()


async def test_udp_is_passed_on(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(client, b"hello", (ADDRESS, world.udp))
        data, _ = await asyncio.wait_for(loop.sock_recvfrom(client, 100), 10)
    assert data == b"HELLO"


async def test_tls_is_passed_through_by_its_server_name(world: World) -> None:
    reader, writer = await asyncio.open_connection(
        ADDRESS, world.passthrough, ssl=world.tls(), server_hostname="secure.example.com"
    )
    writer.write(b"GET / HTTP/1.1\r\nhost: secure.example.com\r\nconnection: close\r\n\r\n")
    assert b"x-served-by: secure" in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_listener_set_adds_a_listener(world: World) -> None:
    response = await world.served.at(world.extra).ask(host="extra.example.com")
    assert response.headers["x-served-by"] == "far"
    assert (await world.served.ask(host="extra.example.com")).status_code == 404


async def test_two_gateways_on_one_port_get_addresses_of_their_own(world: World) -> None:
    port = world.served.port
    await world.served.edit(second=gateway(port, name="second") + route("second", to("far"), parent="second"))
    [address] = [item["address"] for item in world.served.gateway.status()["addresses"] if item["gateway"] == "default/second"]
    assert address == f"127.0.3.21:{port}"
    there = world.served.at(port, address="127.0.3.21")
    await there.answers(by="far")
    assert (await world.served.ask()).headers["x-served-by"] == "echo"
    await world.served.edit(second=None)


async def test_connection_settings_are_in_force(world: World) -> None:
    shown = world.served.gateway.envoy_configuration("listener", "default/limited")
    assert "'idle_timeout': '1s'" in str(shown)
    reader, writer = await asyncio.open_connection(ADDRESS, world.limited)
    writer.write(b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    started = time.monotonic()
    await asyncio.wait_for(reader.read(), 5)  # to the end: the idle connection is closed
    assert 0.5 < time.monotonic() - started < 4
    clusters = world.served.gateway.envoy_configuration("cluster", "default/echo")["clusters"]
    assert "0.700s" in {cluster["connect_timeout"] for cluster in clusters}
    writer.close()


# What can be known afterwards


async def test_a_request_is_found_by_its_id_and_no_query_is_kept(world: World) -> None:
    response = await world.served.ask("/some/path?api_key=secret123", headers={"authorization": "Bearer secret123"})
    request_id = response.headers["x-request-id"]
    log = run_directory(world.served.folder, os.environ).path / "access.log"
    await until(lambda: find_request(log, request_id) is not None)
    entry = find_request(log, request_id)
    assert entry is not None
    assert (entry["path"], entry["code"], entry["route"]) == ("/some/path", 200, "HTTPRoute/default/plain/0/0")
    assert "secret123" not in log.read_text()
    own = await world.served.ask(headers={"x-request-id": "my-own-id"})
    assert own.headers["x-request-id"] == "my-own-id"


async def test_explain_of_an_id_says_what_became_of_the_request_and_where_such_a_one_goes(world: World) -> None:
    """Also of one whose model was in the body."""
    answer = await world.served.ask(
        CHAT, "POST", host=AI, json={"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    )
    request_id = answer.headers["x-request-id"]
    log = run_directory(world.served.folder, os.environ).path / "access.log"
    await until(lambda: find_request(log, request_id) is not None)
    told = await asyncio.to_thread(served_request, [world.served.folder], request_id)
    assert told is not None
    entry = told["log"]
    assert told["outcome"].startswith(f"200 after {entry['duration_ms']} ms, by HTTPRoute default/"), told["outcome"]
    assert f"from {entry['upstream']} of {entry['cluster']}" in told["outcome"]
    rule = told["outcome"].split(", ")[1].removeprefix("by ")
    assert told["explanation"]["outcome"] == f"forwarded by {rule}"
    assert entry["model"] == "gpt-4"
    assert await asyncio.to_thread(served_request, [world.served.folder], "no-such-id") is None


async def test_every_answer_has_a_request_id(world: World) -> None:
    for host, path in (("a.example.com", "/empty"), (AI, CHAT), ("nobody.example.com", "/")):
        assert (await world.served.ask(path, host=host)).headers["x-request-id"]


async def test_explain_of_a_live_gateway_knows_its_ports(world: World) -> None:
    url = f"https://a.example.com:{world.https}/named"
    told, _ = await asyncio.to_thread(explain_request, [world.served.folder], "GET", url, (), b"", ())
    assert told["outcome"] == "forwarded by HTTPRoute default/plain rule 1"
    assert told["shares"][0]["backend"] == "default/named"


async def test_explain_of_two_gateways_on_one_port_goes_by_the_address(tmp_path: Path) -> None:
    port = free_port()
    async with simulated(SimSpec("one", "echo"), SimSpec("two", "echo")) as servers:
        texts = {
            name: gateway(port, name=name) + backend(name, server.port) + route(name, to(name), parent=name)
            for name, server in zip(("one", "two"), servers, strict=True)
        }
        async with served(tmp_path / "manifests", {"class": CLASS, **texts}, port=port, address="127.0.3.10") as both:
            for address, name in {"127.0.3.10": "one", "127.0.3.11": "two"}.items():
                await both.at(port, address=address).answers(by=name)
                url, headers = f"http://{address}:{port}/", [("Host", "a.example.com")]
                told, _ = await asyncio.to_thread(explain_request, [both.folder], "GET", url, headers, b"", ())
                assert (told["outcome"], told["facts"]) == (f"forwarded by HTTPRoute default/{name} rule 0", [])


@pytest.mark.native
async def test_explain_of_a_live_gateway_is_given_headers_and_body_as_they_are(world: World) -> None:
    url = f"{world.served.url}{CHAT}"
    headers = [("Host", AI), ("content-type", "application/json")]

    async def told(body: bytes, *more: tuple[str, str]) -> str:
        explained, _ = await asyncio.to_thread(explain_request, [world.served.folder], "POST", url, [*headers, *more], body, ())
        return str(explained["outcome"])

    assert (await told(b'{"model": "gpt-4"}')).startswith("forwarded")
    assert (await told(b"", ("x-model-id", "gpt-4"), ("x-model-id", "none"))).startswith("forwarded")
    assert (await told(b'{"model": "\xff"}')).startswith('400: "model" in the request body is not valid Unicode')


@pytest.mark.native
async def test_explain_of_an_id_knows_a_model_that_was_in_the_header(world: World) -> None:
    answer = await world.served.ask(CHAT, host=AI, headers={"host": AI, "x-model-id": "gpt-4"})
    log = run_directory(world.served.folder, os.environ).path / "access.log"
    await until(lambda: find_request(log, answer.headers["x-request-id"]) is not None)
    told = await asyncio.to_thread(served_request, [world.served.folder], answer.headers["x-request-id"])
    assert told is not None
    assert (told["log"]["method"], told["log"]["model"]) == ("GET", "gpt-4")
    assert told["explanation"]["outcome"].startswith("forwarded")
