"""What `explain` says of a request is what Envoy does with it: status and rule, for requests that clients get wrong, too."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import bound, exact, header, listener_key, model, prefix, regex, rule, to
from proxied import proxy, upstreams

import gwanmun
from free_ports import free_port
from gwanmun.explain import Request, explain
from gwanmun.ir import (
    HeaderEdits,
    HeaderMatch,
    Host,
    HttpListener,
    HttpMatch,
    InferenceSettings,
    Model,
    QueryMatch,
    Redirect,
    Rule,
    ValueMatch,
)

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="module")]

MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"
LIMIT = 10_000
ONE = "a.example.com"
JSON = ("content-type", "application/json")


def query(name: str, value: str) -> HttpMatch:
    return HttpMatch(query=(QueryMatch(name, ValueMatch(value)),))


def headers(*matches: HeaderMatch, path: str = "/") -> HttpMatch:
    return prefix(path, headers=matches)


MATCHES = {
    ONE: [
        exact("/r/abc"),
        exact("/esc/%7B%2f%C3"),
        prefix("/ws"),
        regex("/g[0-9]+(/x)?"),
        prefix("/put", method="PUT"),
        prefix("/grpc", grpc=True),
        headers(header("x", "1")),
        headers(header("x", "3,4")),
        headers(HeaderMatch("x", ValueMatch("2.*5", "regex"))),
        headers(header("accept", "p,q")),
        query("a", "b c"),
        query("a", "b%20c"),
        query("q", "1"),
        query("empty", ""),
        *[headers(header("x-model-id", name), path="/v1") for name in ("m1", "m2", "a b", "\u00e9")],
    ],
    "*.example.com": [prefix("/wild")],
    "redirected.example.com": [prefix("/")],
}


def marked(match: HttpMatch, domain: str) -> Rule:
    """A rule that tells the backend which one it is."""
    if domain.startswith("redirected"):
        return rule(Redirect(status=302, scheme="https"), match)
    one = rule(to("a"), match)
    return replace(one, request_headers=HeaderEdits(set=(("x-rule", str(one.key.rule)),)))


def served(port: int) -> Model:
    hosts = {domain: Host(domain, tuple(marked(match, domain) for match in found)) for domain, found in MATCHES.items()}
    listener = HttpListener(
        listener_key("http"), "*", {**hosts, "*": Host("*", ())}, inference=InferenceSettings(max_request_bytes=LIMIT)
    )
    return model(listener, backends={"a": port})


@dataclass(frozen=True)
class Sent:
    """A request as bytes of HTTP/1.1."""

    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    method: str = "GET"
    host: str = ONE

    def raw(self) -> bytes:
        length = [("content-length", str(len(self.body)))] if self.body or self.method != "GET" else []
        lines = [f"{self.method} {self.target} HTTP/1.1", f"host: {self.host}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *length)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Side:
    """The two that have to agree."""

    port: int
    model: Model

    async def envoy(self, sent: Sent) -> tuple[int, str | None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent.raw())
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
        # gRPC is told its errors with 200: UNIMPLEMENTED is a 404.
        status = 404 if b"grpc-status: 12" in head else int(head.split(b" ")[1])
        return status, json.loads(body)["headers"]["x-rule"] if status == 200 else None

    def explain(self, sent: Sent) -> tuple[int, str | None]:
        asked = Request.of(sent.method, f"http://127.0.0.1:80{sent.target}", [("Host", sent.host), *sent.headers], sent.body)
        told = explain(self.model, asked)
        forwarded = told.outcome.startswith("forwarded")
        return 200 if forwarded else int(told.outcome[:3]), told.rule if forwarded else None


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def side() -> AsyncIterator[Side]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        async with upstreams("a") as found:
            world = served(found["a"].port)
            async with proxy(Path(directory), world, bound(80, port, module_path=str(MODULE)), port):
                yield Side(port, world)


def post(body: bytes, *more: tuple[str, str], path: str = "/v1/chat", kind: tuple[tuple[str, str], ...] = (JSON,)) -> Sent:
    return Sent(path, (*kind, *more), body, "POST")


def named(model: bytes, more: bytes = b"") -> bytes:
    return b'{"model": "%s"%s}' % (model, more)


X_MODEL = "x-model-id"
HOSTS = ["A.example.com", f"{ONE}:81", f"{ONE}.", f"{ONE}.:81", "example.com", "other.org", f"{ONE},b"]
WILD_HOSTS = [ONE, "b.example.com", "b.c.example.com", "redirected.example.com", "127.0.0.1"]
PATHS = [
    "/x/../ws/y", "/%77s/y", "/r/ab%63", "/r/%61b%63", "//ws", "/ws//x", "/ws/..", "/ws/../", "/./ws", "/ws%2fx", "/r//abc",
    "/r/x/..;y/abc", "/r/%2e%2e/ws", "/r/%2e%2e;/ws", "/r\\abc", "/esc/{%2f%C3", "/esc/%7b%2f%c3", "/ws%00", "/ws/%00/../x",
    "/g12", "/g1/x", "/g1/x/", "/g1/./x", "/put", "/ws?x/../..", "/r/../../../ws",
]  # fmt: skip  # a table: one value a line would take a page
QUERIES = [
    "a=b%20c", "a=b+c", "a=b", "q=2&q=1", "q=1&q=2", "&&q=1", "q", "q=", "empty", "empty=", "%71=1", "q=1&a=b%20c",
]  # fmt: skip  # a table: one value a line would take a page
REPEATED = ["12", "21", "33", "34", ["3,4"], "25", ["2,5"], ["255"], ["1,2"]]
GRPC = ["application/grpc", "application/grpc+proto", "application/grpc;x=y", "application/grpc-web", "Application/grpc"]
MODELS = [["m2", "m1"], ["m1", "m2"], ["x", "m1"], ["", "m1"], ["m1,m2"], []]
AFTER_THE_MODEL = [
    b', "model": "m1"', b', "x": NaN', b', "x": Infinity', b', "x": 01', b', "x": 1.', b', "x": -1.5E+7', b', "x": .5',
    b', "x": "\\x"', b', "x": "\xff\n\\u12"', b', "\\x": 1', b', "\xff": 1', b",", b', "x": [1,]', b', "x": truE', b", x: 1",
    b', "x": [1 , "a\\q" ,null, [2,{"y": [3,4]}], 5]', b', "x": [1 2, 3]', b', "x": [1,, 2]', b', "x": [1,2}',
    b', "x": ["model", "m2"]',
    b', \x0b"x": 1', b', "x": "%s"' % (b"y" * LIMIT),
]  # fmt: skip  # a table: one value a line would take a page
NAMES = [
    b"m" * 2000, b"m" * 1025, b"\xff", b"m\x00", b"m\\n", b" m1", b"m1 ", b"", b"a b", b"\\u006d1", b"\\ud800",
    b"\\ud83d\\ude00", "\u00e9".encode(), b"\\u00e9", b"m\\/1", b"m\\x1", b"m\\u12",
]  # fmt: skip  # a table: one value a line would take a page
BODIES = [
    b"", b" ", b"{", b"[]", b"{}", b'"model"', b"null", named(b"m1") + b" \n", named(b"m1") + b"x",
    b"\xef\xbb\xbf" + named(b"m1"), b'{"model": 1}', b'{"model": {"model": "m1"}}', b'{"x": {"model": "m1"}}',
    b'{"x": [{"model": "m1"}], "model": "m2"}',
    b"{'model': 'm1'}", b'{"mod\\u0065l": "m1"}', b'{"model\\ud800": 1, "model": "m1"}',
    b'{"x": %s%s, "model": "m1"}' % (b"[" * 1023, b"]" * 1023), b'{"x": %s%s, "model": "m1"}' % (b"[" * 1024, b"]" * 1024),
]  # fmt: skip  # a table: one value a line would take a page
KINDS = [
    "", "text/plain", "application/x-www-form-urlencoded", "text/csv", "application/vnd.x+json; a=b", "application/grpc+json",
    "application/connect+json", "Application/JSON ; charset=utf-8", "application/jsonl",
]  # fmt: skip  # a table: one value a line would take a page
BODIES_WITHOUT_KIND = [b" \n" + named(b"m1"), b"\x0b" + named(b"m1"), b"[" + named(b"m1"), b"{", b"", b"  ", b" " * (LIMIT + 1)]
CODINGS = ["gzip", "identity", "", "Identity", "identity, gzip"]

CASES = [
    *[Sent("/ws", host=host) for host in HOSTS],
    *[Sent("/wild", host=host) for host in WILD_HOSTS],
    *[Sent(path) for path in PATHS],
    *[Sent(f"/?{one}") for one in QUERIES],
    *[Sent("/", tuple(("x", value) for value in values)) for values in REPEATED],
    *[Sent("/", tuple(("accept", value) for value in values)) for values in ("pq", "qp", ["p,q"], "p")],
    *[Sent("/grpc", (("content-type", kind),), method="POST") for kind in GRPC],
    # models in headers
    *[Sent("/v1", tuple((X_MODEL, name) for name in names)) for names in MODELS],
    post(named(b"m1"), (X_MODEL, "m2")),
    post(named(b"m1"), (X_MODEL, "")),
    post(named(b"m1"), (X_MODEL, ""), (X_MODEL, "m2")),
    post(b"x" * (LIMIT + 1), (X_MODEL, "m2")),
    # models in bodies
    *[Sent("/v1", (JSON,), named(b"m1"), method) for method in ("POST", "PUT", "PATCH", "GET")],
    Sent("/put", (JSON,), b"{", "PUT"),
    *[post(body) for body in BODIES],
    *[post(named(name)) for name in NAMES],
    *[post(named(b"m1", more)) for more in AFTER_THE_MODEL],
    *[post(named(b"m1"), kind=(("content-type", kind),)) for kind in KINDS],
    *[post(body, kind=()) for body in BODIES_WITHOUT_KIND],
    *[post(named(b"m1"), ("content-encoding", coding)) for coding in CODINGS],
    post(b"", ("content-encoding", "gzip")),
    post(named(b"m1"), JSON),
    # where the model does not matter
    post(b"{", path="/ws"),
    replace(post(b"{"), host="other.org"),
    replace(post(b"{", ("content-encoding", "br")), host="other.org"),
    replace(post(named(b"m1")), host="redirected.example.com"),
]


async def test_requests_that_have_been_told_wrong_once(side: Side) -> None:
    answers = [(sent, side.explain(sent), await side.envoy(sent)) for sent in CASES]
    assert [one for one in answers if one[1] != one[2]] == []


PIECES = [
    "/",
    "/",
    "ws",
    "r",
    "abc",
    "ab",
    ".",
    "..",
    "%2e",
    "%2E",
    ";",
    "\\",
    "%77",
    "%63",
    "%2f",
    "%7B",
    "%C3",
    "%",
    "{",
    "g1",
]
ASKED = ["a", "q", "empty", "=", "&", "1", "b", "%20", "+", "c", "/.."]
TOKENS = [b"{", b"}", b"[", b"]", b":", b",", b" ", b'"model":', b'"m1"', b'"x":', b"1", b"-0.5e1", b"null", b"NaN", b'"\\x"']
KEYS = [b'"model"', b'"mod\\u0065l"', b'"x"', b'"\\q"']
VALUES = [
    b'"m1"',
    b'"m2"',
    b"1",
    b"[]",
    b'{"model": 1}',
    b"nul",
    b'"\\u006d1"',
    b'"\\ud800"',
    b'"\\q"',
    b"-",
    b"1e5",
    b"[1, 2 ,3]",
    b"[1,]",
]
HEADERS = [
    JSON, ("content-type", "text/plain"), ("x", "1"), ("x", "2"), ("x", "5"), ("x", "3,4"), ("accept", "p"), ("accept", "q"),
    (X_MODEL, "m1"), (X_MODEL, "m2"), (X_MODEL, ""),
]  # fmt: skip  # a table: one value a line would take a page


def joined(pieces: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=8).map("".join)


pairs = st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map(b": ".join)
bodies = st.lists(st.sampled_from(TOKENS), max_size=8).map(b"".join) | st.lists(pairs, max_size=4).map(
    lambda found: b"{%s}" % b", ".join(found)
)
targets = st.builds("/{}{}".format, joined(PIECES), st.just("") | joined(ASKED).map("?{}".format))
requests = st.builds(
    Sent,
    target=targets | st.sampled_from(["/v1", "/ws", "/put"]),
    headers=st.lists(st.sampled_from(HEADERS), max_size=3).map(tuple),
    body=bodies,
    method=st.sampled_from(["GET", "POST", "POST", "PUT"]),
    host=st.sampled_from([ONE, ONE, "b.example.com", "other.org"]),
)


@settings(max_examples=300, deadline=None)
@given(sent=requests)
async def test_any_request(side: Side, sent: Sent) -> None:
    assert side.explain(sent) == await side.envoy(sent)
