"""What an edit does not concern stays the very same object, which is how the stages after resolve know what to redo."""

import msgspec

from gwanmun import ir
from gwanmun.api import HTTPRoute
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.model import Resolution, Resolver, resolve
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot
from resolve.given import BASE, GATEWAY_GROUP, objects, route

EDITED = ObjectKey(GATEWAY_GROUP, "HTTPRoute", "ai", "r1")


def http_listener(resolution: Resolution) -> ir.HttpListener:
    (listener,) = resolution.model.gateways[NamespacedName("ai", "gw")].ports[0].listeners
    assert isinstance(listener, ir.HttpListener)
    return listener


def test_a_weight_touches_its_own_host_and_nothing_else() -> None:
    rules = "[{backendRefs: [{name: a, port: 8000, weight: 9}, {name: b, port: 8000, weight: 1}]}]"
    text = "".join(route(rules, f"r{i}", hostnames=f"[h{i}.example.com]") for i in range(5))
    snapshot, changed = Snapshot().apply({**objects(BASE), **objects(text)})
    resolver = Resolver(Settings())
    before = resolver.update(snapshot, changed)

    snapshot, changed = snapshot.apply({EDITED: with_weight(snapshot, 5)})
    after = resolver.update(snapshot, changed)

    old, new = http_listener(before).hosts, http_listener(after).hosts
    assert [host for host in new if new[host] is not old[host]] == ["h1.example.com"]
    assert after.statuses is before.statuses
    assert after.model.backends == before.model.backends
    assert after.model.endpoints is before.model.endpoints
    assert after == resolve(snapshot)


def with_weight(snapshot: Snapshot, weight: int) -> HTTPRoute:
    edited = snapshot.objects[EDITED]
    assert isinstance(edited, HTTPRoute)
    rule = edited.spec.rules[0]
    refs = (msgspec.structs.replace(rule.backend_refs[0], weight=weight), *rule.backend_refs[1:])
    spec = msgspec.structs.replace(edited.spec, rules=(msgspec.structs.replace(rule, backend_refs=refs),))
    return msgspec.structs.replace(edited, spec=spec)
