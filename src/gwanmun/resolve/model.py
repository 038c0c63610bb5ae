"""The whole: the model of everything that is served, and a status for every object that is ours.

Only what some Gateway needs is in the model. `Resolver` keeps the graph between snapshots, so that a change costs what it
touches; `resolve` starts from nothing and gives the same.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from gwanmun import ir
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.memo import Graph, Query
from gwanmun.names import CertificateKey, ClusterKey, NamespacedName, ObjectKey
from gwanmun.resolve.attach import ROUTE_TYPES
from gwanmun.resolve.backend import backend, backend_status
from gwanmun.resolve.endpoint import endpoints
from gwanmun.resolve.gateway import place_needs, resolve_gateway, served_gateways, served_places, verdict_at
from gwanmun.resolve.gatewayclass import config_status, gatewayclass_status
from gwanmun.resolve.gatewaystatus import gateway_status, listenerset_status
from gwanmun.resolve.policy import policy_status
from gwanmun.resolve.pool import POOL_KIND, pool_status
from gwanmun.resolve.routestatus import route_status
from gwanmun.resolve.status import Status, Statuses
from gwanmun.resolve.tls import certificate
from gwanmun.resolve.world import Settings, World, find
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP


@dataclass(frozen=True, slots=True)
class Reach:
    """What one Gateway needs of the model."""

    backends: frozenset[ClusterKey]
    certificates: frozenset[CertificateKey]


@dataclass(frozen=True, slots=True)
class Resolution:
    """`statuses` has an entry for every object that is ours or speaks to one that is, and for no other.

    `reach` says what each Gateway of the model needs: its proxies are to be given that and no more.
    """

    model: ir.Model
    statuses: Statuses
    reach: Mapping[NamespacedName, Reach] = field(default_factory=dict)


def resolve(snapshot: Snapshot, settings: Settings = Settings()) -> Resolution:  # noqa: B008  # a frozen value
    """Everything that follows from a snapshot."""
    return Graph(World(snapshot, settings).source).get(resolution)


class Resolver:
    """Resolves one snapshot after another. Values that did not change are the same objects as before."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._graph = Graph(World(Snapshot(), settings).source)

    def update(self, snapshot: Snapshot, changed: Iterable[Hashable]) -> Resolution:
        """What follows from this snapshot; `changed` are the keys that `Snapshot.apply` gave since the last one."""
        self._graph.source = World(snapshot, self._settings).source
        self._graph.change(changed)
        result = self._graph.get(resolution)
        self._graph.sweep()
        return result


def resolution(q: Query) -> Resolution:
    """The root of the graph."""
    return Resolution(q.get(model), q.get(statuses), q.collect(reach, served_gateways))


def model(q: Query) -> ir.Model:
    """What is served, with everything that it needs."""
    found = q.collect(backend, needed_backends)
    backends = {key: value for key, value in found.items() if value is not None}
    certificates = q.collect(certificate, needed_certificates)
    return ir.Model(
        gateways=q.collect(resolve_gateway, served_gateways),
        backends=backends,
        endpoints=q.collect(endpoints, needed_backends),
        certificates={key: value for key, value in certificates.items() if isinstance(value, ir.Certificate)},
    )


def needed_backends(q: Query) -> tuple[ClusterKey, ...]:
    """The backends that routes on listeners that can serve send to, sorted."""
    targets = frozenset[ClusterKey]().union(*(q.get(targets_of, gateway) for gateway in q.get(served_gateways)))
    return tuple(sorted(targets, key=_order))


def targets_of(q: Query, gateway: NamespacedName) -> frozenset[ClusterKey]:
    """The backends that routes on a Gateway's listeners send to."""
    return frozenset[ClusterKey]().union(*(q.get(place_needs, place).targets for place in q.get(served_places, gateway)))


def reach(q: Query, gateway: NamespacedName) -> Reach:
    """The backends that a Gateway sends to, the certificates of its listeners, and those it shows to these backends."""
    targets = q.get(targets_of, gateway)
    shown = frozenset(certificate for target, certificate in q.get(shown_certificates).items() if target in targets)
    return Reach(targets, q.get(listener_certificates, gateway) | shown)


def shown_certificates(q: Query) -> Mapping[ClusterKey, CertificateKey]:
    """The certificates that are presented to backends, which few ask for."""
    found = q.collect(client_certificate_of, needed_backends)
    return {target: certificate for target, certificate in found.items() if certificate is not None}


def _order(key: ClusterKey) -> tuple[object, ...]:
    return key.backend, key.port, key.protocol, key.identity or ()


def needed_certificates(q: Query) -> tuple[CertificateKey, ...]:
    """The certificates that listeners and clients of backends present, sorted."""
    of_listeners = {key for keys in q.collect(listener_certificates, served_gateways).values() for key in keys}
    return tuple(sorted(of_listeners.union(q.get(shown_certificates).values())))


def listener_certificates(q: Query, gateway: NamespacedName) -> frozenset[CertificateKey]:
    """The certificates that a Gateway's listeners present."""
    verdicts_by_place = (q.get(verdict_at, place) for place in q.get(served_places, gateway))
    return frozenset(
        key
        for verdict in verdicts_by_place
        if verdict is not None and verdict.tls is not None
        for key in verdict.tls.certificates
    )


def client_certificate_of(q: Query, key: ClusterKey) -> CertificateKey | None:
    """The certificate that is presented to a backend."""
    found = q.get(backend, key)
    return found.tls.client_certificate if found is not None and found.tls is not None else None


STATUS_OF: Mapping[tuple[str, str], Callable[[Query, ObjectKey], Status | None]] = {
    (GATEWAY_GROUP, "GatewayClass"): gatewayclass_status,
    (GATEWAY_GROUP, "Gateway"): gateway_status,
    (GATEWAY_GROUP, "ListenerSet"): listenerset_status,
    **{(GATEWAY_GROUP, kind): route_status for kind in ROUTE_TYPES},
    (GATEWAY_GROUP, "BackendTLSPolicy"): policy_status,
    POOL_KIND: pool_status,
    (GWANMUN_GROUP, "Backend"): backend_status,
    (GWANMUN_GROUP, "GatewayClassConfig"): config_status,
}
"""Who speaks for which kind."""


def statuses(q: Query) -> Statuses:
    """The status of every object that has one."""
    return {
        key: status
        for (group, kind), status_of in STATUS_OF.items()
        for key, status in q.collect(status_of, objects, group, kind).items()
        if status is not None
    }


def objects(q: Query, group: str, kind: str) -> tuple[ObjectKey, ...]:
    """All objects of a kind, sorted."""
    return find(q, "kind", (group, kind))
