"""Short words for resolved models, and for what Envoy makes of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gwanmun.ir import (
    Backend,
    Endpoint,
    Endpoints,
    ExactPath,
    Forward,
    Gateway,
    HeaderMatch,
    Host,
    HttpListener,
    HttpMatch,
    Listener,
    Model,
    Port,
    PrefixPath,
    RegexPath,
    Rule,
    ValueMatch,
    WeightedTarget,
)
from gwanmun.names import ClusterKey, ListenerKey, MatchKey, NamespacedName, ObjectKey, RuleKey
from gwanmun.xds import Binding, Options

GATEWAY = NamespacedName("infra", "gateway")
ROUTE_GROUP = "gateway.networking.k8s.io"


def cluster_key(name: str, protocol: str = "http1", port: int = 80) -> ClusterKey:
    return ClusterKey(ObjectKey("", "Service", "ai", name), port, protocol)


def to(*names: str | tuple[str | None, int], **more: Any) -> Forward:
    """Forward to backends, by name or with a weight; None is one that could not be resolved."""
    pairs = [(name, 1) if isinstance(name, str) else name for name in names]
    targets = tuple(WeightedTarget(None if name is None else cluster_key(name), weight) for name, weight in pairs)
    return Forward(targets, **more)


_serial = iter(range(1_000_000))


def rule(action: Any, match: HttpMatch | None = None, **more: Any) -> Rule:
    """A rule of a route of its own."""
    key = RuleKey(ObjectKey(ROUTE_GROUP, "HTTPRoute", "ai", f"r{next(_serial)}"), 0)
    return Rule(MatchKey(key, 0), match or HttpMatch(), action, **more)


def prefix(value: str, **more: Any) -> HttpMatch:
    return HttpMatch(PrefixPath(value), **more)


def exact(value: str, **more: Any) -> HttpMatch:
    return HttpMatch(ExactPath(value), **more)


def regex(value: str, **more: Any) -> HttpMatch:
    return HttpMatch(RegexPath(value), **more)


def header(name: str, value: str) -> HeaderMatch:
    return HeaderMatch(name, ValueMatch(value))


def listener_key(name: str) -> ListenerKey:
    return ListenerKey(ObjectKey(ROUTE_GROUP, "Gateway", *GATEWAY), name)


def http(rules: Iterable[Rule] = (), domain: str = "*", name: str = "http", **more: Any) -> HttpListener:
    """An HTTP listener with one host."""
    return HttpListener(listener_key(name), domain, {domain: Host(domain, tuple(rules))}, **more)


def model(
    *listeners: Listener, port: int = 80, transport: Any = "tcp", backends: dict[str, int] | None = None, **more: Any
) -> Model:
    """A Gateway with one port. `backends` are Services by name, with the port of the machine that each is at."""
    gateway = Gateway(GATEWAY, (Port(port, transport, listeners),))
    found = {cluster_key(name): number for name, number in (backends or {}).items()}
    return Model(
        {GATEWAY: gateway},
        {key: Backend(key, "http1") for key in found},
        {key: Endpoints(key, (Endpoint("127.0.0.1", number),)) for key, number in found.items()},
        **more,
    )


def with_backend(base: Model, backend: Backend, *endpoints: Endpoint) -> Model:
    """`base` and one more backend."""
    return replace(
        base,
        backends={**base.backends, backend.key: backend},
        endpoints={**base.endpoints, backend.key: Endpoints(backend.key, tuple(sorted(endpoints)))},
    )


def bound(port: int, at: int, *, advertised: int | None = None, transport: Any = "tcp", **more: Any) -> Options:
    """The Gateway's port, bound on loopback."""
    binding = Binding("127.0.0.1", at, port if advertised is None else advertised)
    return Options(bindings={(GATEWAY, port, transport): (binding,)}, **more)
