"""What is logged and counted of requests and connections, by the native module and, without it, by Envoy itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import LOOPBACK
from modelling import bound, cluster_key, header, http, listener_key, model, prefix, rule, to, with_backend
from proxied import Proxy, ask, proxy, upstreams
from test_translate_l4 import greeter, l4, read_all, with_l4

import gwanmun
from free_ports import free_port
from gwanmun.infra.bootstrap import MODULE_METRICS, BootstrapOptions
from gwanmun.infra.bootstrap import bootstrap as our_bootstrap
from gwanmun.ir import Backend, Endpoint, HttpMatch, InferenceSettings, ReplacePrefix, Rule, TcpListener
from gwanmun.xds.accesslog import logged_fields

MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"
SETTINGS = InferenceSettings()
BY_MODULE = pytest.mark.parametrize("module", [False, True], ids=["by Envoy", "by the module"])
RULES = (
    rule(to("a"), HttpMatch(headers=(header("x-model-id", "a"),)), inference=True),
    rule(to("closed"), prefix("/closed")),
    rule(to("a", rewrite_path=ReplacePrefix("/new")), prefix("/old")),
)
OF_THE_MOMENT = ("time", "client", "upstream", "duration_ms", "first_byte_ms")


def module_path(wanted: bool) -> str | None:
    if wanted and not MODULE.exists():
        pytest.fail(f"no native module at {MODULE}: build it first")
    return str(MODULE) if wanted else None


@asynccontextmanager
async def serving(tmp_path: Path, *rules: Rule, module: bool) -> AsyncIterator[tuple[httpx.AsyncClient, Proxy]]:
    """A backend `a` and one that cannot be reached, on a listener whose rules look at the model."""
    port, log = free_port(), tmp_path / "access.log"
    extensions = our_bootstrap(BootstrapOptions("", tmp_path, tmp_path, module=MODULE))["bootstrap_extensions"]
    async with upstreams("a") as found:
        served = model(http(rules, inference=SETTINGS), backends={"a": found["a"].port})
        served = with_backend(served, Backend(cluster_key("closed"), "http1"), Endpoint(LOOPBACK, free_port()))
        options = bound(80, port, module_path=module_path(module), access_log=str(log))
        async with proxy(tmp_path, served, options, port, extensions=extensions) as running, running.client() as client:
            yield client, running


async def lines(directory: Path, running: Proxy, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The log, once it has what is waited for. Envoy keeps lines back for some seconds unless it is asked."""
    log = directory / "access.log"
    async with asyncio.timeout(20):
        while True:
            await running.envoy.admin.post("/reopen_logs")
            text = log.read_text() if log.exists() else ""
            found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            if enough(found):
                return found
            await asyncio.sleep(0.05)


@BY_MODULE
async def test_a_request_is_logged_with_all_that_explains_it(tmp_path, module: bool) -> None:
    async with serving(tmp_path, *RULES, module=module) as (client, running):
        asked = {"x-request-id": "id-1", "x-model-id": "a", "authorization": "Bearer secret"}
        await ask(client, "/v1?key=secret", "POST", host="me", json={"model": "a"}, headers=asked)
        (entry,) = await lines(tmp_path, running, bool)
    assert "secret" not in (tmp_path / "access.log").read_text()
    assert entry["request_id"] == "id-1"
    assert (entry["method"], entry["authority"], entry["path"], entry["code"]) == ("POST", "me", "/v1", 200)
    assert (entry["model"], entry["cluster"], entry["attempts"]) == ("a", "ai/a:80", 1)
    assert entry["route"] == f"HTTPRoute/ai/{RULES[0].key.rule.route.name}/0/0"
    assert entry["first_byte_ms"] is not None


async def test_the_module_writes_what_envoy_would(tmp_path) -> None:
    """Field by field, but for what differs from request to request."""
    logged = []
    for module in (False, True):
        directory = tmp_path / str(module)
        directory.mkdir()
        async with serving(directory, *RULES, module=module) as (client, running):
            for number, (path, headers) in enumerate(
                [
                    ("/", {"x-model-id": "a"}),
                    ("/old/path?query", {}),
                    ("/closed", {}),
                    ("/nowhere", {"x-model-id": "none"}),
                    ("/", {"x-model-id": 'a "quoted" \\ 관문'.encode()}),
                ]
            ):
                await ask(client, path, headers={"x-request-id": str(number), **headers})
            found = await lines(directory, running, lambda entries: len(entries) == 5)
        logged.append([{name: value for name, value in entry.items() if name not in OF_THE_MOMENT} for entry in found])
        for entry in logged[-1]:
            entry["flags"] = set(entry["flags"].split(","))  # their order says nothing
        assert {name for entry in found for name in entry} == logged_fields(SETTINGS) - {"listener", "server_name", "failure"}
    for by_envoy, by_module in zip(*logged, strict=True):
        assert by_module == by_envoy


async def test_the_model_of_the_body_is_logged_or_why_there_is_none(tmp_path) -> None:
    async with serving(tmp_path, *RULES, module=True) as (client, running):
        for body in (b'{"model": "a"}', b"{"):
            await ask(client, "/", "POST", headers={"content-type": "application/json"}, content=body)
        read, unread = await lines(tmp_path, running, lambda entries: len(entries) == 2)
    assert (read["model"], read["body_problem"], read["code"]) == ("a", None, 200)
    assert (unread["model"], unread["code"]) == (None, 400)
    assert "not valid JSON" in unread["body_problem"]


async def test_a_log_that_is_moved_away_is_begun_anew(tmp_path) -> None:
    async with serving(tmp_path, *RULES, module=True) as (client, running):
        await ask(client, "/", headers={"x-model-id": "a", "x-request-id": "first"})
        await lines(tmp_path, running, bool)
        (tmp_path / "access.log").rename(tmp_path / "access.log.1")
        await ask(client, "/", headers={"x-model-id": "a", "x-request-id": "second"})
        (entry,) = await lines(tmp_path, running, bool)
    assert entry["request_id"] == "second"


@BY_MODULE
async def test_a_connection_is_logged(tmp_path, module: bool) -> None:
    port, log = free_port(), tmp_path / "access.log"
    async with greeter("hello") as backend:
        served = with_l4(model(TcpListener(listener_key("tcp"), l4("tcp", ("a", 1))), port=9000), "tcp", a=backend)
        options = bound(9000, port, module_path=module_path(module), access_log=str(log))
        async with proxy(tmp_path, served, options, port) as running:
            assert await read_all(port) == "hello"
            (entry,) = await lines(tmp_path, running, bool)
    assert (entry["cluster"], entry["upstream"], entry["bytes_sent"]) == ("ai/a:80|protocol=tcp", f"{LOOPBACK}:{backend}", 5)
    assert entry["listener"]
    assert (entry["server_name"], entry["failure"]) == (None, None)


async def test_requests_are_counted_by_backend_for_as_long_as_it_is_there(tmp_path) -> None:
    async with serving(tmp_path, *RULES, module=True) as (client, running):
        for headers in ({"x-model-id": "a"}, {"x-model-id": "a"}, {}):
            await ask(client, "/closed" if not headers else "/", headers=headers)
        metrics = (await running.envoy.admin.get(MODULE_METRICS)).text
        assert 'gwanmun_backend_requests_total{backend="ai/a:80",code="200"} 2\n' in metrics
        assert 'gwanmun_backend_requests_total{backend="ai/closed:80",code="503"} 1\n' in metrics
        assert 'gwanmun_backend_request_seconds_count{backend="ai/a:80"} 2\n' in metrics
        assert 'gwanmun_backend_first_byte_seconds_bucket{backend="ai/a:80",le="+Inf"} 2\n' in metrics
        assert "upstream_rq_2" not in (await running.envoy.admin.get("/stats", params={"filter": r"^cluster\.ai/a.80"})).text

        await running.show(model(http((), inference=SETTINGS)), bound(80, running.port, module_path=str(MODULE)))
        async with asyncio.timeout(20):
            while "ai/a:80" in (await running.envoy.admin.get(MODULE_METRICS)).text:  # noqa: ASYNC110  removals come last
                await asyncio.sleep(0.05)


async def test_without_the_module_envoy_counts(tmp_path) -> None:
    async with serving(tmp_path, *RULES, module=False) as (client, running):
        await ask(client, "/", headers={"x-model-id": "a"})
        assert await running.envoy.stat(r"cluster\.ai/a.80\.upstream_rq_200") == 1
