"""Rules: what of a mistake reaches beyond its rule, and what the proxy must never be handed."""

import pytest

from gwanmun import ir
from gwanmun.api.grpcroute import GRPCMethodMatch, GRPCRouteMatch
from gwanmun.resolve.grpcroute import grpc_match
from gwanmun.resolve.match import is_model_path
from gwanmun.resolve.regex import regex_problem
from resolve.given import actions, conditions, given, reasons, route, rules_of, service


@pytest.mark.parametrize(
    ("pattern", "sound"),
    [("a+", True), (r"\pN+", True), ("(?i)abc", True), ("(?=x)", False), (r"(a)\1", False), ("(", False), ("a{1001}", False)],
)
def test_expressions_are_judged_as_the_proxy_judges_them(pattern: str, sound: bool) -> None:
    assert (regex_problem(pattern) is None) is sound


def test_half_a_surrogate_pair_is_no_expression() -> None:
    assert regex_problem("\ud800") == "not Unicode text"


def test_a_method_name_is_no_expression() -> None:
    match = grpc_match(GRPCRouteMatch(GRPCMethodMatch(method="Get.All")), "m")
    assert isinstance(match, ir.HttpMatch)
    assert match.path == ir.RegexPath(r"/[^/]+/Get\.All")


@pytest.mark.parametrize(
    ("path", "is_model"),
    [
        (ir.ExactPath("/v1/chat/completions"), True),
        (ir.PrefixPath("/v1/audio/speech"), True),
        (ir.PrefixPath("/generate"), True),
        (ir.PrefixPath("/v1"), True),
        (ir.ExactPath("/v1"), False),
        (ir.PrefixPath("/v1/chatter"), False),
        (ir.PrefixPath("/generated"), False),
        (ir.PrefixPath("/"), False),
        (ir.RegexPath("/v1/chat/completions"), False),
    ],
)
def test_model_paths(path: ir.PathMatch, is_model: bool) -> None:
    assert is_model_path(path) is is_model


@pytest.mark.parametrize(
    ("rule", "reads"),
    [
        ("{matches: [{path: {value: /v1}}], backendRefs: [{name: a, port: 8000}]}", False),
        ("{backendRefs: [{group: gwanmun.dev, kind: Backend, name: engine}]}", False),
        ("{matches: [{headers: [{name: X-Model-ID, value: m}]}], backendRefs: [{name: a, port: 8000}]}", True),
    ],
)
def test_bodies_are_read_where_a_rule_looks_at_the_model(rule: str, reads: bool) -> None:
    backend = """
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {name: engine, namespace: ai}
spec: {engine: vllm, endpoints: [{address: 10.0.0.1, port: 8000}]}
"""
    result = given(route(f"[{rule}]") + backend)
    assert all(made.inference for made in rules_of(result))
    (gateway,) = result.model.gateways.values()
    (listener,) = gateway.ports[0].listeners
    assert isinstance(listener, ir.HttpListener)
    assert (listener.inference is not None) is reads


def test_one_bad_rule_leaves_the_others() -> None:
    result = given(
        route("[{matches: [{path: {type: RegularExpression, value: '/('}}]}, {backendRefs: [{name: a, port: 8000}]}]")
    )
    assert list(actions(rules_of(result))) == [ir.Forward((ir.WeightedTarget(service("a"), 1, label="ai/a:8000"),))]
    found = conditions(result, "HTTPRoute", "r")
    assert reasons(found) == {
        "Accepted": (True, "Accepted"),
        "PartiallyInvalid": (True, "UnsupportedValue"),
        "ResolvedRefs": (True, "ResolvedRefs"),
    }
    assert found["PartiallyInvalid"].message.startswith("Dropped Rule 0")


def test_a_route_with_bad_rules_only_is_not_accepted() -> None:
    result = given(route("[{matches: [{path: {type: RegularExpression, value: '/('}}]}]"))
    assert reasons(conditions(result, "HTTPRoute", "r")) == {
        "Accepted": (False, "UnsupportedValue"),
        "ResolvedRefs": (True, "ResolvedRefs"),
    }


def test_a_wrong_port_is_told_with_those_that_are_there() -> None:
    message = conditions(given(route("[{backendRefs: [{name: a, port: 8001}]}]")), "HTTPRoute", "r")["ResolvedRefs"].message
    assert message == "spec.rules[0].backendRefs[0]: Service ai/a has no port 8001; it has 8000 (http), 9000 (metrics)"


def test_the_host_may_be_set_as_a_header_of_requests_but_not_removed() -> None:
    def outcome(change: str) -> ir.Action:
        filters = f"[{{type: RequestHeaderModifier, requestHeaderModifier: {change}}}]"
        (rule,) = rules_of(given(route(f"[{{filters: {filters}, backendRefs: [{{name: a, port: 8000}}]}}]")))
        return rule.action

    assert isinstance(outcome("{set: [{name: Host, value: x.example.com}]}"), ir.Forward)
    assert isinstance(outcome("{remove: [Host]}"), ir.Respond)
