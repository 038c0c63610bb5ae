"""Every fault, the control routes, and servers that come and go."""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gwanmun.sim.faults import Crash, Error, FaultPlan, Latency, decode_faults, encode_faults, parse_fault
from gwanmun.sim.http import Connection, Exchange
from gwanmun.sim.server import SimServer, run
from gwanmun.sim.spec import SimSpec, TlsFiles
from sim.conftest import Serve

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}


@pytest.fixture
async def server(serve: Serve) -> SimServer:
    return await serve(SimSpec(name="f", models=("m",)))


async def order(http: httpx.AsyncClient, server: SimServer, *faults: dict[str, Any]) -> None:
    answer = await http.post(f"{server.url}/sim/faults", json={"faults": faults})
    assert answer.status_code == 200, answer.text


async def ask(http: httpx.AsyncClient, server: SimServer, body: dict[str, Any] = CHAT, patience: float = 5) -> httpx.Response:
    return await http.post(f"{server.url}/v1/chat/completions", json=body, timeout=patience)


async def test_errors_by_share_and_by_count(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "error", "status": 503, "count": 2})
    answers = [await ask(http, server) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].json()["error"]["code"] == 503
    await order(http, server, {"kind": "error", "rate": 0.5})
    statuses = [(await ask(http, server)).status_code for _ in range(40)]
    assert 8 < statuses.count(500) < 32


async def test_rate_limit(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "rate-limited", "retry_after": 7})
    answer = await ask(http, server)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


async def test_latency(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "latency", "seconds": 0.1})
    began = time.monotonic()
    assert (await ask(http, server)).status_code == 200
    assert time.monotonic() - began >= 0.1


async def test_hang_before_headers(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        await ask(http, server, patience=0.1)
    assert (await http.get(f"{server.url}/health")).status_code == 200


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_hang_in_mid_stream(server: SimServer, http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await order(http, server, {"kind": "hang-mid-stream", "after": 2})
    got = b""

    async def read() -> None:
        nonlocal got
        async with http.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=0.1) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_bytes():
                got += piece

    with pytest.raises(httpx.ReadTimeout):
        await read()
    assert b"chatcmpl" in got
    assert b"[DONE]" not in got


async def test_reset_instead_of_an_answer(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "reset", "count": 1})
    with pytest.raises(httpx.ReadError):
        await ask(http, server)
    assert (await ask(http, server)).status_code == 200


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_reset_in_mid_stream(server: SimServer, http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await order(http, server, {"kind": "reset-mid-stream"})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await ask(http, server, body)
    assert server.requests[-1].outcome == "cancelled"


async def test_slow_drip(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "drip", "size": 100, "every": 0.01})
    began = time.monotonic()
    answer = await ask(http, server)
    assert answer.json()["choices"]
    assert time.monotonic() - began >= 0.01 * (len(answer.content) // 100)


async def test_crash_and_return_with_an_empty_cache(server: SimServer, http: httpx.AsyncClient) -> None:
    assert (await ask(http, server)).status_code == 200
    before = server.replica
    server.set_faults([Crash(back_after=0.05)])
    with pytest.raises(httpx.ReadError):
        await ask(http, server)
    with pytest.raises(httpx.ConnectError):
        await ask(http, server)
    server.set_faults([])
    deadline = time.monotonic() + 2
    while True:
        try:
            assert (await ask(http, server)).status_code == 200
            break
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
    assert server.replica is not before
    assert server.replica.engine.totals.prompt_tokens > 0


async def test_faults_on_chosen_paths(server: SimServer, http: httpx.AsyncClient) -> None:
    await order(http, server, {"kind": "error", "status": 503, "paths": ["/health"]})
    assert (await http.get(f"{server.url}/health")).status_code == 503
    assert (await ask(http, server)).status_code == 200
    await http.delete(f"{server.url}/sim/faults")
    assert (await http.get(f"{server.url}/health")).status_code == 200


async def test_wrong_orders_say_what_is_wrong(server: SimServer, http: httpx.AsyncClient) -> None:
    for body, words in (
        ({"faults": [{"kind": "explode"}]}, "explode"),
        ({"faults": [{"kind": "error", "sttus": 1}]}, "sttus"),
        ({"faults": [{"kind": "latency"}]}, "seconds"),
    ):
        answer = await http.post(f"{server.url}/sim/faults", json=body)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


async def test_what_the_server_saw(server: SimServer, http: httpx.AsyncClient) -> None:
    await http.get(f"{server.url}/health")
    await http.post(f"{server.url}/v1/chat/completions?a=b", json=CHAT, headers={"x-model-id": "gpt-4"})
    seen = (await http.get(f"{server.url}/sim/requests", params={"path": "/v1/", "last": 5})).json()
    assert (seen["name"], seen["total"]) == ("f", 2)
    (request,) = seen["requests"]
    assert (request["method"], request["path"], request["query"]) == ("POST", "/v1/chat/completions", "a=b")
    assert (request["model"], request["status"], request["outcome"]) == ("m", 200, "done")
    assert request["headers"]["x-model-id"] == "gpt-4"
    assert len(request["body_sha256"]) == 64
    await http.post(f"{server.url}/sim/reset")
    assert (await http.get(f"{server.url}/sim/requests")).json()["requests"] == []


def test_faults_as_text() -> None:
    assert parse_fault("error:status=503,rate=0.2,paths=/v1/chat+/health") == Error(
        status=503, rate=0.2, paths=("/v1/chat", "/health")
    )
    assert parse_fault("latency:seconds=0.5") == Latency(seconds=0.5)
    assert parse_fault("crash") == Crash()
    for wrong in ("", "explode", "error:status=x", "latency", "error:oops"):
        with pytest.raises(ValueError):
            parse_fault(wrong)


@pytest.mark.parametrize("rate", ["7", "-0.1", "1.01", "1e999"])
async def test_a_rate_that_is_no_share_is_refused(server: SimServer, http: httpx.AsyncClient, rate: str) -> None:
    content = f'{{"faults": [{{"kind": "error"}}, {{"kind": "error", "rate": {rate}}}]}}'
    answer = await http.post(f"{server.url}/sim/faults", content=content)
    assert answer.status_code == 400
    assert (await http.get(f"{server.url}/sim/faults")).json()["faults"] == []
    if rate != "1e999":  # JSON has no such number
        assert answer.json()["error"] == f"faults[1].rate: {rate} is not a share from 0 to 1"
        with pytest.raises(ValueError, match=f"rate: {rate} is not a share from 0 to 1"):
            parse_fault(f"error:rate={rate}")


@given(st.lists(st.builds(Error, status=st.integers(400, 599), rate=st.floats(0, 1), count=st.none() | st.integers(0, 3))))
def test_faults_survive_json(faults: list[Error]) -> None:
    assert decode_faults(encode_faults(faults)) == tuple(faults)
    plan = FaultPlan(faults)
    hits = [fault for _ in range(5) for fault in plan.chosen("/x", is_model_work=True, draw=lambda: 0.0)]
    for position, fault in enumerate(faults):
        most = 0 if fault.rate == 0 else 5 if fault.count is None else min(5, fault.count)
        assert sum(1 for hit in hits if hit is plan.faults[position]) == most


async def test_echo(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(SimSpec(name="e", engine="echo"))
    sent = [("x-one", "1"), ("x-one", "2")]
    seen = (await http.put(f"{server.url}/any/where?q=1", content=b"abc", headers=sent)).json()
    assert (seen["served_by"], seen["method"], seen["path"], seen["query"]) == ("e", "PUT", "/any/where", "q=1")
    assert seen["headers"]["x-one"] == ["1", "2"]
    assert seen["body_bytes"] == 3
    assert (await http.head(server.url)).content == b""
    server.set_faults([Error(status=502)])
    assert (await http.get(server.url)).status_code == 502


async def test_tls_with_client_certificates(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("127.0.0.1", common_name="backend")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(files.certificate)
    mine.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = await serve(SimSpec(name="s", engine="echo", tls=files))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    authority.issue_cert("client@example.com", common_name="gateway").configure_cert(context)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        seen = (await client.get(server.url)).json()
    assert seen["tls"] == {"version": "TLSv1.3", "client_common_name": "gateway"}


async def test_raw_http_edges(server: SimServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    both = await reader.read()
    assert both.count(b"HTTP/1.1 200") == 2
    writer.close()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = b"POST /tokenize HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 14\r\nconnection: close\r\n\r\n"
    writer.write(head)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b'{"prompt":"x"}')
    assert b'"count":1' in await reader.read()
    writer.close()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_large_headers_are_read(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(SimSpec(name="e", engine="echo"))
    seen = (await http.get(server.url, headers={"authorization": "Bearer " + "x" * 60_000})).json()
    assert len(seen["headers"]["authorization"][0]) == 60_007


async def test_run_frees_what_it_took_when_a_port_is_taken(server: SimServer, http: httpx.AsyncClient) -> None:
    free = SimSpec(name="ok", engine="echo")
    with pytest.raises(OSError, match=f"taken cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        await run([free, SimSpec(name="taken", engine="echo", port=server.port)])
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run([free], ready=lambda servers: started.set_result(servers[0].url)))
    assert (await http.get(await started)).json()["served_by"] == "ok"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ValueError, match=r"'warp' is unknown; choose one of 8b-h100"):
        await SimServer(SimSpec(name="x", profile="warp")).start()


async def test_a_mistake_of_ours_is_not_taken_for_an_answer(http: httpx.AsyncClient) -> None:
    async def broken(exchange: Exchange) -> None:
        if exchange.path == "/late":
            await exchange.start(200)
            await exchange.write(b"half")
        raise KeyError("oops")

    connections: set[Connection] = set()
    listener = await asyncio.get_running_loop().create_server(
        lambda: Connection(broken, connections, keep_alive=1.0), "127.0.0.1", 0
    )
    async with listener:
        host, port = listener.sockets[0].getsockname()
        assert (await http.get(f"http://{host}:{port}/early")).status_code == 500
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.get(f"http://{host}:{port}/late")
        await http.aclose()
