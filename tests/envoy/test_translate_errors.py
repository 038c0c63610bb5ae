"""What the gateway itself answers, and how models are found, on listeners with and without the native module."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from harness import LOOPBACK
from modelling import bound, cluster_key, exact, header, http, listener_key, model, prefix, rule, to, with_backend
from proxied import Proxy, Upstream, ask, proxy, upstreams

import gwanmun.xds.http
from free_ports import free_port
from gwanmun.ir import Backend, Endpoint, Host, HttpListener, HttpMatch, InferenceSettings, Respond, Rule
from gwanmun.xds.table import shard_count

MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"
SETTINGS = InferenceSettings(max_request_bytes=100_000)
MODEL_A = HttpMatch(headers=(header("x-model-id", "a"),))


@asynccontextmanager
async def serving(
    tmp_path: Path, *rules: Rule, module: bool, access_log: Path | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Upstream], Proxy]]:
    """Backends a and b, one called `empty` and one called `closed`, on a listener whose rules look at the model."""
    if module and not MODULE.exists():
        pytest.fail(f"no native module at {MODULE}: build it first")
    port = free_port()
    async with upstreams("a", "b") as found:
        where = {name: one.port for name, one in found.items()}
        served = model(http(rules, inference=SETTINGS), backends=where)
        served = with_backend(served, Backend(cluster_key("empty"), "http1"))
        served = with_backend(served, Backend(cluster_key("closed"), "http1"), Endpoint(LOOPBACK, free_port()))
        options = bound(
            80, port, module_path=str(MODULE) if module else None, access_log=str(access_log) if access_log else None
        )
        async with proxy(tmp_path, served, options, port) as running, running.client() as client:
            yield client, found, running


@pytest.mark.parametrize("module", [False, True], ids=["without module", "with module"])
async def test_errors_of_model_apis_have_openais_shape_and_others_do_not(tmp_path, module: bool) -> None:
    short = timedelta(milliseconds=100)
    rules = [
        variant
        for path, action in {
            "/empty": to("empty"),
            "/closed": to("closed"),
            "/missing": to((None, 1)),
            "/slow": to("a", timeout=short),
            "/respond": Respond(500),
            "/ok": to("a"),
        }.items()
        for variant in (rule(action, prefix(f"/ai{path}"), inference=True), rule(action, prefix(path)))
    ]
    async with serving(tmp_path, *rules, module=module) as (client, found, _):
        expected = {
            "/empty": (503, "no_backend_available", "5"),
            "/closed": (503, "backend_unreachable", "1"),
            "/missing": (500, "backend_not_found", None),
            "/slow": (504, "backend_timeout", None),
            "/respond": (500, "internal_error", None),
        }
        for path, (status, code, retry_after) in expected.items():
            found["a"].script += ["hang", "hang"] if path == "/slow" else []
            answer = await ask(client, f"/ai{path}")
            assert (answer.status, answer.error["code"]) == (status, code), path
            assert answer.response.headers.get("retry-after") == retry_after
            answer = await ask(client, path)
            assert answer.status == status
            assert answer.response.headers.get("content-type", "text/plain") == "text/plain"
            assert "upstream" not in answer.response.text
            assert "reset" not in answer.response.text
        found["a"].script.append(429)
        assert (await ask(client, "/ai/ok")).response.json()["name"] == "a"  # a backend's own error stays
        answer = await ask(client, "/nothing/here")
        assert (answer.status, answer.response.text) == (404, "")


async def test_a_model_in_a_header_that_nobody_serves(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a"), MODEL_A, inference=True), module=False) as (client, _, running):
        assert (await ask(client, headers={"x-model-id": "a"})).by == "a"
        answer = await ask(client, headers={"x-model-id": 'no"such\\model'})
        assert answer.status == 404
        assert answer.error["code"] == "model_not_found"
        assert 'no"such\\model' in answer.error["message"]
        assert "x-model-id" in answer.error["message"]
        (problem,) = running.translation.problems
        assert "native module is missing" in problem.message


async def test_a_model_that_is_served_but_not_at_this_path(tmp_path) -> None:
    served_at = prefix("/v1/chat/completions", method="POST", headers=MODEL_A.headers)
    async with serving(tmp_path, rule(to("a"), served_at, inference=True), module=False) as (client, _, _):
        header_a = {"x-model-id": "a"}
        assert (await ask(client, "/v1/chat/completions", "POST", headers=header_a)).by == "a"
        for method, path in (("POST", "/v1/responses"), ("GET", "/v1/chat/completions"), ("GET", "/favicon.ico")):
            answer = await ask(client, f"{path}?key=secret", method, headers=header_a)
            assert (answer.status, answer.error["code"]) == (404, "model_not_found")
            assert answer.error["message"].startswith(f"No route for `{method} {path}` with the model `a`: ")
            assert "secret" not in answer.error["message"]


async def test_the_model_in_the_body(tmp_path) -> None:
    rules = [rule(to("a"), MODEL_A, inference=True), rule(to("b"), exact("/other"))]
    log = tmp_path / "access.log"
    async with serving(tmp_path, *rules, module=True, access_log=log) as (client, _, _):
        answer = await ask(client, "/v1", "POST", json={"model": "a"})
        assert answer.by == "a"
        assert answer.saw["headers"]["x-model-id"] == "a"
        answer = await ask(client, "/v1", "POST", json={"model": "c"})
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert "`c`" in answer.error["message"]
        for body in ("{", "[]", '{"messages": []}', '{"model": 1}', '{"model": "a", "model": "b"}'):
            answer = await ask(client, "/v1", "POST", content=body, headers={"content-type": "application/json"})
            assert (answer.status, answer.error["code"]) == (400, "invalid_body"), body
            assert answer.error["message"]
        assert (await ask(client, "/other", "POST", content="{", headers={"content-type": "application/json"})).by == "b"
        answer = await ask(client, "/v1", "POST", json={"model": "a", "x": "y" * 100_000})
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert "bytes" in answer.error["message"]  # the limit
        assert (await ask(client, "/nothing")).response.text == ""


async def test_a_client_that_stalls_is_not_waited_for_and_a_backend_that_thinks_is(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(gwanmun.xds.http._LIMITS, "stream_idle_timeout", timedelta(milliseconds=500))
    rules = [rule(to("a"), MODEL_A, inference=True), rule(to("b"), exact("/other"))]
    async with serving(tmp_path, *rules, module=True) as (client, found, running):
        found["a"].seconds = found["b"].seconds = 1.2
        assert (await ask(client, "/v1", "POST", headers={"x-model-id": "a"}, json={})).by == "a"
        assert (await ask(client, "/v1", "POST", json={"model": "a"})).by == "a"
        assert (await ask(client, "/other")).by == "b"
        post = "POST /v1 HTTP/1.1\r\nhost: example.com\r\n"
        body = 'content-type: application/json\r\ncontent-length: 99\r\n\r\n{"messages": ['
        for begun in (post, post + body):
            reader, writer = await asyncio.open_connection(LOOPBACK, running.port)
            writer.write(begun.encode())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
            answer = head + (await asyncio.wait_for(reader.read(), 20)).decode()
            assert answer.startswith("HTTP/1.1 408 ")
            assert "The request took too long to arrive." in answer
            writer.close()


async def test_compressed_bodies(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a"), MODEL_A, inference=True), module=True) as (client, _, _):

        async def post(body: bytes, encoding: str) -> httpx.Response:
            headers = {"content-type": "application/json", "content-encoding": encoding}
            return (await ask(client, "/v1", "POST", content=body, headers=headers)).response

        for encoding in ("gzip", "br"):
            refused = await post(gzip.compress(b'{"model": "a"}'), encoding)
            assert refused.status_code == 415
            assert f'content-encoding "{encoding}"' in refused.json()["error"]["message"]
            assert "x-model-id" in refused.json()["error"]["message"]


async def test_a_connection_that_breaks_names_no_internals(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a"), inference=True), module=True) as (client, found, _):
        found["a"].script += ["reset"]
        answer = await ask(client, method="POST", json={"model": "a"})
        assert (answer.status, answer.error["code"]) == (503, "backend_unreachable")


@pytest.mark.parametrize(
    ("exact", "wild", "count"), [(100, 0, 0), (101, 0, 256), (101, 16, 256), (101, 17, 64), (101, 64, 64), (101, 65, 0)]
)
def test_a_big_table_is_cut_unless_too_much_would_be_in_every_part(exact: int, wild: int, count: int) -> None:
    hosts = {f"h{n}": Host(f"h{n}", (rule(to("a")),)) for n in range(exact)}
    hosts["*"] = Host("*", (rule(to("a")),) * wild)
    assert shard_count(hosts, threshold=100, most=256) == count


async def test_routes_in_shards(tmp_path) -> None:
    """A big table is cut; the module says where to look, whatever the client claims."""
    hosts = {f"h{n}.example": Host(f"h{n}.example", (rule(to("a" if n % 2 else "b")),)) for n in range(60)}
    by_model = Host("*.wild.example", (rule(to("a"), MODEL_A, inference=True), rule(to("b"))))
    hosts[by_model.domain] = by_model
    port = free_port()
    async with upstreams("a", "b") as found:
        where = {name: one.port for name, one in found.items()}
        listener = HttpListener(listener_key("http"), "*", hosts, inference=SETTINGS)
        options = bound(80, port, module_path=str(MODULE), shard_threshold=50, shards=8)
        served = model(listener, backends=where)
        async with proxy(tmp_path, served, options, port) as running, running.client() as client:
            for n in range(0, 60, 7):
                answer = await ask(client, host=f"H{n}.example:{port}", headers={"x-gwanmun-shard": "3"})
                assert answer.by == ("a" if n % 2 else "b")
                assert not [name for name in answer.saw["headers"] if name.startswith("x-gwanmun")]
            assert (await ask(client, host="x.wild.example")).by == "b"
            assert (await ask(client, "/v1", "POST", host="y.wild.example", json={"model": "a"})).by == "a"
            assert (await ask(client, host="h60.example")).status == 404
            changed = {**hosts, "h4.example": Host("h4.example", (rule(to("a")),))}
            next_one = model(replace(listener, hosts=changed), backends=where)
            next_one = replace(next_one, backends=served.backends, endpoints=served.endpoints)
            translation = await running.show(next_one, options)
            assert [len(names) for names in translation.changed.values()] == [1]
            assert (await ask(client, host="h4.example")).by == "a"
