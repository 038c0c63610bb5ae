"""`Fleets`: which proxies each Gateway is to have, where it can be reached, and whose tokens are its proxies'.

Looks at Gateways that are ours, their parameters, and what there is of their Services; hands the objects to whoever applies
them. What the objects are is `infra.fleet`'s business.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gwanmun.api import EndpointSlice, Gateway, GatewayClass, GatewayClassConfig, ListenerSet, Node, Service
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.api.kinds import canonical_group
from gwanmun.api.listener import Listener
from gwanmun.infra.fleet import FleetOptions, fleet_objects
from gwanmun.infra.fleet.apply import Hindrance, Objects, Owner, Problem
from gwanmun.infra.fleet.certificates import Issuer, certificates_for
from gwanmun.infra.fleet.holders import PROXY_KINDS, account_of, clash, holders
from gwanmun.infra.fleet.naming import fleet_name
from gwanmun.infra.fleet.objects import OF_PARAMETERS, provisional
from gwanmun.infra.podports import PodPorts, pod_ports
from gwanmun.infra.ports import Transport
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.model import Resolution
from gwanmun.resolve.status import ListenerSetStatus
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP, IndexKey
from gwanmun.status.placement import Placement, placement

_OF_PROXIES: Final = frozenset(kind.kind for kind in PROXY_KINDS)


class ParametersKey(NamedTuple):
    """A GatewayClassConfig, by the group that it is asked for with."""

    group: str
    name: str


@dataclass(frozen=True, slots=True)
class GatewayFleet:
    """What is known of one Gateway's proxies. `name` is that of its Service and its service account. `certificates` are those
    of the Gateway and its ListenerSets; others may have a part in them. `missing` are parameters that it should have. `clash`
    says why it can have no proxies."""

    gateway: Gateway
    config: GatewayClassConfig | None
    missing: tuple[ParametersKey, ...]
    name: str
    ports: PodPorts
    where: Placement
    certificates: Objects
    clash: Problem | None

    @property
    def account(self) -> NamespacedName:
        return account_of(self.gateway)


class Fleets:
    """Owns what was worked out for each Gateway last. No socket: `objects` says what is to be applied.

    `unread` says why parameters that are not known may be there all the same. `issuer` is asked for the certificates of
    listeners; None leaves them to whoever makes the Secrets.
    """

    def __init__(
        self,
        options: Callable[[], FleetOptions],
        unread: Callable[[ParametersKey], Problem | None],
        issuer: Issuer | None = None,
    ) -> None:
        self._options = options
        self._unread = unread
        self._issuer = issuer
        self._fleets: dict[NamespacedName, GatewayFleet] = {}
        self._issued: tuple[Sequence[Gateway | ListenerSet], Objects] = ((), {})

    def update(
        self, snapshot: Snapshot, resolution: Resolution, made: Mapping[ObjectKey, frozenset[Owner]]
    ) -> tuple[set[NamespacedName], set[NamespacedName]]:
        """Look at everything again; `made` are the objects of fleets that there are, with their owners. The Gateways whose
        objects may have to be others now (those that are gone included), and those that are reached in another way."""
        nodes = _node_addresses(snapshot)
        listener_sets = _sets_let_in(snapshot, resolution)
        gateways: dict[NamespacedName, tuple[Gateway, tuple[ListenerSet, ...]]] = {}
        for key in snapshot.find(IndexKey("kind", (GATEWAY_GROUP, "Gateway"))):
            gateway = snapshot.get(key)
            if key in resolution.statuses and isinstance(gateway, Gateway):
                gateways[key.namespaced_name] = gateway, tuple(listener_sets.get(key.namespaced_name, ()))
        owners: list[Gateway | ListenerSet] = []
        for gateway, sets in gateways.values():
            owners += [gateway, *sets]
        certificates = self._certificates(owners)
        holding = holders((gateway for gateway, _ in gateways.values()), made)
        before, self._fleets = self._fleets, {}
        for name, (gateway, sets) in gateways.items():
            those = (_owner(gateway), *(_owner(one) for one in sets))
            theirs = {owner: certificates[owner] for owner in those if owner in certificates}
            problem = clash(gateway, holding[account_of(gateway)])
            self._fleets[name] = _fleet(snapshot, resolution, gateway, nodes=nodes, certificates=theirs, problem=problem)
        keys = before.keys() | self._fleets.keys()
        pairs = {key: (before.get(key), self._fleets.get(key)) for key in keys}
        changed = {key for key, (old, new) in pairs.items() if _wanted_of(old) != _wanted_of(new)}
        moved = {key for key, (old, new) in pairs.items() if (old and old.where) != (new and new.where)}
        return changed, moved

    def objects(self, gateway: NamespacedName) -> Objects | None:
        """Everything that the Gateway's proxies need; None where the Gateway is not ours (any more)."""
        fleet = self._fleets.get(gateway)
        if fleet is None:
            return None
        main = Owner("Gateway", *gateway)
        if fleet.clash is not None:
            return {**fleet.certificates, main: fleet.certificates.get(main, ())}
        objects = fleet_objects(fleet.gateway, fleet.config, fleet.ports, self._options())
        if self.hindrance(gateway) is not None:
            objects = provisional(objects)
        return {**fleet.certificates, main: (*objects, *fleet.certificates.get(main, ()))}

    def hindrance(self, gateway: NamespacedName) -> Hindrance | None:
        """Why the Gateway can have no proxies, or why it cannot be known just now what they are to be like, if so."""
        fleet = self._fleets.get(gateway)
        if fleet is None:
            return None
        if fleet.clash is not None:
            return Hindrance(fleet.clash, _OF_PROXIES)
        unread = self.cannot_read(fleet.missing)
        return Hindrance(unread, OF_PARAMETERS) if unread is not None else None

    def cannot_read(self, missing: Iterable[ParametersKey]) -> Problem | None:
        """Why parameters that are missing may be there all the same."""
        return next((problem for key in missing if (problem := self._unread(key)) is not None), None)

    def _certificates(self, owners: Sequence[Gateway | ListenerSet]) -> Objects:
        """The Certificates of all these, by owner: one that several share is with each of them."""
        if self._issuer is None:
            return {}
        known, issued = self._issued
        if len(known) == len(owners) and all(one is other for one, other in zip(known, owners, strict=True)):
            return issued
        found: dict[Owner, list[dict[str, Any]]] = {}
        for certificate in certificates_for(owners, self._issuer, instance=self._options().instance):
            metadata = certificate["metadata"]
            for reference in metadata["ownerReferences"]:
                owner = Owner(reference["kind"], metadata["namespace"], reference["name"])
                found.setdefault(owner, []).append(certificate)
        self._issued = owners, {owner: tuple(certificates) for owner, certificates in found.items()}
        return self._issued[1]

    def accounts(self) -> dict[NamespacedName, NamespacedName]:
        """Gateways by the service account that their proxies have."""
        return {fleet.account: key for key, fleet in self._fleets.items() if fleet.clash is None}

    def ports(self, gateway: NamespacedName) -> PodPorts:
        fleet = self._fleets.get(gateway)
        return fleet.ports if fleet is not None else {}

    def placement(self, gateway: NamespacedName) -> Placement:
        """Where the Gateway can be reached."""
        fleet = self._fleets.get(gateway)
        return fleet.where if fleet is not None else Placement()

    @property
    def gateways(self) -> tuple[NamespacedName, ...]:
        return tuple(self._fleets)


def _wanted_of(fleet: GatewayFleet | None) -> Any:
    if fleet is None:
        return None
    return fleet.gateway, fleet.config, fleet.missing, fleet.ports, fleet.certificates, fleet.clash


def _owner(of: Gateway | ListenerSet) -> Owner:
    return Owner(of.KIND, of.metadata.namespace, of.metadata.name)


def _sets_let_in(snapshot: Snapshot, resolution: Resolution) -> dict[NamespacedName, list[ListenerSet]]:
    """By Gateway, the ListenerSets that it lets in, also where no listener can serve for want of a certificate yet."""
    found: dict[NamespacedName, list[ListenerSet]] = {}
    for key in snapshot.find(IndexKey("kind", (GATEWAY_GROUP, "ListenerSet"))):
        status = resolution.statuses.get(key)
        if isinstance(status, ListenerSetStatus) and any(
            one.type == "Accepted" and one.reason in ("Accepted", "ListenersNotValid") for one in status.conditions
        ):
            listener_set = snapshot.get(key)
            if isinstance(listener_set, ListenerSet):
                parent = listener_set.spec.parent_ref
                found.setdefault(NamespacedName(parent.namespace or key.namespace, parent.name), []).append(listener_set)
    return found


def _fleet(
    snapshot: Snapshot,
    resolution: Resolution,
    gateway: Gateway,
    *,
    nodes: tuple[str, ...],
    certificates: Objects,
    problem: Problem | None,
) -> GatewayFleet:
    key = NamespacedName(gateway.metadata.namespace, gateway.metadata.name)
    name = fleet_name(gateway)
    service = snapshot.get(ObjectKey("", "Service", key.namespace, name))
    where = placement(
        gateway,
        service if isinstance(service, Service) else None,
        ready=_ready(snapshot, NamespacedName(key.namespace, name)),
        nodes=nodes,
    )
    ports = pod_ports(_declared(snapshot, resolution, gateway))
    config, missing = _config(snapshot, gateway)
    if problem is not None:
        where = Placement(problem=("Invalid", problem.message))  # the Service of that name is another Gateway's
    return GatewayFleet(gateway, config, missing, name, ports, where, certificates, problem)


def _declared(snapshot: Snapshot, resolution: Resolution, gateway: Gateway) -> set[tuple[int, Transport]]:
    """Ports of the Gateway's own listeners, whether they can serve just now or not, and of the ListenerSets' that can."""
    model = resolution.model.gateways.get(NamespacedName(gateway.metadata.namespace, gateway.metadata.name))
    served: set[tuple[int, Transport]] = {(port.number, port.transport) for port in model.ports} if model else set()
    return served | {(listener.port, _transport(listener)) for listener in gateway.spec.listeners}


def _transport(listener: Listener) -> Transport:
    return "udp" if listener.protocol == "UDP" else "tcp"


def _config(snapshot: Snapshot, gateway: Gateway) -> tuple[GatewayClassConfig | None, tuple[ParametersKey, ...]]:
    """The Gateway's own parameters, else its class's; and those that come before them and are not to be found."""
    own, missing = own_parameters(snapshot, gateway)
    if own is not None:
        return own, ()
    gateway_class = snapshot.get(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", gateway.spec.gateway_class_name))
    if not isinstance(gateway_class, GatewayClass):
        return None, missing
    of_class, also = class_parameters(snapshot, gateway_class)
    return of_class, missing + also


def own_parameters(snapshot: Snapshot, gateway: Gateway) -> tuple[GatewayClassConfig | None, tuple[ParametersKey, ...]]:
    """What the Gateway itself names, and whether it is missing."""
    ref = gateway.spec.infrastructure.parameters_ref if gateway.spec.infrastructure else None
    return (None, ()) if ref is None else _parameters(snapshot, ref.group, ref.kind, ref.name)


def class_parameters(snapshot: Snapshot, of: GatewayClass) -> tuple[GatewayClassConfig | None, tuple[ParametersKey, ...]]:
    """What the class names, and whether it is missing."""
    ref = of.spec.parameters_ref
    return (None, ()) if ref is None else _parameters(snapshot, ref.group, ref.kind, ref.name)


def _parameters(
    snapshot: Snapshot, group: str, kind: str, name: str
) -> tuple[GatewayClassConfig | None, tuple[ParametersKey, ...]]:
    if (canonical_group(group), kind) != (GWANMUN_GROUP, "GatewayClassConfig"):
        return None, ()
    config = snapshot.get(ObjectKey(GWANMUN_GROUP, "GatewayClassConfig", "", name))
    return (config, ()) if isinstance(config, GatewayClassConfig) else (None, (ParametersKey(group, name),))


def _ready(snapshot: Snapshot, service: NamespacedName) -> int:
    """How many proxies the Service leads to."""
    slices = (snapshot.get(key) for key in snapshot.find(IndexKey("service", tuple(service))))
    endpoints = [one for found in slices if isinstance(found, EndpointSlice) for one in found.endpoints or ()]
    return sum(1 for one in endpoints if one.conditions.ready is not False)


def _node_addresses(snapshot: Snapshot) -> tuple[str, ...]:
    """What a NodePort Service can be reached at: external addresses where nodes have any."""
    nodes = [snapshot.get(key) for key in snapshot.find(IndexKey("kind", ("", "Node")))]
    for wanted in ("ExternalIP", "InternalIP"):
        found = [
            address.address
            for node in nodes
            if isinstance(node, Node)
            for address in node.status.addresses
            if address.type == wanted
        ]
        if found:
            return tuple(sorted(found))
    return ()
