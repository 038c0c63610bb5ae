"""Why a request goes where it goes: what people are told, from the manifests that they wrote."""

import gzip
import json

import pytest

from gateway_class import GATEWAY_CLASS
from gwanmun.api.load import load_text
from gwanmun.explain import Explanation, Request, explain
from gwanmun.resolve.model import resolve
from gwanmun.resources import Snapshot, key_of

BASE = (
    GATEWAY_CLASS
    + """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwanmun
  listeners:
  - {name: any, port: 80, protocol: HTTP}
  - {name: wild, port: 80, protocol: HTTP, hostname: "*.example.com"}
  - {name: one, port: 80, protocol: HTTP, hostname: one.example.com}
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {name: a}
spec: {endpoints: [{address: 10.0.0.1, port: 8000}, {address: 10.0.0.2, port: 8000}]}
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {name: b}
spec: {endpoints: [{address: 10.0.0.3, port: 8000}]}
"""
)
A, B = (f"{{group: gwanmun.dev, kind: Backend, name: {name}}}" for name in "ab")


def route(*rules: str, name: str = "r", host: str = "one.example.com", section: str = "") -> str:
    parent = f"name: gw, sectionName: {section}" if section else "name: gw"
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{{parent}}}]
  hostnames: ["{host}"]
  rules: [{", ".join(rules)}]
"""


def asked(
    manifests: str, url: str = "http://one.example.com/", method: str = "GET", body: bytes = b"", **headers: str
) -> Explanation:
    """What is told of a request. Underscores of header names are hyphens."""
    loaded = load_text(BASE + manifests, "a.yaml")
    assert not loaded.problems, loaded.problems
    snapshot, _ = Snapshot().apply({key_of(item.object): item.object for item in loaded.objects})
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return explain(resolve(snapshot).model, Request.of(method, url, sent, body))


def rule(match: str = "", backends: str = A, more: str = "") -> str:
    return f"{{matches: [{{{match}}}], backendRefs: [{backends}]{more}}}"


def why_not(match: str, url: str = "http://one.example.com/v1", **more: str) -> str:
    """Why a rule with this match does not take a request; empty where it does."""
    [verdict] = asked(route(rule(match)), url, **more).verdicts  # type: ignore[arg-type]  # of `asked`
    return verdict.why_not


def test_the_whole_way_is_told() -> None:
    told = asked(
        route(rule("path: {value: /v1}", f"{{group: gwanmun.dev, kind: Backend, name: a, weight: 3}}, {B}")),
        "http://one.example.com/v1/x",
    )
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert (str(told.gateway), str(told.listener), told.host) == ("default/gw", "Gateway default/gw#one", "one.example.com")
    assert [(share.share, share.endpoints) for share in told.shares] == [
        (0.75, ("10.0.0.1:8000", "10.0.0.2:8000")),
        (0.25, ("10.0.0.3:8000",)),
    ]


@pytest.mark.parametrize(
    ("match", "says"),
    [
        ("path: {value: /v1}", ""),
        ("path: {value: /v1/}", ""),
        ("path: {value: /v}", "wants a path under /v, has /v1"),
        ("path: {type: Exact, value: /v1/}", "wants path /v1/, has /v1"),
        ("path: {type: RegularExpression, value: '/v[0-9]'}", ""),
        ("path: {type: RegularExpression, value: '/v'}", "wants a path matching /v, has /v1"),
        ("method: POST", "wants method POST, has GET"),
        ("headers: [{name: X-Team, value: red}]", "wants header x-team = red, which the request does not have"),
        ("queryParams: [{name: q, value: '1'}]", "wants query parameter q = 1, which the request does not have"),
    ],
)  # fmt: skip
def test_why_a_rule_takes_a_request_or_not(match: str, says: str) -> None:
    assert why_not(match) == says


def test_values_of_headers_and_parameters_are_compared() -> None:
    assert why_not("headers: [{name: x-team, value: red}]", x_team="blue") == "wants header x-team = red, has blue"
    assert why_not("headers: [{name: x-team, type: RegularExpression, value: r.d}]", x_team="red") == ""
    query = "queryParams: [{name: q, value: '1'}]"
    assert why_not(query, "http://one.example.com/?q=1&q=2") == ""  # the first counts
    assert why_not(query, "http://one.example.com/?q=2&q=1") == "wants query parameter q = 1, has 2"
    assert why_not(query, "http://one.example.com/?q=") == "wants query parameter q = 1, has "


def test_of_several_rules_that_match_the_specs_precedence_decides() -> None:
    told = asked(
        route(
            rule("path: {value: /}", more=", name: least"),
            rule("path: {value: /v1}", B, more=", name: longest"),
            rule("path: {value: /v1}, method: POST", B, more=", name: post"),
        ),
        "http://one.example.com/v1/chat",
    )
    assert [(verdict.name, verdict.why_not) for verdict in told.verdicts] == [
        ("post", "wants method POST, has GET"),
        ("longest", ""),
        ("least", "matches as well, but the rule taken comes first by precedence"),
    ]


@pytest.mark.parametrize(
    ("host", "listener"),
    [
        ("one.example.com", "one"),
        ("ONE.example.com", "one"),
        ("two.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("other.org", "any"),
    ],
)
def test_the_most_specific_listener_takes_a_host(host: str, listener: str) -> None:
    told = asked(route(rule(), host="*.example.com").replace('hostnames: ["*.example.com"]', ""), f"http://{host}/")
    assert str(told.listener) == f"Gateway default/gw#{listener}"
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"


def test_a_wildcard_of_a_route() -> None:
    manifests = route(rule(), host="*.example.com", section="wild")
    assert asked(manifests, "http://a.b.example.com/").host == "*.example.com"
    assert asked(manifests, "http://example.com/").outcome.startswith("404: no route has the host example.com")


def test_nobody_listens() -> None:
    told = asked("", "https://one.example.com/")
    assert told.outcome == (
        "no listener takes https://one.example.com:443; there are http://*.example.com:80, http://*:80, http://one.example.com:80"
    )


def test_a_url_that_is_none() -> None:
    for url in ("one.example.com", "ftp://x/", "http://", "http://x:port/"):
        with pytest.raises(ValueError):
            Request.of("GET", url, {})


def test_a_port_of_this_machine_stands_for_the_listeners_port() -> None:
    request = Request.of("GET", "http://one.example.com:8080/", {})
    assert request.effective_port == 8080
    assert request.via({8080: 80}).effective_port == 80
    assert request.via({9090: 80}).effective_port == 8080


def test_what_the_gateway_answers_itself() -> None:
    redirect = "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, scheme: https}}]}"
    assert asked(route(redirect)).outcome == "301: redirected by HTTPRoute default/r rule 0"
    assert asked(route(rule("", "{name: nobody, port: 80}"))).outcome.startswith("500: answered by HTTPRoute default/r rule 0")


def test_a_share_that_cannot_be_resolved_says_so() -> None:
    told = asked(route(rule("", f"{A}, {{name: nobody, port: 80}}")))
    assert sorted((share.share, share.note) for share in told.shares) == [
        (0.5, ""),
        (0.5, "cannot be resolved: this share answers 500"),
    ]


# The model in the body

MODELS = route(rule("headers: [{name: x-model-id, value: gpt-4}]"), rule("path: {value: /any}", B))
CHAT = "http://one.example.com/v1/chat/completions"


def ask_model(body: object, url: str = CHAT, **headers: str) -> Explanation:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asked(MODELS, url, "POST", raw, **headers)


def test_the_model_of_the_body_is_the_header() -> None:
    told = ask_model({"model": "gpt-4"})
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert told.facts == ("x-model-id: gpt-4 (read from the body)",)


def test_a_header_of_the_client_wins() -> None:
    told = ask_model({"model": "other"}, x_model_id="gpt-4")
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert told.facts == ("x-model-id: gpt-4 (sent by the client)",)


def test_a_model_that_no_rule_serves() -> None:
    assert (
        ask_model({"model": "other"}).outcome == "404: none of the 2 rules of host one.example.com matches with the model other"
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model": ', "not valid JSON"),
        (b'{"messages": [{"model": "gpt-4"}]}', 'no top-level "model"'),
        (b'["model", "gpt-4"]', 'no top-level "model"'),
        (b'{"model": "gpt-4", "model": "gpt-4"}', '"model" appears twice'),
        (b'{"model": 4}', "not a usable name"),
        (b'{"model": ""}', "not a usable name"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_body_without_a_usable_model(body: bytes, says: str) -> None:
    told = ask_model(body, content_type="application/json")
    assert told.outcome.startswith("400: ")
    assert says in told.outcome
    elsewhere = ask_model(body, "http://one.example.com/any", content_type="application/json")
    assert elsewhere.outcome == "forwarded by HTTPRoute default/r rule 1"  # which does not ask for a model


def test_bodies_of_other_kinds_are_not_looked_at() -> None:
    assert ask_model({"model": "gpt-4"}, content_type="text/csv").outcome.startswith("404: none of the 2 rules")
    assert "form's field" in ask_model(b"--x", content_type="multipart/form-data; boundary=x").facts[0]


def test_compressed_and_large_bodies() -> None:
    packed = gzip.compress(b'{"model": "gpt-4"}')
    assert ask_model(packed, content_type="application/json", content_encoding="gzip").outcome.startswith("415: ")
    large = json.dumps({"model": "gpt-4", "prompt": "x" * 33 * 1024 * 1024}).encode()
    assert ask_model(large).outcome == "413: the body has more than 33554432 bytes"


def test_without_the_module_no_body_is_read() -> None:
    loaded = load_text(BASE + MODELS, "a.yaml")
    snapshot, _ = Snapshot().apply({key_of(item.object): item.object for item in loaded.objects})
    request = Request.of("POST", CHAT, {}, b'{"model": "gpt-4"}')
    told = explain(resolve(snapshot).model, request, reads_bodies=False)
    assert told.outcome.startswith("404: none of the 2 rules")
    assert told.facts == ("bodies are not read, since the native module is missing",)
