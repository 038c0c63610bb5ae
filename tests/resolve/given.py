"""Manifests as users write them -> what resolve makes of them. The one place here that touches resolve's interface."""

from collections.abc import Iterable, Iterator

from gateway_class import GATEWAY_CLASS
from gwanmun import ir
from gwanmun.api import Object
from gwanmun.api.load import load_text
from gwanmun.names import ClusterKey, ObjectKey
from gwanmun.resolve.model import Resolution, resolve
from gwanmun.resolve.status import Condition
from gwanmun.resources import Snapshot, key_of

GATEWAY_GROUP = "gateway.networking.k8s.io"

BASE = (
    GATEWAY_CLASS
    + """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: ai}
spec: {ports: [{name: http, port: 8000}, {name: metrics, port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: ai}
spec: {ports: [{name: http, port: 8000}]}
---
"""
)


def objects(text: str) -> dict[ObjectKey, Object]:
    """The objects of a manifest text; every one has to be sound."""
    loaded = load_text(text, "test.yaml")
    assert not loaded.problems, loaded.problems
    return {key_of(entry.object): entry.object for entry in loaded.objects}


def given(text: str) -> Resolution:
    """What follows from a Gateway `ai/gw`, Services `a` and `b`, and these manifests, which may replace those."""
    return resolve(Snapshot().apply({**objects(BASE), **objects(text)})[0])


def route(rules: str, name: str = "r", **more: str) -> str:
    """An HTTPRoute on ai/gw; `rules` is YAML in flow style, `more` further fields of the spec."""
    fields = "".join(f"  {field}: {value}\n" for field, value in more.items())
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: ai}}
spec:
  parentRefs: [{{name: gw}}]
{fields}  rules: {rules}
---
"""


def rules_of(resolution: Resolution, *, host: str = "*") -> tuple[ir.Rule, ...]:
    """The rules for a host on the only listener."""
    (gateway,) = resolution.model.gateways.values()
    (listener,) = gateway.ports[0].listeners
    assert isinstance(listener, ir.HttpListener)
    return listener.hosts[host].rules


def conditions(resolution: Resolution, kind: str, name: str, parent: int = 0) -> dict[str, Condition]:
    """The conditions of a route or policy of namespace ai under its first (or another) parent."""
    status = resolution.statuses[ObjectKey(GATEWAY_GROUP, kind, "ai", name)]
    entries = getattr(status, "parents", None) or getattr(status, "ancestors", ())
    return {condition.type: condition for condition in entries[parent].conditions}


def service(name: str, port: int = 8000, protocol: str = "http1") -> ClusterKey:
    return ClusterKey(ObjectKey("", "Service", "ai", name), port, protocol)


def reasons(found: dict[str, Condition]) -> dict[str, tuple[bool | None, str]]:
    """Conditions without their messages."""
    return {kind: (condition.status, condition.reason) for kind, condition in found.items()}


def actions(rules: Iterable[ir.Rule]) -> Iterator[ir.Action]:
    return (rule.action for rule in rules)
