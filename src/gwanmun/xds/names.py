"""The one place where keys become text. Different keys give different names, and nobody takes a name apart again.

Objects of Kubernetes have names of letters, digits, `-` and `.`; whatever else a part may hold is percent-encoded, so the
signs between the parts (`/ : | = #`) cannot come from a part.
"""

from typing import Final
from urllib.parse import quote, unquote

from gwanmun.names import CertificateKey, ClusterKey, ListenerKey, MatchKey, NamespacedName, ObjectKey, RuleKey

UNRESOLVED: Final = "unresolved"
"""A cluster that never exists (others have a `/` in their name): what is sent there fails."""

SHARD_HEADER: Final = "x-gwanmun-shard"
"""Set by the native module from the host: which shard of a route table to look in."""

TABLE_HEADER: Final = "x-gwanmun-table"
"""Set on arrival: which listener's route table to look in. Envoy has one set of scopes for all its listeners."""

METADATA: Final = "gwanmun"
"""Namespace of our metadata, both of routes and of requests."""


def cluster(key: ClusterKey) -> str:
    """`namespace/name:port`, with a suffix for what is not the usual: a Service spoken to over HTTP/1.1."""
    name = f"{_place(key.backend)}:{key.port}"
    if (key.backend.group, key.backend.kind) != ("", "Service"):
        name += f"|kind={_kind(key.backend)}"
    if key.protocol != "http1":
        name += f"|protocol={_safe(key.protocol)}"
    if key.identity is not None:
        name += f"|identity={_namespaced(key.identity)}"
    return name


def datagrams(gateway: NamespacedName, port: int) -> str:
    """The cluster of a UDP listener that has several weighted backends."""
    return f"{_namespaced(gateway)}:{port}|weighted"


def certificate(key: CertificateKey) -> str:
    return _namespaced(key.secret)


def listener(gateway: NamespacedName, port: int, transport: str, advertised: int) -> str:
    """An Envoy listener. `advertised` is part of it since addresses of one port may be seen at different ports."""
    name = f"{_namespaced(gateway)}:{port}"
    if transport != "tcp":
        name += f"|{_safe(transport)}"
    if advertised != port:
        name += f"|advertised={advertised}"
    return name


def route_table(envoy_listener: str, key: ListenerKey | None) -> str:
    """The routes of an Envoy listener; with TLS each listener of the Gateway (or of a ListenerSet) has its own."""
    if key is None:
        return envoy_listener
    owner = "" if key.owner.kind == "Gateway" else f"{_kind(key.owner)}/{_place(key.owner)}/"
    return f"{envoy_listener}|listener={owner}{_safe(key.name)}"


def shard(table: str, index: int) -> str:
    return f"{table}#{index}"


def rule(key: RuleKey) -> str:
    return f"{_kind(key.route)}/{_place(key.route)}/{key.rule}"


def match(key: MatchKey) -> str:
    """The name of a route in Envoy, which access logs show."""
    return f"{rule(key.rule)}/{key.match}"


def rule_in(match_name: str) -> str | None:
    """The rule that a name of ``match`` is of, as people are told of it; None where it is no such name."""
    parts = [unquote(part) for part in match_name.split("/")]
    if len(parts) != len(("kind", "namespace", "name", "rule", "match")):
        return None
    kind, namespace, name, number, _ = parts
    return f"{kind} {namespace}/{name} rule {number}"


def _kind(key: ObjectKey) -> str:
    if key.group == "gateway.networking.k8s.io":
        return _safe(key.kind)
    return f"{_safe(key.kind)}={_safe(key.group)}"  # `=`, since a kind might hold a dot


def _place(key: ObjectKey) -> str:
    return f"{_safe(key.namespace)}/{_safe(key.name)}"


def _namespaced(key: NamespacedName) -> str:
    return f"{_safe(key.namespace)}/{_safe(key.name)}"


def _safe(text: str) -> str:
    return quote(text, safe="")
