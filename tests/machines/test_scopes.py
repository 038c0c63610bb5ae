"""What each Gateway's proxies are given: their own, no more, and only what changed."""

from typing import Any

from gwanmun.api.decode import decode_object
from gwanmun.api.kinds import KINDS
from gwanmun.app.scopes import ScopeKey, Scopes, Update
from gwanmun.infra.podports import pod_ports
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of
from gwanmun.xds.options import Options
from gwanmun.xds.types import CLUSTER, ENDPOINTS, LISTENER

GATEWAYS = "gateway.networking.k8s.io"
A, B = NamespacedName("ai", "a"), NamespacedName("ai", "b")


def obj(group: str, kind: str, name: str, **fields: Any) -> Any:
    value = {
        "apiVersion": f"{group}/v1" if group else "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "ai", "generation": 1, **fields.pop("metadata", {})},
        **fields,
    }
    return decode_object(value, KINDS[group, kind])


def gateway(name: str) -> Any:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    return obj(GATEWAYS, "Gateway", name, spec={"gatewayClassName": "ours", "listeners": [listener]})


def route(name: str, parent: str, service: str, weight: int = 1) -> Any:
    rules = [{"backendRefs": [{"name": service, "port": 80, "weight": weight}]}]
    return obj(GATEWAYS, "HTTPRoute", name, spec={"parentRefs": [{"name": parent}], "rules": rules})


def service(name: str, address: str, **spec: Any) -> list[Any]:
    return [
        obj("", "Service", name, spec={"ports": [{"port": 80}], **spec}),
        obj(
            "discovery.k8s.io",
            "EndpointSlice",
            f"{name}-x",
            metadata={"labels": {"kubernetes.io/service-name": name}},
            addressType="IPv4",
            ports=[{"port": 8000}],
            endpoints=[{"addresses": [address], "zone": "east"}, {"addresses": ["10.9.9.9"], "zone": "west"}],
        ),
    ]


class World:
    """The pipe from manifests to scopes."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._resolver = Resolver(Settings(("ours.dev/c",)))
        self.scopes = Scopes(Options(), address="0.0.0.0", ports=lambda _: pod_ports([(80, "tcp")]))
        self.put(
            obj(GATEWAYS, "GatewayClass", "ours", spec={"controllerName": "ours.dev/c"}, metadata={"namespace": ""}),
            gateway("a"),
            gateway("b"),
            *service("one", "10.0.0.1"),
            *service("two", "10.0.0.2"),
            route("to-one", "a", "one"),
            route("to-two", "b", "two"),
        )

    def put(self, *objects: Any, gone: tuple[ObjectKey, ...] = ()) -> list[Update | ScopeKey]:
        changes = {key_of(one): one for one in objects} | dict.fromkeys(gone)
        self._snapshot, changed = self._snapshot.apply(changes)
        return list(self.scopes.feed(self._resolver.update(self._snapshot, changed)))


def opened(world: World, gateway: NamespacedName, zone: str = "") -> Update:
    update = world.scopes.open(ScopeKey(gateway, zone))
    assert update is not None
    return update


def test_a_scope_holds_its_own_gateway_and_what_that_needs() -> None:
    update = opened(World(), A)
    assert list(update.resources.of(CLUSTER)) == ["ai/one:80"]
    (listener,) = update.resources.of(LISTENER)
    assert listener.startswith("ai/a")


def test_nothing_is_translated_for_proxies_that_are_not_there() -> None:
    world = World()
    assert world.put(route("to-one", "a", "one", weight=2)) == []
    assert world.scopes.keys == ()


def test_a_change_of_one_gateway_is_no_change_of_another() -> None:
    world = World()
    opened(world, A)
    opened(world, B)
    steps = world.put(route("to-two", "b", "one"))
    assert [step.scope.gateway for step in steps if isinstance(step, Update)] == [B]
    assert list(steps[0].resources.of(CLUSTER)) == ["ai/one:80"]  # type: ignore[union-attr]  # an Update, see above


def test_a_backend_that_moves_reaches_those_who_use_it() -> None:
    world = World()
    opened(world, A)
    opened(world, B)
    (step,) = world.put(*service("two", "10.0.0.22"))
    assert isinstance(step, Update)
    assert step.scope.gateway == B
    assert dict(step.changes) == {ENDPOINTS: ("ai/two:80",)}


def test_zones_are_scopes_of_their_own() -> None:
    world = World()
    world.put(*service("one", "10.0.0.1", trafficDistribution="PreferSameZone"))
    east, west = opened(world, A, "east"), opened(world, A, "west")
    body = {update.scope.zone: update.resources.of(ENDPOINTS)["ai/one:80"].body for update in (east, west)}
    assert body["east"] != body["west"]
    assert east.resources.of(LISTENER) == west.resources.of(LISTENER)


def test_a_gateway_that_goes_ends_its_scopes() -> None:
    world = World()
    opened(world, A, "east")
    assert world.put(gone=(ObjectKey(GATEWAYS, "Gateway", "ai", "a"),)) == [ScopeKey(A, "east")]
    assert world.scopes.open(ScopeKey(A, "east")) is None


def test_ports_that_need_privileges_are_moved_and_never_collide() -> None:
    ports = pod_ports([(80, "tcp"), (443, "tcp"), (8080, "tcp"), (10080, "tcp"), (9090, "tcp"), (53, "udp"), (53, "tcp")])
    assert ports[80, "tcp"] == 20080, "10080 is a listener's own"
    assert ports[443, "tcp"] == 10443
    assert ports[8080, "tcp"] == 8080
    assert ports[9090, "tcp"] == 19090, "that is where the pod's metrics are"
    assert len({(pod, transport) for (_, transport), pod in ports.items()}) == len(ports)
