"""Routes of a plain HTTP listener, as requests through a real Envoy see them."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelling import bound, cluster_key, exact, header, http, listener_key, model, prefix, regex, rule, to
from proxied import Proxy, Upstream, ask, proxy, upstreams

from free_ports import free_port
from gwanmun.ir import (
    Cors,
    HeaderEdits,
    HeaderMatch,
    Host,
    HttpListener,
    HttpMatch,
    Mirror,
    QueryMatch,
    Redirect,
    ReplaceFullPath,
    ReplacePrefix,
    Respond,
    Retry,
    Rule,
    ValueMatch,
    WeightedTarget,
)
from gwanmun.ir.route import Forward
from gwanmun.xds import ROUTES
from gwanmun.xds.static import documents


@asynccontextmanager
async def serving(
    tmp_path: Path, *rules: Rule, domain: str = "*", advertised: int | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Upstream], Proxy]]:
    """Backends a and b behind a listener on port 80 with these rules."""
    port = free_port()
    async with upstreams("a", "b") as found:
        where = {name: one.port for name, one in found.items()}
        options = bound(80, port, advertised=advertised)
        served = model(http(rules, domain), backends=where)
        async with proxy(tmp_path, served, options, port) as running, running.client() as client:
            yield client, found, running


async def test_first_rule_that_matches_wins(tmp_path) -> None:
    by_query = HttpMatch(query=(QueryMatch("q", ValueMatch("1")),))
    rules = [
        rule(to("b"), exact("/exact")),
        rule(to("b"), prefix("/v1")),
        rule(to("b"), regex("/r[0-9]+")),
        rule(to("b"), HttpMatch(method="DELETE")),
        rule(to("b"), HttpMatch(headers=(header("x-h", "1"),))),
        rule(to("b"), by_query),
        rule(to("b"), HttpMatch(grpc=True)),
        rule(to("a")),
    ]
    async with serving(tmp_path, *rules) as (client, _, _):
        for path in ("/exact", "/exact?x=1", "/v1", "/v1/", "/v1/chat?x", "/r12", "/?q=1"):
            assert (await ask(client, path)).by == "b", path
        for path in ("/", "/exact/", "/v10", "/v", "/r", "/r1/2", "/?q=12", "//v1", "/%76x"):
            assert (await ask(client, path)).by == "a", path
        assert (await ask(client, method="DELETE")).by == "b"
        assert (await ask(client, headers={"x-h": "1"})).by == "b"
        assert (await ask(client, headers={"x-h": "12"})).by == "a"
        assert (await ask(client, headers={"content-type": "application/grpc"})).response.status_code == 200


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/a//b", "/a//b"), ("/a%2Fb", "/a%2Fb"), ("/a/../b", "/b"), ("/a/./b", "/a/b"), ("/a?x=//%2f", "/a?x=//%2f")],
)
async def test_a_path_stays_as_it_is_but_for_dots(tmp_path, path: str, seen: str) -> None:
    async with serving(tmp_path, rule(to("a"))) as (client, _, _):
        request = client.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert (await client.send(request)).json()["path"] == seen


async def test_hosts(tmp_path) -> None:
    port = free_port()
    hosts = {
        "a.example.com": Host("a.example.com", (rule(to("a")),)),
        "*.example.com": Host("*.example.com", (rule(to("b")),)),
    }
    async with upstreams("a", "b") as found:
        listener = HttpListener(listener_key("http"), "*", hosts)
        where = {name: one.port for name, one in found.items()}
        async with proxy(tmp_path, model(listener, backends=where), bound(80, port), port) as running, running.client() as c:
            for host in ("a.example.com", "A.Example.com", "a.example.com:80", "a.example.com:9999", "a.example.com."):
                assert (await ask(c, host=host)).by == "a", host
            for host in ("b.example.com", "x.y.example.com:81"):
                assert (await ask(c, host=host)).by == "b", host
            for host in ("example.com", "b.example.org"):
                assert (await ask(c, host=host)).status == 404, host


@pytest.mark.parametrize(
    ("match", "replacement", "path", "seen"),
    [
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", "", "/foo/bar", "/bar"),
        ("/foo", "/", "/foo/bar?q=1", "/bar?q=1"),
        ("/foo", "", "/foo", "/"),
        ("/foo", "/", "/foo/", "/"),
        ("/foo", "/", "/foo?q=/foo", "/?q=/foo"),
        ("/", "/xyz", "/bar", "/xyz/bar"),
        ("/", "/", "/bar", "/bar"),
        ("/a.b", "/", "/a.b/c", "/c"),
    ],
)
async def test_a_prefix_is_replaced(tmp_path, match: str, replacement: str, path: str, seen: str) -> None:
    rules = [rule(to("a", rewrite_path=ReplacePrefix(replacement)), prefix(match))]
    redirects = [rule(Redirect(path=ReplacePrefix(replacement)), prefix(match, method="HEAD"))]
    async with serving(tmp_path, *redirects, *rules) as (client, _, _):
        assert (await ask(client, path)).saw["path"] == seen
        location = (await ask(client, path, "HEAD")).response.headers["location"]
        assert location == f"http://test{seen}"


async def test_rewrites(tmp_path) -> None:
    rules = [
        rule(to("a", rewrite_path=ReplaceFullPath("/full\\1")), prefix("/full")),
        rule(to("a", rewrite_host="other.example"), prefix("/host")),
        rule(to("a"), prefix("/set-host"), request_headers=HeaderEdits(set=(("Host", "set.example"),))),
        rule(to("a")),
    ]
    async with serving(tmp_path, *rules) as (client, _, _):
        assert (await ask(client, "/full/x?q=1")).saw["path"] == "/full\\1?q=1"
        assert (await ask(client, "/host")).saw["headers"]["host"] == "other.example"
        assert (await ask(client, "/set-host")).saw["headers"]["host"] == "set.example"
        assert (await ask(client, "/")).saw["headers"]["host"] == "test"


async def test_header_edits(tmp_path) -> None:
    edits = HeaderEdits(
        set=(("X-Set", "100%REQ(x)%"),), add=(("X-Add", "two"), ("X-Add", "three"), ("x-too", "2")), remove=("X-Gone",)
    )
    target = WeightedTarget(
        cluster_key("a"), 1, HeaderEdits(set=(("x-set-late", "backend"),), remove=("x-too",)), HeaderEdits(add=(("x-r", "b"),))
    )
    rules = [
        rule(
            Forward((target,)),
            request_headers=replace(edits, set=(*edits.set, ("x-set-late", "rule"))),
            response_headers=HeaderEdits(set=(("x-r", "rule"),)),
        )
    ]
    async with serving(tmp_path, *rules) as (client, _, _):
        sent = {"x-set": "old", "x-add": "one", "x-gone": "1", "x-too": "1"}
        answer = await ask(client, headers=sent)
        seen = answer.saw["headers"]
        assert seen["x-set"] == "100%REQ(x)%"
        assert seen["x-add"] == "one,two,three"
        assert seen["x-set-late"] == "backend"
        assert not {"x-gone", "x-too"} & seen.keys()
        assert answer.response.headers["x-r"] == "rule"  # the rule is nearer to the client
        assert not [name for name in answer.response.headers if name.startswith("x-envoy")]


async def test_no_client_tells_envoy_what_to_do(tmp_path) -> None:
    """Clients on this machine and on private networks neither: a timeout of theirs would end other people's retries."""
    async with serving(tmp_path, rule(Forward((WeightedTarget(cluster_key("a"), 1),)))) as (client, _, _):
        answer = await ask(client, headers={"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx"})
        assert not {"x-envoy-internal", "x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on"} & answer.saw["headers"].keys()


async def test_what_envoy_would_refuse_is_left_out_and_told(tmp_path) -> None:
    bad = HeaderEdits(set=(("x-bad", "a\r\nb"), ("x-good", "1")), add=(("host", "x"), (":path", "/")))
    async with serving(tmp_path, rule(to("a"), request_headers=bad)) as (client, _, running):
        assert (await ask(client)).saw["headers"]["x-good"] == "1"
        messages = [problem.message for problem in running.translation.problems]
        assert len(messages) == 3
        assert messages[0].startswith('header ":path": not a header name')


async def test_redirects(tmp_path) -> None:
    rules = [
        rule(Redirect(status=301, host="other.example"), exact("/host")),
        rule(Redirect(status=307, path=ReplaceFullPath("/new")), exact("/path")),
        rule(Redirect(status=303, port=8443, scheme="https"), exact("/port")),
        rule(Redirect(port="listener"), exact("/listener")),
        rule(Redirect(scheme="https"), exact("/https")),
        rule(Redirect(scheme="http", port=80), exact("/eighty")),
    ]
    async with serving(tmp_path, *rules) as (client, _, _):

        async def location(path: str, host: str = "test") -> tuple[int, str]:
            answer = await ask(client, path, host=host)
            return answer.status, answer.response.headers["location"]

        assert await location("/host?q=1") == (301, "http://other.example/host?q=1")
        assert await location("/path?q=1") == (307, "http://test/new?q=1")
        assert await location("/port", "test:80") == (303, "https://test:8443/port")
        assert await location("/listener", "test:80") == (302, "http://test:80/listener")
        assert await location("/listener") == (302, "http://test/listener")
        assert await location("/https") == (302, "https://test/https")
        assert await location("/https", "test:81") == (302, "https://test:443/https")
        assert await location("/eighty") == (302, "http://test/eighty")


async def test_redirects_lead_to_ports_as_clients_see_them(tmp_path) -> None:
    rules = [rule(Redirect(port="listener"), exact("/listener")), rule(Redirect(port=80), exact("/named")), rule(Redirect())]
    async with serving(tmp_path, *rules, domain="test", advertised=8080) as (client, _, _):
        for path in ("/listener", "/named", "/"):
            found = (await ask(client, path, host="test:1")).response.headers["location"]
            assert found == f"http://test:8080{path}"


async def test_an_exact_host_never_shows_a_hidden_port(tmp_path) -> None:
    async with serving(tmp_path, rule(Redirect(scheme="https")), domain="test") as (client, _, _):
        assert (await ask(client, host="test:8080")).response.headers["location"] == "https://test/"


async def test_weights_and_the_share_of_an_unresolved_backend(tmp_path) -> None:
    rules = [rule(to(("a", 2), (None, 1), ("b", 1)), prefix("/share")), rule(to((None, 1)), prefix("/none"))]
    async with serving(tmp_path, *rules) as (client, _, _):
        answers = [await ask(client, "/share") for _ in range(400)]
        counts = Counter(answer.by if answer.status == 200 else answer.status for answer in answers)
        assert 150 < counts["a"] < 250
        assert 60 < counts["b"] < 140
        assert 60 < counts[500] < 140
        assert (await ask(client, "/none")).status == 500


async def test_mirrors(tmp_path) -> None:
    mirrors = (Mirror(cluster_key("b")), Mirror(cluster_key("b"), 0, 100))
    async with serving(tmp_path, rule(to("a", mirrors=mirrors))) as (client, found, _):
        answers = [await ask(client, "/m", method="POST", content=b"text") for _ in range(10)]
        assert {answer.by for answer in answers} == {"a"}
        await ask(client)  # one more, so that the mirrors of the others have been sent
        copies = [seen for seen in found["b"].seen if seen["path"] == "/m"]
        assert 9 <= len(copies) <= 10
        assert copies[0]["headers"]["host"] == "test"
        assert copies[0]["body"] == "text"


async def test_timeouts(tmp_path) -> None:
    short = timedelta(milliseconds=150)
    rules = [
        rule(to("a", timeout=short), exact("/request")),
        rule(to("a", backend_timeout=short), exact("/backend")),
        rule(to("a", backend_timeout=short), exact("/ai"), inference=True),
    ]
    async with serving(tmp_path, *rules) as (client, found, _):
        for path in ("/request", "/backend", "/ai"):
            found["a"].script.append("hang")
            assert (await ask(client, path)).status == 504, path


async def test_retries(tmp_path) -> None:
    retry = Retry(2, (500, 503), timedelta(milliseconds=1))
    rules = [rule(to("a", retry=retry), exact("/retry")), rule(to("a"), exact("/plain"))]
    async with serving(tmp_path, *rules) as (client, found, _):
        script, seen = found["a"].script, found["a"].seen
        script += [500, 503]
        assert (await ask(client, "/retry")).status == 200
        script += [500, 500, 500]
        assert (await ask(client, "/retry")).status == 500
        script += [502]
        assert (await ask(client, "/retry")).status == 502
        script += ["reset"]
        assert (await ask(client, "/retry")).status == 200
        before = len(seen)
        script += [503]
        assert (await ask(client, "/plain", method="POST")).status == 503
        script += ["reset"]
        assert (await ask(client, "/plain", method="POST")).status == 503
        assert len(seen) == before + 2


async def test_cors(tmp_path) -> None:
    some = Cors(
        ("https://www.foo.com", "https://*.bar.com"),
        ("GET", "OPTIONS"),
        ("x-header-1", "x-header-2"),
        ("x-header-3",),
        True,
        timedelta(hours=1),
    )
    anyone = Cors(("*",), ("*",), ("*",))
    trusted = replace(anyone, allow_credentials=True)
    rules = [
        rule(to("a"), prefix("/some"), cors=some),
        rule(to("a"), prefix("/any"), cors=anyone),
        rule(to("a"), prefix("/trusted"), cors=trusted),
    ]
    async with serving(tmp_path, *rules) as (client, found, _):

        async def preflight(path: str, origin: str, method: str = "PUT") -> httpx.Headers:
            asked = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": "x-1, x-2"}
            answer = await ask(client, path, "OPTIONS", headers=asked)
            assert answer.status in (200, 204)
            return answer.response.headers

        for origin in ("https://www.foo.com", "https://www.bar.com", "https://x.y.bar.com"):
            headers = await preflight("/some", origin, "GET")
            assert headers["access-control-allow-origin"] == origin
            assert headers["access-control-allow-methods"] == "GET, OPTIONS"
            assert headers["access-control-allow-headers"] == "x-header-1, x-header-2"
            assert headers["access-control-expose-headers"] == "x-header-3"
            assert headers["access-control-max-age"] == "3600"
            assert headers["access-control-allow-credentials"] == "true"
        for origin in ("https://foobar.com", "http://www.foo.com", "https://bar.com", "https://evil.com/.bar.com"):
            assert "access-control-allow-origin" not in await preflight("/some", origin, "GET"), origin
        headers = await preflight("/any", "https://other.com:12345")
        assert headers["access-control-allow-origin"] in ("https://other.com:12345", "*")
        assert headers["access-control-allow-methods"] in ("PUT", "*")
        assert "access-control-allow-credentials" not in headers
        headers = await preflight("/trusted", "https://other.com")
        assert headers["access-control-allow-origin"] == "https://other.com"
        assert headers["access-control-allow-methods"] == "PUT"
        assert headers["access-control-allow-headers"] == "x-1, x-2"
        assert not found["a"].seen  # preflights are answered here
        headers = (await ask(client, "/some", headers={"origin": "https://www.foo.com"})).response.headers
        assert headers["access-control-allow-origin"] == "https://www.foo.com"
        headers = (await ask(client, "/some", headers={"origin": "https://no.com"})).response.headers
        assert "access-control-allow-origin" not in headers


async def test_request_ids(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a")), rule(Respond(500))) as (client, _, _):
        answer = await ask(client, headers={"x-request-id": "mine-1"})
        assert answer.saw["headers"]["x-request-id"] == "mine-1"
        assert answer.response.headers["x-request-id"] == "mine-1"
        assert len((await ask(client)).response.headers["x-request-id"]) == 36


async def test_a_change_is_served(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a"))) as (client, found, running):
        assert (await ask(client)).by == "a"
        where = {name: one.port for name, one in found.items()}
        await running.show(model(http([rule(to("b"))]), backends=where), bound(80, running.port))
        assert (await ask(client)).by == "b"


async def test_websockets(tmp_path) -> None:
    async with serving(tmp_path, rule(to("a"))) as (client, found, _):
        found["a"].script.append(101)
        asked = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": "x", "sec-websocket-version": "13"}
        request = client.build_request("GET", "/", headers=asked)
        answer = await client.send(request, stream=True)
        await answer.aclose()
        assert found["a"].seen[0]["headers"]["upgrade"] == "websocket"


async def test_many_models_on_one_host_are_looked_up_and_still_in_order(tmp_path) -> None:
    def by_model(name: str, path: str = "/", **more: Any) -> HttpMatch:
        return prefix(path, headers=(header("x-model-id", name),), **more)

    rules = [
        rule(to("b"), exact("/health")),  # ahead of the models: looks at none
        *[rule(to("a" if n % 2 else "b"), by_model(f"m{n}", "/v1")) for n in range(100)],
        rule(Respond(202), HttpMatch(headers=(HeaderMatch("x-model-id", ValueMatch("m[0-9]+", "regex")),), method="PUT")),
        *[rule(Respond(203), by_model(f"m{n}")) for n in range(50)],
        rule(Respond(204)),
    ]
    async with serving(tmp_path, *rules) as (client, found, running):
        (table,) = documents(running.translation, ROUTES).values()
        assert "routes" not in table["virtual_hosts"][0]

        async def status(path: str, model_id: str | None, method: str = "GET") -> int | str:
            headers = {} if model_id is None else {"x-model-id": model_id}
            answer = await ask(client, path, method, headers=headers)
            return answer.by if answer.status == 200 else answer.status

        for n in (0, 1, 48, 49, 98, 99):
            assert await status("/v1/chat", f"m{n}") == ("a" if n % 2 else "b")
            assert await status("/health", f"m{n}") == "b"
            assert await status("/other", f"m{n}", "PUT") == 202
            assert await status("/other", f"m{n}") == (203 if n < 50 else 204)
        for unknown in ("m100", "m", "m1,m2", "", None):
            assert await status("/v1", unknown) == 204
            assert await status("/health", unknown) == "b"
        assert await status("/v1", "m1000", "PUT") == 202

        changed = [rules[0], rule(Respond(205), by_model("m1", "/v1")), *rules[1:]]
        served = model(http(changed), backends={name: one.port for name, one in found.items()})
        await running.show(served, bound(80, running.port))
        assert await status("/v1", "m1") == 205
        assert await status("/v1", "m3") == "a"


@pytest.mark.parametrize("count", [48, 96], ids=["tried in order", "looked up"])
async def test_of_a_repeated_header_any_value_counts_on_a_host_of_any_size(tmp_path, count: int) -> None:
    tenants = [f"t{n}" for n in range(count)]
    rules = [rule(to("a"), HttpMatch(headers=(header("x-tenant", tenant),)), name=tenant) for tenant in [*tenants, "t,u"]]
    marked = [replace(one, request_headers=HeaderEdits(set=(("x-rule", one.name or ""),))) for one in rules]
    async with serving(tmp_path, *marked, rule(to("b"), prefix("/rest"))) as (client, _, _):

        async def rule_of(*values: str) -> str:
            asked = await client.get("/", headers=[("host", "test"), *(("x-tenant", value) for value in values)])
            return str(asked.json()["headers"]["x-rule"]) if asked.status_code == 200 else str(asked.status_code)

        for values, taken in {
            ("t1",): "t1",
            ("t1", "zz"): "t1",
            ("zz", "t1"): "t1",
            ("t2", "t1"): "t1",  # the first rule, not the first value
            ("", "t1"): "t1",
            ("t1,zz",): "404",
            ("t,u",): "t,u",
            ("t", "u"): "404",
            ("zz",): "404",
            (): "404",
        }.items():
            assert await rule_of(*values) == taken, values
        assert (await ask(client, "/rest", headers={"x-tenant": "zz"})).by == "b"
        assert (await ask(client, "/rest", headers={"x-tenant": "zz,zz"})).by == "b"
