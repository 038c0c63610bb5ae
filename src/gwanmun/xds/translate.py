"""ir.Model -> xDS resources. What has not changed since the last translation is taken over from it, by identity.

The translation before is only a cache: the result is the same without it. Deliberately absent: a single of Envoy's messages.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from typing import Final, NamedTuple

from gwanmun.ir import Backend, ConnectionSettings, Endpoints, Gateway, Model
from gwanmun.names import CertificateKey, ClusterKey
from gwanmun.xds import names
from gwanmun.xds.cluster import ClusterContext, cluster, needs_dns, weighted_cluster
from gwanmun.xds.difference import differing
from gwanmun.xds.endpoint import (
    Place,
    depends_on_node,
    load_assignment,
    near_node,
    serialize_assignment,
    weighted_assignment,
)
from gwanmun.xds.listener import DatagramShape, ListenerShape, listener, listener_needs
from gwanmun.xds.options import Binding, Options, PortKey
from gwanmun.xds.port import PortContext, PortPlan, plan_port, share_endpoints
from gwanmun.xds.secret import secret
from gwanmun.xds.table import Shards, Table, scopes
from gwanmun.xds.types import CLUSTER, ENDPOINTS, LISTENER, MESSAGES, ROUTES, SCOPED_ROUTES, SECRET, Need, Problem

_NOTHING: Final[Mapping[str, bytes]] = {}


@dataclass(frozen=True, slots=True)
class Translation:
    """What Envoy is to hold, by type URL and name: the serialized messages, and which others each of them names.

    `changed` are the names that were added, replaced or removed since the translation before. `problems` say what could not
    be expressed, with the key of the listener, rule or backend it is about.
    """

    resources: Mapping[str, Mapping[str, bytes]]
    needs: Mapping[str, Mapping[str, tuple[Need, ...]]]
    changed: Mapping[str, frozenset[str]] = field(compare=False)
    problems: tuple[Problem, ...]
    cache: "Cache" = field(repr=False, compare=False)


class Whereabouts(NamedTuple):
    """A backend and where it is."""

    backend: Backend
    endpoints: Endpoints | None


@dataclass(frozen=True, slots=True)
class Cache:
    """What the next translation is compared with. `by_node` are the backends that may be elsewhere for a node."""

    model: Model
    options: Options
    clusters: ClusterContext
    by_node: Mapping[ClusterKey, Whereabouts]
    certificates: frozenset[CertificateKey]
    plans: Mapping[PortKey, PortPlan]
    datagrams: Mapping[str, tuple[tuple[int, Endpoints | None], ...]]


def translate(model: Model, options: Options, previous: Translation | None = None) -> Translation:
    """Total: whatever cannot be expressed is left out and told in `problems`."""
    draft = _Draft(previous)
    before = previous.cache if previous is not None else None
    if before is None or before.model.certificates is not model.certificates:
        certificates = frozenset(model.certificates)
    else:
        certificates = before.certificates
    context = _cluster_context(model, options)
    by_node = _clusters(draft, model, context, before)
    _secrets(draft, model, before)
    plans = _plans(model, options, certificates, before)
    datagrams = {
        names.datagrams(key[0], key[1]): share_endpoints(plan, model.endpoints) for key, plan in plans.items() if plan.shares
    }
    _ports(draft, plans, before)
    _datagrams(draft, datagrams, context, before)
    cache = Cache(model, options, context, by_node, certificates, plans, datagrams)
    return draft.finish(_all_problems(plans), cache)


def translate_at(node: str, zone: Translation, previous: Translation | None = None) -> Translation:
    """What proxies on this node are given in place of what `zone`, the translation for their zone, has under the same names:
    where those backends are that have something on the node. All else is the same for the whole zone, and not in it.

    `previous` is that of the same node before.
    """
    whole = zone.cache
    context = replace(whole.clusters, place=replace(whole.clusters.place, node=node))
    draft = _Draft(previous)
    before = previous.cache if previous is not None else None
    old = before.by_node if before is not None and before.clusters == context else {}
    changed, _ = differing(whole.by_node, old)
    for key in changed:
        backend, endpoints = whole.by_node[key]
        _drop(draft, key)
        if near_node(endpoints, node):
            _whereabouts(draft, backend, endpoints, context)
    if before is not None:
        _, gone = differing(whole.by_node, before.by_node)
        for key in gone:
            _drop(draft, key)
    options = replace(whole.options, node=node)
    return draft.finish((), Cache(Model(), options, context, whole.by_node, frozenset(), {}, {}))


class _Draft:
    """The next set of resources, made by edits to the last one; a type that nothing changes keeps its mapping."""

    def __init__(self, previous: Translation | None) -> None:
        self._old = previous.resources if previous is not None else {}
        self._old_needs = previous.needs if previous is not None else {}
        self._new: dict[str, dict[str, bytes]] = {}
        self._needs: dict[str, dict[str, tuple[Need, ...]]] = {}
        self._touched: dict[str, set[str]] = {}

    def put(self, type_url: str, name: str, body: bytes, needs: tuple[Need, ...] = ()) -> None:
        known = self._new.get(type_url, self._old.get(type_url, _NOTHING))
        if known.get(name) == body:
            return
        bodies, named = self._open(type_url, name)
        bodies[name] = body
        if needs:
            named[name] = needs
        else:
            named.pop(name, None)

    def drop(self, type_url: str, name: str) -> None:
        bodies, named = self._open(type_url, name)
        bodies.pop(name, None)
        named.pop(name, None)

    def finish(self, problems: tuple[Problem, ...], cache: Cache) -> Translation:
        resources = {kind: self._new.get(kind, self._old.get(kind, _NOTHING)) for kind in MESSAGES}
        needs = {kind: self._needs.get(kind, self._old_needs.get(kind, {})) for kind in MESSAGES}
        changed = {kind: frozenset(self._changed(kind, touched)) for kind, touched in self._touched.items()}
        return Translation(resources, needs, {kind: found for kind, found in changed.items() if found}, problems, cache)

    def _changed(self, kind: str, touched: set[str]) -> Iterator[str]:
        old, new = self._old.get(kind, _NOTHING), self._new[kind]
        return (name for name in touched if old.get(name) != new.get(name))

    def _open(self, type_url: str, name: str) -> tuple[dict[str, bytes], dict[str, tuple[Need, ...]]]:
        if type_url not in self._new:
            self._new[type_url] = dict(self._old.get(type_url, _NOTHING))
            self._needs[type_url] = dict(self._old_needs.get(type_url, {}))
            self._touched[type_url] = set()
        self._touched[type_url].add(name)
        return self._new[type_url], self._needs[type_url]


# Clusters, endpoints, secrets


def _cluster_context(model: Model, options: Options) -> ClusterContext:
    """Clusters are shared by Gateways: where those disagree, the shortest time to connect counts."""
    timeouts = (gateway.connections.connect_timeout for gateway in model.gateways.values())
    timeout: timedelta = min(timeouts, default=ConnectionSettings().connect_timeout)
    return ClusterContext(timeout, options.system_trust, Place(options.zone, options.node))


def _clusters(draft: _Draft, model: Model, context: ClusterContext, before: Cache | None) -> Mapping[ClusterKey, Whereabouts]:
    """The answer are the backends whose endpoints depend on the proxy's node."""
    same = before is not None and before.clusters == context
    old = before.model if before is not None and same else Model()
    changed, _ = differing(model.backends, old.backends)
    moved, gone = differing(model.endpoints, old.endpoints)
    made = [key for key in dict.fromkeys(chain(changed, moved, gone)) if key in model.backends]
    for key in made:
        _backend(draft, model.backends[key], model.endpoints.get(key), context)
    removed: Iterable[ClusterKey] = ()
    if before is not None and before.model.backends is not model.backends:
        _, removed = differing(model.backends, before.model.backends)
        for key in removed:
            _drop(draft, key)
    found = {key: Whereabouts(model.backends[key], model.endpoints.get(key)) for key in made}
    return _by_node(before.by_node if before is not None else {}, found, removed)


def _by_node(
    known: Mapping[ClusterKey, Whereabouts], made: Mapping[ClusterKey, Whereabouts], removed: Iterable[ClusterKey]
) -> Mapping[ClusterKey, Whereabouts]:
    """`known` itself where nothing has changed in it."""
    found = {key: there for key, there in made.items() if depends_on_node(there.backend, there.endpoints)}
    over = {key for key in chain(made, removed) if key in known and key not in found}
    return {key: there for key, there in {**known, **found}.items() if key not in over} if found or over else known


def _backend(draft: _Draft, backend: Backend, endpoints: Endpoints | None, context: ClusterContext) -> None:
    if not needs_dns(endpoints):
        name = names.cluster(backend.key)
        draft.put(CLUSTER, name, cluster(backend, None, context), (Need(ENDPOINTS, name), *_presented(backend)))
    _whereabouts(draft, backend, endpoints, context)


def _whereabouts(draft: _Draft, backend: Backend, endpoints: Endpoints | None, context: ClusterContext) -> None:
    """The resource that says where a backend is."""
    name = names.cluster(backend.key)
    if needs_dns(endpoints):
        draft.put(CLUSTER, name, cluster(backend, endpoints, context), _presented(backend))
        draft.drop(ENDPOINTS, name)
    else:
        draft.put(ENDPOINTS, name, serialize_assignment(load_assignment(backend, endpoints, context.place)))


def _drop(draft: _Draft, key: ClusterKey) -> None:
    draft.drop(CLUSTER, names.cluster(key))
    draft.drop(ENDPOINTS, names.cluster(key))


def _presented(backend: Backend) -> tuple[Need, ...]:
    if backend.tls is None or backend.tls.client_certificate is None:
        return ()
    return (Need(SECRET, names.certificate(backend.tls.client_certificate)),)


def _secrets(draft: _Draft, model: Model, before: Cache | None) -> None:
    changed, removed = differing(model.certificates, before.model.certificates if before is not None else {})
    for key in changed:
        draft.put(SECRET, names.certificate(key), secret(model.certificates[key]))
    for key in removed:
        draft.drop(SECRET, names.certificate(key))


# Ports


def _plans(
    model: Model, options: Options, certificates: frozenset[CertificateKey], before: Cache | None
) -> Mapping[PortKey, PortPlan]:
    old = before.plans if before is not None else {}
    plans = {}
    for gateway in model.gateways.values():
        bound = _bound(gateway, options)
        for port in gateway.ports:
            key: PortKey = (gateway.key, port.number, port.transport)
            context = PortContext(
                gateway.key,
                bound,
                options.bindings.get(key, ()),
                gateway.connections,
                certificates,
                options.module_path,
                options.access_log,
                options.shard_threshold,
                options.shards,
            )
            plans[key] = plan_port(port, context, old.get(key))
    return plans


def _bound(gateway: Gateway, options: Options) -> tuple[tuple[int, tuple[Binding, ...]], ...]:
    found = ((port.number, options.bindings.get((gateway.key, port.number, "tcp"), ())) for port in gateway.ports)
    return tuple((number, bindings) for number, bindings in found if bindings)


def _ports(draft: _Draft, plans: Mapping[PortKey, PortPlan], before: Cache | None) -> None:
    old = before.plans if before is not None else {}
    for key, plan in plans.items():
        last = old.get(key)
        if last is not plan:
            _listeners(draft, plan, last)
            _tables(draft, plan, last)
    for key, last in old.items():
        if key not in plans:
            _listeners(draft, None, last)
            _tables(draft, None, last)


def _listeners(draft: _Draft, plan: PortPlan | None, last: PortPlan | None) -> None:
    shapes = _by_name(plan)
    old = _by_name(last)
    for name in old.keys() - shapes.keys():
        draft.drop(LISTENER, name)
    for name, shape in shapes.items():
        if old.get(name) != shape:
            draft.put(LISTENER, name, listener(shape), tuple(listener_needs(shape)))


def _by_name(plan: PortPlan | None) -> dict[str, ListenerShape | DatagramShape]:
    return {shape.name: shape for shape in plan.shapes} if plan is not None else {}


def _tables(draft: _Draft, plan: PortPlan | None, last: PortPlan | None) -> None:
    new: Mapping[str, Table | Shards] = plan.tables if plan is not None else {}
    old: Mapping[str, Table | Shards] = last.tables if last is not None else {}
    known = {one.name: one for built in old.values() for one in _flat(built)}
    scoped = {scope for built in old.values() for scope in _scope_names(built)}
    for built in new.values():
        for one in _flat(built):
            if known.pop(one.name, None) is not one:
                draft.put(ROUTES, one.name, one.body)
        if not scoped.issuperset(_scope_names(built)):
            assert isinstance(built, Shards)
            for scope, body in scopes(built):
                draft.put(SCOPED_ROUTES, scope, body, (Need(ROUTES, scope),))
        scoped.difference_update(_scope_names(built))
    for name in known:
        draft.drop(ROUTES, name)
    for scope in scoped:
        draft.drop(SCOPED_ROUTES, scope)


def _scope_names(built: Table | Shards) -> list[str]:
    return [one.name for one in built.tables] if isinstance(built, Shards) else []


def _flat(built: Table | Shards) -> tuple[Table, ...]:
    return built.tables if isinstance(built, Shards) else (built,)


def _datagrams(
    draft: _Draft,
    datagrams: Mapping[str, tuple[tuple[int, Endpoints | None], ...]],
    context: ClusterContext,
    before: Cache | None,
) -> None:
    old = before.datagrams if before is not None else {}
    for name in old.keys() - datagrams.keys():
        draft.drop(CLUSTER, name)
        draft.drop(ENDPOINTS, name)
    for name, shares in datagrams.items():
        assignment = weighted_assignment(name, shares)
        if any(needs_dns(endpoints) for _, endpoints in shares):
            draft.put(CLUSTER, name, weighted_cluster(name, assignment, context))
            draft.drop(ENDPOINTS, name)
        else:
            draft.put(CLUSTER, name, weighted_cluster(name, None, context), (Need(ENDPOINTS, name),))
            draft.put(ENDPOINTS, name, serialize_assignment(assignment))


def _all_problems(plans: Mapping[PortKey, PortPlan]) -> tuple[Problem, ...]:
    found = {problem for plan in plans.values() for problem in plan.problems}
    return tuple(sorted(found, key=lambda problem: (str(problem.subject), problem.message)))
