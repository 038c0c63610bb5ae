"""Which listeners a route is on, and under which hosts."""

import pytest

from gwanmun.resolve.attach import intersection
from gwanmun.resolve.status import RouteStatus
from resolve.given import conditions, given, reasons, route, rules_of

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai}
spec:
  gatewayClassName: gwanmun
  listeners: %s
---
"""
RULES = "[{backendRefs: [{name: a, port: 8000}]}]"


def grpc(name: str, created: str, hostnames: str = "[]") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: ai, creationTimestamp: "{created}"}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: {hostnames}
  rules: [{{backendRefs: [{{name: a, port: 8000}}]}}]
---
"""


def http(name: str, created: str, hostnames: str = "[]") -> str:
    text = route(RULES, name, hostnames=hostnames)
    return text.replace("namespace: ai}", f'namespace: ai, creationTimestamp: "{created}"}}', 1)


@pytest.mark.parametrize(
    ("listener", "hostname", "both"),
    [
        ("*", "*", "*"),
        ("*", "a.example.com", "a.example.com"),
        ("*", "*.example.com", "*.example.com"),
        ("a.example.com", "*", "a.example.com"),
        ("a.example.com", "a.example.com", "a.example.com"),
        ("a.example.com", "*.example.com", "a.example.com"),
        ("a.b.example.com", "*.example.com", "a.b.example.com"),
        ("*.example.com", "a.b.example.com", "a.b.example.com"),
        ("*.example.com", "*.b.example.com", "*.b.example.com"),
        ("*.b.example.com", "*.example.com", "*.b.example.com"),
        ("*.example.com", "example.com", None),
        ("example.com", "*.example.com", None),
        ("*.example.com", "badexample.com", None),
        ("*.example.com", "*.example.net", None),
        ("a.example.com", "b.example.com", None),
    ],
)
def test_intersection(listener: str, hostname: str, both: str | None) -> None:
    assert intersection(listener, hostname) == both
    assert intersection(hostname, listener) == both


@pytest.mark.parametrize(
    ("listeners", "parent", "reason"),
    [
        ("[{name: http, port: 80, protocol: HTTP}]", "{name: gw}", "Accepted"),
        ("[{name: http, port: 80, protocol: HTTP}]", "{name: gw, sectionName: nope}", "NoMatchingParent"),
        ("[{name: http, port: 80, protocol: HTTP}]", "{name: gw, port: 81}", "NoMatchingParent"),
        ("[{name: http, port: 80, protocol: HTTP}]", "{name: gw, sectionName: http, port: 81}", "NoMatchingParent"),
        (
            "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]",
            "{name: gw}",
            "NotAllowedByListeners",
        ),
        (
            "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: "
            "{matchLabels: {team: b}}}}}]",
            "{name: gw}",
            "NotAllowedByListeners",
        ),
        (
            "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: "
            "{matchLabels: {kubernetes.io/metadata.name: ai}}}}}]",
            "{name: gw}",
            "Accepted",
        ),
        ("[{name: http, port: 80, protocol: HTTP, hostname: b.example.com}]", "{name: gw}", "NoMatchingListenerHostname"),
        ("[{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'}]", "{name: gw}", "Accepted"),
    ],
)
def test_why_a_parent_is_refused(listeners: str, parent: str, reason: str) -> None:
    text = GATEWAY % listeners + route(RULES, hostnames="[a.example.com]").replace("{name: gw}", parent)
    assert conditions(given(text), "HTTPRoute", "r")["Accepted"].reason == reason


def test_messages_name_what_is_there() -> None:
    text = route(RULES).replace("{name: gw}", "{name: gw, sectionName: https}")
    message = conditions(given(text), "HTTPRoute", "r")["Accepted"].message
    assert message == 'Gateway gw has no listener with sectionName "https"; it has http (port 80)'


def test_a_parent_that_is_not_ours_gets_no_entry() -> None:
    result = given(route(RULES).replace("{name: gw}", "{name: other}"))
    assert not any(key.kind == "HTTPRoute" for key in result.statuses)


def test_of_an_http_and_a_grpc_route_on_one_host_the_older_is_accepted() -> None:
    result = given(http("web", "2026-01-01T00:00:01Z") + grpc("rpc", "2026-01-01T00:00:00Z"))
    assert conditions(result, "GRPCRoute", "rpc")["Accepted"].status is True
    assert conditions(result, "HTTPRoute", "web")["Accepted"].status is False
    assert all(rule.match.grpc for rule in rules_of(result))


def test_a_conflict_tells_whether_age_or_name_decided() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    aged, twins = http("web", late) + grpc("rpc", early), http("web", early) + grpc("rpc", early)
    ageless = twins.replace(f', creationTimestamp: "{early}"', "")
    for manifests, why in ((aged, "is older"), (twins, "comes first by name"), (ageless, "comes first by name")):
        message = conditions(given(manifests), "HTTPRoute", "web")["Accepted"].message
        assert message.startswith(f"GRPCRoute ai/rpc {why} and has one of these hostnames on listener "), message


def test_a_wildcard_of_the_other_kind_is_in_the_way_as_well() -> None:
    result = given(
        http("web", "2026-01-01T00:00:00Z", "['*.example.com']") + grpc("rpc", "2026-01-01T00:00:01Z", "[a.b.example.com]")
    )
    assert reasons(conditions(result, "GRPCRoute", "rpc"))["Accepted"] == (False, "HostnameConflict")


def test_a_loser_is_in_nobodys_way() -> None:
    """`rpc` loses to `old`, so `new`, whose host only `rpc` had, is accepted."""
    result = given(
        http("old", "2026-01-01T00:00:00Z", "[a.example.com]")
        + grpc("rpc", "2026-01-01T00:00:01Z", "[a.example.com, b.example.com]")
        + http("new", "2026-01-01T00:00:02Z", "[b.example.com]")
    )
    assert conditions(result, "HTTPRoute", "new")["Accepted"].status is True
    assert conditions(result, "GRPCRoute", "rpc")["Accepted"].status is False


def test_kinds_on_different_hosts_live_together() -> None:
    result = given(
        http("web", "2026-01-01T00:00:00Z", "[a.example.com]") + grpc("rpc", "2026-01-01T00:00:01Z", "[b.example.com]")
    )
    assert conditions(result, "HTTPRoute", "web")["Accepted"].status is True
    assert conditions(result, "GRPCRoute", "rpc")["Accepted"].status is True


def test_the_same_parent_twice_counts_once() -> None:
    """The schema refuses it where it can see it, which is not where one of them spells out the route's own namespace."""
    parents = "[{name: gw, sectionName: http}, {name: gw, sectionName: http, namespace: ai}]"
    result = given(route(RULES).replace("[{name: gw}]", parents))
    (status,) = (status for key, status in result.statuses.items() if key.kind == "HTTPRoute")
    assert isinstance(status, RouteStatus)
    assert len(status.parents) == 1
