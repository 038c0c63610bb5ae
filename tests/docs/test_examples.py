"""Does every example do what its page in docs/how-to/ says of it, through a real Envoy?"""

import asyncio
import gzip
import hashlib
import json
import socket
import ssl
from collections import Counter
from pathlib import Path

import httpx
import pytest
import trustme
from applied import EXAMPLES, applied, chat, client, echo, lay_out, loopback, simulated, vllm

from gwanmun.app.demo import specification
from gwanmun.sim.faults import Drip, Error, Latency
from gwanmun.sim.spec import TlsFiles

pytestmark = [pytest.mark.envoy]

CHAT = "/v1/chat/completions"


def test_every_example_is_applied_here_or_by_the_demo() -> None:
    applied_here = {
        "route-by-model",
        "terminate-tls",
        "split-traffic",
        "timeouts-and-retries",
        "one-machine",
        "tcp-udp-tls",
        "inference-pool",
    }
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - applied_here == {specification().name}


GIVEN = {
    "10-service.yaml": "d866a8cec68ed35ab42dd6cfdbecd74ddd965b6b181faebba320069ddb960ee6",
    "20-gatewayclass.yaml": "6b882cf5db2bd19c0ecaf93fcf1dee950632ef2a0dbf7dd09eefcedd50bb82c4",
    "30-gateway.yaml": "4e83d76f69f2fc8f045893eebdd6ba57305c7d8d65fb9f52e0bb38056eb7ad3b",
    "40-route-by-header.yaml": "148f79248b0b003f4e696538b3edfb0c6e989a404373009ad36972d41e80dbcd",
    "50-route-by-path.yaml": "d80c83c2c7546423742c74fe8bb748208bff0450735579ab750799bb15c033c4",
}
"""SHA-256 of the specification's own manifests."""


def test_the_specifications_manifests_are_unchanged() -> None:
    """What stands beside them (servers, a redirect, gRPC) is ours."""
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in specification().glob("*.yaml")}
    assert {name: there[name] for name in GIVEN} == GIVEN


# route-by-model


@pytest.mark.native
async def test_route_by_model(tmp_path: Path) -> None:
    address = loopback(1)
    folder = lay_out("route-by-model", tmp_path / "m", address)
    servers = (vllm("llama", address, 8001, "llama-3"), vllm("mixtral", address, 8002, "mixtral-8x7b", "mixtral-8x22b"))
    async with simulated(*servers), applied(folder, address), client(address) as ask:
        assert (await ask.post(CHAT, json=chat("llama-3"))).headers["x-served-by"] == "llama"
        assert (await ask.post(CHAT, json=chat("mixtral-8x22b"))).headers["x-served-by"] == "mixtral"
        by_header = await ask.post(CHAT, json=chat("mixtral-8x7b"), headers={"x-model-id": "llama-3"})
        assert by_header.headers["x-served-by"] == "llama"
        assert (await ask.get("/v1/models")).headers["x-served-by"] == "llama"
        packed = gzip.compress(json.dumps(chat("llama-3")).encode())
        kind = {"content-type": "application/json", "content-encoding": "gzip"}
        assert _error(await ask.post(CHAT, content=packed, headers=kind)) == (415, "unsupported_content_encoding")
        named = await ask.post(CHAT, content=packed, headers={**kind, "x-model-id": "llama-3"})
        assert named.headers["x-served-by"] == "llama"


@pytest.mark.native
async def test_requests_whose_model_leads_nowhere(tmp_path: Path) -> None:
    address = loopback(1)
    kind = {"content-type": "application/json"}
    async with applied(lay_out("route-by-model", tmp_path / "m", address), address), client(address) as ask:
        assert _error(await ask.post(CHAT, json=chat("gpt-9"))) == (404, "model_not_found")
        assert _error(await ask.post(CHAT, json={"messages": []})) == (400, "invalid_body")
        assert _error(await ask.post(CHAT, content=b'{"model": "llama-3"', headers=kind)) == (400, "invalid_body")
        assert _error(await ask.post(CHAT, content=b"x" * 1024**2 + b"x", headers=kind)) == (413, "request_too_large")
        packed = await ask.post(CHAT, content=b"?", headers={**kind, "content-encoding": "br"})
        assert _error(packed) == (415, "unsupported_content_encoding")


def _error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# inference-pool


@pytest.mark.native
async def test_inference_pools_with_and_without_a_picker(tmp_path: Path) -> None:
    address = loopback(1)
    folder = lay_out("inference-pool", tmp_path / "m", address)
    ranks = (vllm("rank-0", address, 8001, "llama-3"), vllm("rank-1", address, 8002, "llama-3"))
    async with (
        simulated(*ranks, vllm("mixtral", address, 8003, "mixtral-8x7b")),
        applied(folder, address),
        client(address) as ask,
    ):
        answers = [await ask.post(CHAT, json=chat("llama-3")) for _ in range(20)]
        assert {answer.headers["x-served-by"] for answer in answers} == {"rank-0", "rank-1"}
        # No picker runs; the pool says FailOpen.
        assert (await ask.post(CHAT, json=chat("mixtral-8x7b"))).headers["x-served-by"] == "mixtral"


# terminate-tls


def _secret(name: str, leaf: trustme.LeafCert) -> str:
    chain = "".join(pem.bytes().decode() for pem in leaf.cert_chain_pems)
    return (
        f"apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}}}\nstringData:\n"
        f"  tls.crt: {json.dumps(chain)}\n  tls.key: {json.dumps(leaf.private_key_pem.bytes().decode())}\n"
    )


def _authority(name: str, ca: trustme.CA) -> str:
    pem = json.dumps(ca.cert_pem.bytes().decode())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: {pem}\n"


def _tls_files(folder: Path, leaf: trustme.LeafCert) -> TlsFiles:
    certificate, key = folder / "server.crt", folder / "server.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return TlsFiles(certificate, key)


async def _over_tls(
    address: str, port: int, host: str, path: str, trusted: trustme.CA, *, shown: trustme.LeafCert | None = None
) -> httpx.Response:
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=20) as ask:
        url = f"https://{address}:{port}{path}"
        return await ask.get(url, headers={"host": host}, extensions={"sni_hostname": host})


async def test_terminate_tls(tmp_path: Path) -> None:
    address = loopback(2)
    public, partners, models = trustme.CA(), trustme.CA(), trustme.CA()
    more = {
        "api": _secret("api-certificate", public.issue_cert("api.example.com")),
        "partners": _secret("partners-certificate", public.issue_cert("partners.example.com")),
        "partners-authority": _authority("partners-authority", partners),
        "models-authority": _authority("models-authority", models),
    }
    folder = lay_out("terminate-tls", tmp_path / "m", address, more)
    server = echo("models", address, 8001, tls=_tls_files(tmp_path, models.issue_cert("models.internal")))
    async with simulated(server), applied(folder, address) as gateway:
        for path in ("/backend", "/service"):
            answer = await _over_tls(address, 8443, "api.example.com", path, public)
            assert (answer.status_code, answer.headers["x-served-by"]) == (200, "models")
        # The handshake ends without a certificate of the partners: in TLS 1.3 when the client thinks that it is over.
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await _over_tls(address, 9443, "partners.example.com", "/backend", public)
        known = partners.issue_cert("partner.example.com")
        answer = await _over_tls(address, 9443, "partners.example.com", "/backend", public, shown=known)
        assert answer.status_code == 200

        # A renewed certificate: the next connection gets it.
        renewed, version = trustme.CA(), gateway.version
        (folder / "api.yaml").write_text(_secret("api-certificate", renewed.issue_cert("api.example.com")))
        await asyncio.wait_for(gateway.serving_after(version), 20)
        assert (await _over_tls(address, 8443, "api.example.com", "/backend", renewed)).status_code == 200


# split-traffic


async def test_split_traffic(tmp_path: Path) -> None:
    address = loopback(3)
    folder = lay_out("split-traffic", tmp_path / "m", address)
    servers = (vllm("stable", address, 8001), vllm("canary", address, 8002))
    async with simulated(*servers) as (_, canary), applied(folder, address), client(address) as ask:
        answers = [await ask.post(CHAT, json=chat("m")) for _ in range(300)]
        by = Counter(answer.headers["x-served-by"] for answer in answers)
        assert 0.1 < by["canary"] / 300 < 0.3
        assert {answer.headers["x-served-by"] for answer in answers if "x-variant" in answer.headers} == {"canary"}
        assert (await ask.post(CHAT, json=chat("m"), headers={"x-tester": "yes"})).headers["x-served-by"] == "canary"

        before = len(canary.requests)
        for _ in range(40):
            answer = await ask.post("/v1/embeddings", json={"model": "m", "input": "Hello"})
            assert answer.headers["x-served-by"] == "stable"
        assert 5 < len(canary.requests) - before < 35


# timeouts-and-retries


async def test_timeouts_and_retries(tmp_path: Path) -> None:
    address = loopback(4)
    folder = lay_out("timeouts-and-retries", tmp_path / "m", address)
    servers = (echo("tools", address, 8001), vllm("models", address, 8002))
    async with simulated(*servers) as (tools, models), applied(folder, address), client(address) as ask:
        tools.set_faults([Error(status=503, count=2)])
        assert (await ask.get("/tools")).status_code == 200
        tools.set_faults([Latency(seconds=3)])
        slow = await ask.get("/tools")
        assert (slow.status_code, slow.text) == (504, "The backend did not answer in time.\n")
        assert 1.4 < slow.elapsed.total_seconds() < 3  # three attempts, none waited for

        models.set_faults([Latency(seconds=3)])
        assert _error(await ask.post(CHAT, json=chat("m"))) == (504, "backend_timeout")
        models.set_faults([Drip(size=40, every=0.1)])
        streamed = await ask.post(CHAT, json=chat("m", stream=True, max_tokens=16))
        assert streamed.elapsed.total_seconds() > 1.0  # begun in time: never cut
        assert streamed.text.endswith("data: [DONE]\n\n")


# one-machine


async def test_one_machine(tmp_path: Path) -> None:
    address, sibling = loopback(5), loopback(6)
    folder = lay_out("one-machine", tmp_path / "m", address)
    servers = (echo("near", address, 8001), echo("far", address, 8002), echo("bound", address, 8003))
    async with (
        simulated(*servers),
        applied(folder, address, bind=(f"default/bound={address}:8003",), zone="zone-a") as gateway,
        client(address) as first,
        client(sibling) as second,
    ):
        assert (await second.get("/")).headers["x-served-by"] == "bound"
        by = Counter([(await first.get("/")).headers["x-served-by"] for _ in range(40)])
        assert by["near"] >= 36, by  # a draw with weights
        backends = (folder / "backends.yaml").read_text()
        version = gateway.version
        (folder / "backends.yaml").write_text(backends.replace("zone: zone-a", "zone: zone-c"))
        await asyncio.wait_for(gateway.serving_after(version), 20)
        assert {(await first.get("/")).headers["x-served-by"] for _ in range(20)} == {"near", "far"}


# tcp-udp-tls


async def test_tcp_udp_and_tls(tmp_path: Path) -> None:
    address = loopback(7)
    public, own = trustme.CA(), trustme.CA()
    more = {"db": _secret("db-certificate", public.issue_cert("db.example.com"))}
    folder = lay_out("tcp-udp-tls", tmp_path / "m", address, more)
    secure = echo("secure", address, 8002, tls=_tls_files(tmp_path, own.issue_cert("a.direct.example.com")))
    shouter = await asyncio.start_server(_shout, address, 8001)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_Shouter, local_addr=(address, 8003))
    async with simulated(secure), shouter, applied(folder, address):
        assert await _say(address, 6379) == b"HELLO\n"
        trust = ssl.create_default_context()
        public.configure_trust(trust)
        assert await _say(address, 8443, ssl=trust, server_hostname="db.example.com") == b"HELLO\n"
        answer = await _over_tls(address, 8443, "a.direct.example.com", "/", own)
        assert answer.headers["x-served-by"] == "secure"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            await loop.sock_sendto(asking, b"hello", (address, 5353))
            assert await asyncio.wait_for(loop.sock_recv(asking, 100), 10) == b"HELLO"
    transport.close()


async def _shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


class _Shouter(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # always one of these
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data.upper(), addr)


async def _say(address: str, port: int, **tls: object) -> bytes:
    reader, writer = await asyncio.open_connection(address, port, **tls)  # type: ignore[arg-type]  # only TLS options
    writer.write(b"hello\n")
    await writer.drain()
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return answer
