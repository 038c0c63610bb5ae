"""The xDS port with a Secret of others: what is served before, while and after it changes. The API server is scripted, all
else is real.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
import yaml
from cryptography import x509
from lightkube.config.kubeconfig import KubeConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from free_ports import free_port
from gwanmun.app import securing
from gwanmun.app.controller import Controller, ControllerOptions
from gwanmun.app.securing import Securing
from gwanmun.app.serving import listening_socket, serving
from gwanmun.infra.authority import SERVER_NAME
from gwanmun.infra.fleet import FleetOptions
from gwanmun.infra.given import TRUSTED_BEFORE_USE
from gwanmun.infra.xdstls import SECRET, XdsTls, XdsTlsError, XdsTlsOptions
from gwanmun.kube import ApiError, Connection, KubeClient

GARBAGE = {"tls.crt": b"garbage", "tls.key": b"garbage", "ca.crt": b"\xff\xfe"}


def issued(ca: trustme.CA, name: str = SERVER_NAME) -> dict[str, bytes]:
    one = ca.issue_cert(name)
    return {
        "tls.crt": b"".join(pem.bytes() for pem in one.cert_chain_pems),
        "tls.key": one.private_key_pem.bytes(),
        "ca.crt": ca.cert_pem.bytes(),
    }


class ApiServer:
    """Has one Secret, or none, and nothing else. `away`: says so."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.away = False
        self.now = datetime.now(UTC)

    def clock(self) -> datetime:
        return self.now

    async def answer(self, request: Request) -> Response:
        if self.away:
            return Response(b"away", 503)
        found = re.fullmatch("/api/v1/namespaces/sys/secrets/(.*)", request.url.path)
        data = self.secrets.get(found[1]) if found is not None else None
        if data is None:
            return JSONResponse({"kind": "Status", "reason": "NotFound", "message": "not found"}, 404)
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        return JSONResponse({"kind": "Secret", "metadata": {"name": "given", "resourceVersion": "1"}, "data": encoded})


@asynccontextmanager
async def answering(api: ApiServer) -> AsyncIterator[str]:
    listener = listening_socket(0, "127.0.0.1")
    async with serving(Starlette(routes=[Route("/{path:path}", api.answer)]), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def xds_tls(api: ApiServer, secret: str | None = "given") -> AsyncIterator[XdsTls]:
    async with answering(api) as url:
        config = KubeConfig.from_server(url).get()
        assert config is not None
        async with KubeClient(Connection(config, "sys")) as client:
            yield XdsTls(client, XdsTlsOptions("sys", secret), clock=api.clock)


async def leaf_of(port: int) -> bytes:
    """What is served to whoever connects now, as PEM."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der).encode()


def first_of(data: dict[str, bytes]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(data["tls.crt"])


async def serves(port: int, data: dict[str, bytes]) -> bool:
    return x509.load_pem_x509_certificate(await leaf_of(port)) == first_of(data)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (None, "Secret sys/given does not exist; create it"),
        ({}, 'Secret sys/given: "tls.crt", "tls.key", "ca.crt" missing; '),
        (GARBAGE, 'Secret sys/given: "tls.crt" is not a list of PEM certificates; '),
        (issued(trustme.CA()) | {"ca.crt": b"\xff\xfe"}, 'Secret sys/given: "ca.crt" is not a list of PEM certificates; '),
        (issued(trustme.CA()) | {"tls.key": issued(trustme.CA())["tls.key"]}, 'Secret sys/given: "tls.key" is not the key'),
        (
            issued(trustme.CA(), "other.svc"),
            f"is for other.svc; have the certificate issued anew with the DNS name {SERVER_NAME}",
        ),
    ],
    ids=["gone", "empty", "garbage", "not-utf-8", "another-key", "another-name"],
)
async def test_a_secret_that_cannot_be_used_is_named_and_changes_nothing(bad: dict[str, bytes] | None, problem: str) -> None:
    api, good = ApiServer(), issued(trustme.CA())
    async with xds_tls(api) as tls:
        if bad is not None:
            api.secrets["given"] = bad
        with pytest.raises(XdsTlsError, match=re.escape(problem)):
            await tls.refresh()
        assert not tls.usable
        api.secrets["given"] = good
        await tls.refresh()
        before = tls.bundle
        api.secrets = {} if bad is None else {"given": bad}
        with pytest.raises(XdsTlsError, match=re.escape(problem)):
            await tls.refresh()
        assert tls.usable
        assert tls.bundle == before


async def test_a_changed_secret_is_served_from_the_next_handshake_on_and_no_stream_ends() -> None:
    old, new = trustme.CA(), trustme.CA()
    api = ApiServer()
    api.secrets["given"] = first = issued(old)
    async with xds_tls(api) as tls, _echo(tls) as port, _stream(port, old) as ask:
        assert await serves(port, first)
        api.secrets["given"] = second = issued(old)
        await tls.refresh()
        assert await serves(port, second)
        api.secrets["given"] = third = issued(new)
        await tls.refresh()
        assert await serves(port, second)  # proxies learn of the new authority first
        assert tls.bundle == new.cert_pem.bytes().decode() + old.cert_pem.bytes().decode()
        api.now += TRUSTED_BEFORE_USE
        api.secrets["given"] = GARBAGE  # what has been good meanwhile has its time nevertheless
        with pytest.raises(XdsTlsError):
            await tls.refresh()
        assert await serves(port, third)
        assert old.cert_pem.bytes().decode() in tls.bundle
        assert await ask(b"still there") == b"still there"
        api.now += timedelta(days=1)
        api.secrets["given"] = third
        await tls.refresh()
        await tls.refresh()
        assert tls.bundle == new.cert_pem.bytes().decode()
        assert await ask(b"and now") == b"and now"


async def test_an_api_server_that_is_away_changes_nothing() -> None:
    api = ApiServer()
    api.secrets["given"] = issued(trustme.CA())
    async with xds_tls(api) as tls:
        await tls.refresh()
        before, api.away = tls.bundle, True
        with pytest.raises(ApiError, match="away"):
            await tls.refresh()
        assert tls.bundle == before


@pytest.mark.parametrize(
    "bad",
    [
        {"ca.crt": trustme.CA().cert_pem.bytes(), "ca.key": issued(trustme.CA())["tls.key"]},
        {
            "ca.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca.key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        },
        {"ca.crt": trustme.CA().cert_pem.bytes()},
    ],
    ids=["another-key", "garbage", "no-key"],
)
async def test_our_own_secret_that_somebody_has_spoiled_is_named(bad: dict[str, bytes]) -> None:
    api = ApiServer()
    api.secrets[SECRET] = bad
    async with xds_tls(api, None) as tls:
        with pytest.raises(XdsTlsError, match=f"Secret sys/{SECRET} has .*; delete it to begin anew"):
            await tls.refresh()


async def test_what_is_wrong_is_told_once_and_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(securing, "_START_AGAIN_S", (0.01, 0.01))
    api = ApiServer()
    with capture_logs() as logs:
        async with xds_tls(api) as tls, asyncio.timeout(10):
            keeping = Securing(tls, changed=lambda: None)
            secure = asyncio.create_task(keeping.until_secure())

            async def says(text: str) -> bool:
                return text in keeping.waiting

            await _until(partial(says, "does not exist"))
            api.secrets["given"] = GARBAGE
            await _until(partial(says, "not a list"))
            api.secrets["given"] = issued(trustme.CA())
            await secure
            assert keeping.waiting == ""
    told = [(one["event"], one.get("problem", "")[:22], one.get("serving")) for one in logs]
    assert [one for one in told if one[0].startswith("xds_")] == [
        ("xds_certificate_unavailable", "Secret sys/given does ", False),
        ("xds_certificate_unavailable", 'Secret sys/given: "tls', False),
        ("xds_certificate_restored", "", None),
    ]


def test_the_secret_is_looked_at_every_minute() -> None:
    assert securing._LOOK_AGAIN_S <= 60


async def test_a_controller_waits_for_its_certificate_and_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(securing, "_START_AGAIN_S", (0.02, 0.02))
    monkeypatch.setattr(securing, "_LOOK_AGAIN_S", 0.02)
    api, ca, xds, health = ApiServer(), trustme.CA(), free_port(), free_port()
    async with answering(api) as url, asyncio.timeout(30):
        cluster = {"name": "c", "cluster": {"server": url}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        config = {"clusters": [cluster], "contexts": [context], "current-context": "c", "users": [{"name": "u", "user": {}}]}
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        controller = Controller(
            ControllerOptions(
                FleetOptions(image="", xds_address=f"127.0.0.1:{xds}", xds_server_name=SERVER_NAME, xds_ca=""),
                kubeconfig=tmp_path / "config",
                namespace="sys",
                xds_listen=f"127.0.0.1:{xds}",
                metrics_listen=f"127.0.0.1:{health}",
                xds_secret="given",
                leader_elect=False,
            )
        )
        running = asyncio.create_task(controller.run())

        async def says(text: str) -> bool:
            if running.done():
                running.result()
            try:
                async with httpx.AsyncClient(trust_env=False) as client:
                    answer = await client.get(f"http://127.0.0.1:{health}/readyz")
            except httpx.TransportError:
                return False
            return f"{answer.status_code} {answer.text}".startswith(text)

        waiting = "503 waiting for the certificate of the xDS port: Secret sys/given"
        await _until(partial(says, f"{waiting} does not exist"))
        api.secrets["given"] = GARBAGE
        await _until(partial(says, f'{waiting}: "tls.crt" is not a list of PEM certificates'))
        api.secrets["given"] = first = issued(ca)
        await _until(partial(says, "200 ready"))
        assert await serves(xds, first)
        api.secrets["given"] = GARBAGE
        await asyncio.sleep(0.2)
        assert await says("200 ready")
        assert await serves(xds, first)
        api.secrets["given"] = second = issued(ca)
        await _until(partial(serves, xds, second))
        controller.request_stop()
        await running


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await what():  # noqa: ASYNC110  it is asked over a socket
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _echo(tls: XdsTls) -> AsyncIterator[int]:
    """A server of streams that answers with what it was sent."""

    async def echo(requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request)

    await tls.refresh()
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("test", {"Echo": grpc.stream_stream_rpc_method_handler(echo)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("127.0.0.1:0", tls.credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@asynccontextmanager
async def _stream(port: int, ca: trustme.CA) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    named = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, named) as channel:
        stream: Any = channel.stream_stream("/test/Echo")()

        async def ask(message: bytes) -> bytes:
            await stream.write(message)
            answer: bytes = await asyncio.wait_for(stream.read(), 5)
            return answer

        assert await ask(b"hello") == b"hello"
        yield ask
        stream.cancel()
