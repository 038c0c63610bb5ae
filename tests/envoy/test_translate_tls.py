"""TLS: listeners by server name, client certificates, misdirected requests, backends over TLS and HTTP/2, passthrough."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trustme
from harness import LOOPBACK
from modelling import ROUTE_GROUP, bound, cluster_key, http, listener_key, model, rule, to, with_backend
from proxied import proxy, upstreams

from free_ports import free_port
from gwanmun.ir import (
    Backend,
    BackendTls,
    Certificate,
    ClientValidation,
    Endpoint,
    Host,
    HttpListener,
    L4Rule,
    Model,
    NoTrust,
    Respond,
    SubjectAltName,
    TlsListener,
    TlsTermination,
    TrustAnchors,
    WeightedTarget,
)
from gwanmun.names import CertificateKey, NamespacedName, ObjectKey, RuleKey

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
PEM = AUTHORITY.cert_pem.bytes().decode()


def certificate(name: str, *hosts: str, authority: trustme.CA = AUTHORITY) -> Certificate:
    issued = authority.issue_cert(*hosts)
    chain = "".join(part.bytes().decode() for part in issued.cert_chain_pems)
    return Certificate(CertificateKey(NamespacedName("infra", name)), chain, issued.private_key_pem.bytes().decode())


def termination(*certificates: Certificate, validation: ClientValidation | None = None) -> TlsTermination:
    return TlsTermination(tuple(one.key for one in certificates), validation)


def trusting(protocols: list[str] | None = None, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    context.set_alpn_protocols(protocols or ["http/1.1"])
    return context


async def fetch(port: int, server_name: str | None, host: str, context: ssl.SSLContext) -> tuple[int, str]:
    """Status and body of one request over a connection of its own."""
    if server_name is None:
        context.check_hostname = False
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=server_name or "")
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
        if not head:
            raise ConnectionResetError
        return int(head.split()[1]), body
    finally:
        writer.close()


async def test_listeners_by_server_name(tmp_path) -> None:
    port = free_port()
    first, wild = certificate("first", "a.example"), certificate("wild", "*.wild.example")
    async with upstreams("a", "b") as found:
        listeners = (
            http([rule(to("a"))], "a.example", "first", tls=termination(first), misdirected=("*.wild.example", "b.example")),
            http([rule(to("b"))], "*.wild.example", "wild", tls=termination(wild), misdirected=("a.example", "*")),
        )
        served = model(*listeners, port=443, backends={name: one.port for name, one in found.items()})
        served = with_certificates(served, first, wild)
        async with proxy(tmp_path, served, bound(443, port), port):
            context = trusting()
            status, body = await fetch(port, "a.example", "a.example", context)
            assert (status, '"name": "a"' in body) == (200, True)
            status, body = await fetch(port, "x.wild.example", "y.wild.example", context)
            assert (status, '"name": "b"' in body) == (200, True)
            for server_name, host, expected in [
                ("a.example", "x.wild.example", 421),
                ("a.example", "b.example", 421),
                ("a.example", "c.example", 404),
                ("x.wild.example", "a.example", 421),
                ("x.wild.example", "unknown", 421),
            ]:
                assert (await fetch(port, server_name, host, context))[0] == expected, (server_name, host)
            for unknown in ("other.example", None):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await fetch(port, unknown, "a.example", context)


def with_certificates(served: Model, *certificates: Certificate) -> Model:
    return replace(served, certificates={one.key: one for one in certificates})


async def test_a_listener_without_hostname_takes_the_rest(tmp_path) -> None:
    port = free_port()
    both = certificate("both", "a.example", "other.example")
    async with upstreams("a", "b") as found:
        listeners = (
            http([rule(to("a"))], "a.example", "first", tls=termination(both)),
            http([rule(to("b"))], "*", "rest", tls=termination(both), misdirected=("a.example",)),
        )
        served = model(*listeners, port=443, backends={name: one.port for name, one in found.items()})
        async with proxy(tmp_path, with_certificates(served, both), bound(443, port), port):
            assert '"name": "a"' in (await fetch(port, "a.example", "a.example", trusting()))[1]
            assert '"name": "b"' in (await fetch(port, "other.example", "other.example", trusting()))[1]
            assert '"name": "b"' in (await fetch(port, None, "other.example", trusting()))[1]


async def test_http2_and_certificates_of_both_kinds(tmp_path) -> None:
    port = free_port()
    elliptic = certificate("elliptic", "a.example")
    issued = AUTHORITY.issue_cert("a.example", key_type=trustme.KeyType.RSA)
    chain = "".join(part.bytes().decode() for part in issued.cert_chain_pems)
    rsa = Certificate(CertificateKey(NamespacedName("infra", "rsa")), chain, issued.private_key_pem.bytes().decode())
    async with upstreams("a") as found:
        listener = http([rule(to("a"))], "a.example", tls=termination(elliptic, rsa))
        served = with_certificates(model(listener, port=443, backends={"a": found["a"].port}), elliptic, rsa)
        async with proxy(tmp_path, served, bound(443, port), port):
            for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"):
                context = trusting(["h2", "http/1.1"])
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(cipher)
                _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname="a.example")
                tls = writer.get_extra_info("ssl_object")
                assert (tls.selected_alpn_protocol(), tls.cipher()[0]) == ("h2", cipher)
                writer.close()


@pytest.mark.parametrize("required", [True, False])
async def test_client_certificates(tmp_path, required: bool) -> None:
    port = free_port()
    own = certificate("own", "a.example")
    async with upstreams("a") as found:
        listener = http([rule(to("a"))], tls=termination(own, validation=ClientValidation(PEM, required)))
        served = with_certificates(model(listener, port=443, backends={"a": found["a"].port}), own)
        async with proxy(tmp_path, served, bound(443, port), port):
            good = trusting(client=AUTHORITY.issue_cert("client"))
            assert (await fetch(port, "a.example", "a.example", good))[0] == 200
            for client in (None, STRANGER.issue_cert("client")):
                if required:
                    with pytest.raises((ssl.SSLError, ConnectionError)):
                        await fetch(port, "a.example", "a.example", trusting(client=client))
                else:
                    assert (await fetch(port, "a.example", "a.example", trusting(client=client)))[0] == 200


async def test_a_listener_without_a_certificate_is_left_out_and_told(tmp_path) -> None:
    port = free_port()
    own = certificate("own", "a.example")
    gone = TlsTermination((CertificateKey(NamespacedName("infra", "gone")),))
    listeners = (
        http([rule(Respond(204))], "a.example", "own", tls=termination(own)),
        http([rule(Respond(204))], "b.example", "gone", tls=gone),
    )
    served = with_certificates(model(*listeners, port=443), own)
    async with proxy(tmp_path, served, bound(443, port), port) as running:
        assert (await fetch(port, "a.example", "a.example", trusting()))[0] == 204
        (problem,) = running.translation.problems
        assert problem.subject == listener_key("gone")


# Backends


@asynccontextmanager
async def tls_backend(
    names: tuple[str, ...], protocols: list[str], ask_client: bool = False
) -> AsyncIterator[tuple[int, list[Any]]]:
    """A server that says over TLS which server name, protocol and client certificate it got."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(protocols)
    if ask_client:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    asked: list[Any] = []
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntls")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


@pytest.mark.parametrize(
    ("tls", "status"),
    [
        (BackendTls("be.example", TrustAnchors(PEM)), 200),
        (BackendTls("x.wild.example", TrustAnchors(PEM)), 200),
        (BackendTls("other.example", TrustAnchors(PEM)), 503),
        (BackendTls("other.example", TrustAnchors(PEM), (SubjectAltName("dns", "be.example"),)), 200),
        (BackendTls("be.example", TrustAnchors(PEM), (SubjectAltName("dns", "no.example"),)), 503),
        (BackendTls("be.example", TrustAnchors(STRANGER.cert_pem.bytes().decode())), 503),
        (BackendTls("other.example", NoTrust()), 200),
    ],
)
async def test_tls_to_backends(tmp_path, tls: BackendTls, status: int) -> None:
    port = free_port()
    async with tls_backend(("be.example", "*.wild.example"), ["http/1.1"]) as (at, asked):
        served = with_backend(model(http([rule(to("tls"))])), Backend(cluster_key("tls"), "http1", tls), Endpoint(LOOPBACK, at))
        async with proxy(tmp_path, served, bound(80, port), port) as running, running.client() as client:
            answer = await client.get("/")
            assert (answer.status_code, asked[0]) == (status, tls.hostname)
            assert "certificate" not in answer.text.lower()


async def test_our_own_certificate_to_a_backend(tmp_path) -> None:
    port = free_port()
    own = certificate("own", "gateway.example")
    async with tls_backend(("be.example",), ["http/1.1"], ask_client=True) as (at, _):
        for client_certificate, status in ((own.key, 200), (None, 503)):
            tls = BackendTls("be.example", TrustAnchors(PEM), client_certificate=client_certificate)
            served = model(http([rule(to("tls"))]))
            served = with_backend(served, Backend(cluster_key("tls"), "http1", tls), Endpoint(LOOPBACK, at))
            async with (
                proxy(tmp_path, with_certificates(served, own), bound(80, port), port) as running,
                running.client() as client,
            ):
                assert (await client.get("/")).status_code == status


# Without HTTP


def l4(*names: str | None, hosts: tuple[str, ...] = ()) -> L4Rule:
    targets = tuple(WeightedTarget(None if name is None else cluster_key(name, "tcp"), 1) for name in names)
    return L4Rule(RuleKey(ObjectKey(ROUTE_GROUP, "TLSRoute", "ai", "r"), 0), targets, hosts)


async def test_passthrough_and_termination_beside_https(tmp_path) -> None:
    port = free_port()
    own = certificate("own", "end.example", "web.example", "*.pass.example")
    async with tls_backend(("a.pass.example",), ["http/1.1"]) as (at, asked), upstreams("plain") as found:
        served = model(
            TlsListener(listener_key("pass"), "*.pass.example", (l4("through", hosts=("a.pass.example",)),)),
            TlsListener(listener_key("end"), "end.example", (l4("plain", hosts=("end.example",)),), termination(own)),
            HttpListener(
                listener_key("web"),
                "web.example",
                {"web.example": Host("web.example", (rule(Respond(204)),))},
                termination(own),
            ),
            http([rule(Respond(204))], "*", "rest", tls=termination(own)),
            port=443,
        )
        served = with_backend(served, Backend(cluster_key("through", "tcp"), "tcp"), Endpoint(LOOPBACK, at))
        served = with_backend(served, Backend(cluster_key("plain", "tcp"), "tcp"), Endpoint(LOOPBACK, found["plain"].port))
        async with proxy(tmp_path, with_certificates(served, own), bound(443, port), port):
            assert await read_one(port, "a.pass.example") == "tls"
            assert asked == ["a.pass.example"]
            assert '"name": "plain"' in await read_one(port, "end.example")
            assert (await fetch(port, "web.example", "web.example", trusting()))[0] == 204
            # The passthrough listener's hostname is its own, with or without a route for the name.
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await fetch(port, "b.pass.example", "b.pass.example", trusting())


async def read_one(port: int, server_name: str) -> str:
    """The body of an answer with a content-length."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=trusting(), server_hostname=server_name)
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: {server_name}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return (await reader.readexactly(length)).decode()
    finally:
        writer.close()
