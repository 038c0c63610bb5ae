"""Why a request goes where it goes: what people are told, from the manifests that they wrote."""

import gzip
import json
import time
from collections.abc import Sequence

import pytest

from gateway_class import GATEWAY_CLASS
from gwanmun.api.load import load_text
from gwanmun.explain import Door, Explanation, Request, explain
from gwanmun.ir import Gateway, Host, HttpListener, HttpMatch, Model, Port, Respond, Rule, TlsTermination
from gwanmun.names import ListenerKey, MatchKey, NamespacedName, ObjectKey, RuleKey
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
GW, OTHER = NamespacedName("default", "gw"), NamespacedName("default", "other")
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


def model_of(manifests: str) -> Model:
    loaded = load_text(BASE + manifests, "a.yaml")
    assert not loaded.problems, loaded.problems
    snapshot, _ = Snapshot().apply({key_of(item.object): item.object for item in loaded.objects})
    return resolve(snapshot).model


def asked(
    manifests: str,
    url: str = "http://one.example.com/",
    method: str = "GET",
    body: bytes = b"",
    *,
    sent: Sequence[tuple[str, str]] = (),
    **headers: str,
) -> Explanation:
    """What is told of a request with the headers `sent` and others, of which underscores are hyphens."""
    all_sent = [*sent, *((name.replace("_", "-"), value) for name, value in headers.items())]
    return explain(model_of(manifests), Request.of(method, url, all_sent, body))


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
)
def test_why_a_rule_takes_a_request_or_not(match: str, says: str) -> None:
    assert why_not(match) == says


def test_values_of_headers_and_parameters_are_compared() -> None:
    assert why_not("headers: [{name: x-team, value: red}]", x_team="blue") == "wants header x-team = red, has blue"
    assert why_not("headers: [{name: x-team, type: RegularExpression, value: r.d}]", x_team="red") == ""
    query = "queryParams: [{name: q, value: '1'}]"
    assert why_not(query, "http://one.example.com/?q=1&q=2") == ""  # the first counts
    assert why_not(query, "http://one.example.com/?q=2&q=1") == "wants query parameter q = 1, has 2"
    assert why_not(query, "http://one.example.com/?q=") == "wants query parameter q = 1, has "


def test_of_a_repeated_header_any_value_counts() -> None:
    manifests = route(rule("headers: [{name: x-team, value: red}]"))
    for values, says in {
        ("red", "blue"): "",
        ("blue", "red"): "",
        ("blue", "green"): "wants header x-team = red, has blue and green",
    }.items():
        [verdict] = asked(manifests, sent=[("X-Team", value) for value in values]).verdicts
        assert verdict.why_not == says


def test_values_of_parameters_are_compared_as_they_stand_in_the_url() -> None:
    query = "queryParams: [{name: q, value: 'b c'}]"
    assert why_not(query, "http://one.example.com/?q=b%20c") == "wants query parameter q = b c, has b%20c"
    assert why_not(query.replace("b c", "b%20c"), "http://one.example.com/?q=b%20c") == ""


def test_the_path_is_normalized_as_the_gateway_does_it() -> None:
    told = asked(route(rule("path: {value: /v1/chat}")), "http://one.example.com/x/../%761/./chat?a=/../b")
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert told.facts == ("path /v1/chat, as the gateway normalizes /x/../%761/./chat",)
    assert asked(route(rule()), "http://one.example.com/%00").outcome == "400: the path /%00 is none that HTTP allows"


def test_the_header_host_counts_more_than_the_urls() -> None:
    told = asked(route(rule()), "http://127.0.0.1/", sent=[("Host", "One.example.com:8080")])
    assert (told.outcome, told.host) == ("forwarded by HTTPRoute default/r rule 0", "one.example.com")
    assert asked(route(rule()), sent=[("Host", "other.org")]).outcome.startswith("404: no route has the host other.org")


def test_with_tls_the_name_in_the_url_finds_the_listener_and_the_header_the_host() -> None:
    def listener(name: str, host: str, other: str) -> HttpListener:
        key = ListenerKey(ObjectKey("gateway.networking.k8s.io", "Gateway", *GW), name)
        return HttpListener(key, host, {host: Host(host, (serving,))}, TlsTermination(()), misdirected=(other,))

    serving = Rule(
        MatchKey(RuleKey(ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "default", "r"), 0), 0), HttpMatch(), Respond(202)
    )
    both = (listener("a", "a.example.com", "*.example.com"), listener("wild", "*.example.com", "a.example.com"))
    model = Model({GW: Gateway(GW, (Port(443, "tcp", both),))})

    def told(url: str, host: str) -> str:
        return explain(model, Request.of("GET", url, [("host", host)])).outcome[:4]

    assert told("https://a.example.com/", "a.example.com") == "202:"
    assert told("https://a.example.com/", "b.example.com") == "421:"
    assert told("https://b.example.com/", "a.example.com:443") == "421:"
    assert told("https://b.example.com/", "c.example.com") == "202:"
    assert told("https://127.0.0.1/", "a.example.com") == "no l"  # without a name nobody listens


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
            Request.of("GET", url, ())


@pytest.mark.parametrize(
    ("url", "port", "gateway"),
    [
        ("http://one.example.com:8080/", 80, None),
        ("http://one.example.com:9090/", 9090, None),
        ("http://one.example.com/", 80, None),
        ("http://127.0.0.1:8080/", 80, GW),
        ("http://127.0.0.2:8080/", 80, OTHER),
        ("http://127.0.0.2/", 80, OTHER),
        ("http://127.0.0.3:8080/", 80, None),
        ("http://127.0.0.3:8443/", 443, OTHER),
        ("http://[::1]:8443/", 443, None),
    ],
)
def test_a_place_on_this_machine_stands_for_a_gateway_and_its_port(url: str, port: int, gateway: NamespacedName | None) -> None:
    doors = [Door(GW, 80, "127.0.0.1", 8080), Door(OTHER, 80, "127.0.0.2", 8080), Door(OTHER, 443, "0.0.0.0", 8443)]
    request = Request.of("GET", url, ()).via(doors)
    assert (request.effective_port, request.gateway) == (port, gateway)


SECOND = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other}
spec: {gatewayClassName: gwanmun, listeners: [{name: any, port: 80, protocol: HTTP}]}
"""


def test_of_two_gateways_on_one_port_the_address_decides() -> None:
    manifests = SECOND + route(rule()) + route(rule(backends=B), name="s").replace("{name: gw}", "{name: other}")
    model = model_of(manifests)
    request = Request.of("GET", "http://127.0.0.2/", [("host", "one.example.com")])
    told = explain(model, request.via([Door(GW, 80, "127.0.0.1", 80), Door(OTHER, 80, "127.0.0.2", 80)]))
    assert (told.gateway, told.outcome, told.facts) == (OTHER, "forwarded by HTTPRoute default/s rule 0", ())
    told = explain(model, request)
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert told.facts == ("also listening for it: Gateway default/other#any of Gateway default/other",)


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


def test_of_several_models_the_first_counts() -> None:
    for models, taken in {("gpt-4", "other"): True, ("other", "gpt-4"): False, ("", "gpt-4"): False}.items():
        told = asked(MODELS, CHAT, sent=[("x-model-id", model) for model in models])
        assert told.outcome.startswith("forwarded" if taken else "404: "), models


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
        (b'{"model": 4}', "is not a string"),
        (b'{"model": ""}', "is empty"),
        (b'{"model": " gpt-4"}', "starts or ends with a space"),
        (b'{"model": "gpt\\n4"}', "contains a control character"),
        (b'{"model": "\xff"}', "is not valid Unicode"),
        (b'{"model": "\\ud83d"}', "is not valid Unicode"),
        (b'{"model": "%s"}' % (b"x" * 2000), "is longer than 1024 bytes"),
        (b'\xef\xbb\xbf{"model": "gpt-4"}', "not valid JSON"),
        (b'{"model": "gpt-4", "top_p": NaN}', "not valid JSON"),
        (b'{"model": "gpt-4\\x"}', "not valid JSON"),
        (b'{"model": "gpt-4"} {}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_body_without_a_usable_model(body: bytes, says: str) -> None:
    told = ask_model(body, content_type="application/json")
    assert told.outcome.startswith("400: ")
    assert says in told.outcome
    elsewhere = ask_model(body, "http://one.example.com/any", content_type="application/json")
    assert elsewhere.outcome == "forwarded by HTTPRoute default/r rule 1"  # which does not ask for a model


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "gpt-4", "prompt": "\\x \xff \n"}',  # nobody looks into that string
        b' {"mod\\u0065l" : "gp\\u0074-4", "x": [1.5e+3, -0, {"model": null}, [], {}]}\n',
        b'{"a": %s1%s, "model": "gpt-4"}' % (b"[" * 1023, b"]" * 1023),
    ],
)
def test_bodies_are_read_as_the_module_reads_them(body: bytes) -> None:
    assert ask_model(body).outcome == "forwarded by HTTPRoute default/r rule 0"


def test_a_body_of_millions_of_tokens_is_read_in_a_moment() -> None:
    began = time.process_time()
    told = ask_model(b'{"model": "gpt-4", "prompt": [%s]}' % b", ".join([b"1234"] * 1_000_000))
    assert told.outcome == "forwarded by HTTPRoute default/r rule 0"
    assert time.process_time() - began < 2


def test_only_bodies_of_posts_are_read() -> None:
    told = asked(MODELS, CHAT, "PUT", b'{"model": "gpt-4"}', content_type="application/json")
    assert told.outcome.startswith("404: ")
    assert told.facts == ("the body is not read: the model is taken from those of POST, not PUT",)


def test_bodies_of_other_kinds_are_not_looked_at() -> None:
    assert ask_model({"model": "gpt-4"}, content_type="text/csv").outcome.startswith("404: none of the 2 rules")
    assert "form's field" in ask_model(b"--x", content_type="multipart/form-data; boundary=x").facts[0]


def test_compressed_and_large_bodies() -> None:
    packed = gzip.compress(b'{"model": "gpt-4"}')
    assert ask_model(packed, content_type="application/json", content_encoding="gzip").outcome.startswith("415: ")
    large = json.dumps({"model": "gpt-4", "prompt": "x" * 33 * 1024 * 1024}).encode()
    assert ask_model(large).outcome == "413: the body has more than 33554432 bytes"
    assert ask_model(large, x_model_id="gpt-4").outcome.startswith("forwarded by ")
    assert not ask_model(large, content_type="text/csv").outcome.startswith("413: ")


def test_without_the_module_no_body_is_read() -> None:
    request = Request.of("POST", CHAT, (), b'{"model": "gpt-4"}')
    told = explain(model_of(MODELS), request, reads_bodies=False)
    assert told.outcome.startswith("404: none of the 2 rules")
    assert told.facts == ("bodies are not read, since the native module is missing",)
