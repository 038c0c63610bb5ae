"""What each Gateway's proxies are given: their own, no more, and only what changed."""

from typing import Any

from gwanmun.api.decode import decode_object
from gwanmun.api.kinds import KINDS
from gwanmun.app.scopes import ScopeKey, Scopes, Update
from gwanmun.infra.podports import pod_ports
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.protos import pb
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of
from gwanmun.xds.options import Options
from gwanmun.xds.types import CLUSTER, ENDPOINTS, LISTENER
from gwanmun.xds_server.resources import ResourceSet

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
        slice_of(name, {"addresses": [address], "zone": "east"}, {"addresses": ["10.9.9.9"], "zone": "west"}),
    ]


def slice_of(name: str, *endpoints: dict[str, Any]) -> Any:
    return obj(
        "discovery.k8s.io",
        "EndpointSlice",
        f"{name}-x",
        metadata={"labels": {"kubernetes.io/service-name": name}},
        addressType="IPv4",
        ports=[{"port": 8000}],
        endpoints=list(endpoints),
    )


class World:
    """The pipe from manifests to scopes."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._resolver = Resolver(Settings(("ours.dev/c",)))
        self.held: dict[ScopeKey, ResourceSet] = {}
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
        steps = list(self.scopes.feed(self._resolver.update(self._snapshot, changed)))
        for step in steps:
            if isinstance(step, Update):
                real = step.resources.changes_since(self.held[step.scope])
                assert {url: set(names) for url, names in step.changes.items()} == {url: set(real[url]) for url in real}
                self.held[step.scope] = step.resources
        return steps


def opened(world: World, gateway: NamespacedName, zone: str = "", node: str = "") -> Update:
    update = world.scopes.open(ScopeKey(gateway, zone, node))
    assert update is not None
    world.held[update.scope] = update.resources
    return update


def scopes_of(steps: list[Update | ScopeKey]) -> list[str]:
    return [step.scope.node for step in steps if isinstance(step, Update)]


def pods(name: str, *pods: tuple[str, str], **hints: Any) -> Any:
    """The slice of a Service with (address, node) of each of its pods, all in the zone east."""
    places = ({"addresses": [address], "zone": "east", "nodeName": node, **hints} for address, node in pods)
    return slice_of(name, *places)


def nearest(resources: ResourceSet, name: str = "ai/one:80") -> set[str]:
    """The endpoints with most weight in the first priority."""
    assignment = pb("envoy.config.endpoint.v3.ClusterLoadAssignment").FromString(resources.of(ENDPOINTS)[name].body)
    weights = {
        one.endpoint.address.socket_address.address: one.load_balancing_weight.value or 1
        for locality in assignment.endpoints
        if locality.priority == 0
        for one in locality.lb_endpoints
    }
    return {address for address, weight in weights.items() if weight == max(weights.values())}


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


def test_nodes_share_the_set_of_their_zone_while_nobody_prefers_them() -> None:
    world = World()
    one, other = opened(world, A, "east", "n1"), opened(world, A, "east", "n2")
    assert one.resources is other.resources
    steps = world.put(*service("one", "10.0.0.11", trafficDistribution="PreferSameZone"))
    assert scopes_of(steps) == ["n1", "n2"]
    assert world.held[one.scope] is world.held[other.scope]


def test_who_prefers_nodes_is_another_thing_on_each_and_all_else_is_not() -> None:
    world = World()
    here = opened(world, A, "east", "n1").scope
    there, unknown = opened(world, A, "east", "n2").scope, opened(world, A, "east").scope
    nowhere = opened(world, A, "west", "n3").scope
    preferring = service("one", "10.0.0.1", trafficDistribution="PreferSameNode")[0]
    world.put(preferring, pods("one", ("10.0.0.1", "n1"), ("10.0.0.2", "n2"), ("10.0.0.3", "n4")))
    assert nearest(world.held[here]) == {"10.0.0.1"}
    assert nearest(world.held[there]) == {"10.0.0.2"}
    for scope in (unknown, nowhere):
        assert nearest(world.held[scope]) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert nearest(opened(world, A, "east", "n4").resources) == {"10.0.0.3"}
    for url in (CLUSTER, LISTENER):
        assert world.held[here].of(url) is world.held[there].of(url) is world.held[unknown].of(url)


def test_a_pod_that_moves_is_a_change_of_those_nodes_only() -> None:
    world = World()
    for node in ("n1", "n2", "n3", ""):
        opened(world, A, "east", node)
    preferring = service("one", "10.0.0.1", trafficDistribution="PreferSameNode")[0]
    world.put(preferring, pods("one", ("10.0.0.1", "n1"), ("10.0.0.2", "n9")))
    steps = world.put(pods("one", ("10.0.0.1", "n2"), ("10.0.0.2", "n9")))
    assert scopes_of(steps) == ["n1", "n2"]
    steps = world.put(route("to-one", "a", "one", weight=2), route("more", "a", "two"))
    assert sorted(scopes_of(steps)) == ["", "n1", "n2", "n3"]
    assert nearest(world.held[ScopeKey(A, "east", "n2")]) == {"10.0.0.1"}


def test_the_last_who_preferred_nodes_leaves_one_set_for_all() -> None:
    world = World()
    here, there = opened(world, A, "east", "n1").scope, opened(world, A, "east", "n2").scope
    slices = pods("one", ("10.0.0.1", "n1"), ("10.0.0.2", "n2"))
    world.put(service("one", "10.0.0.1", trafficDistribution="PreferSameNode")[0], slices)
    assert world.held[here] is not world.held[there]
    steps = world.put(service("one", "10.0.0.1", trafficDistribution="PreferSameZone")[0])
    assert scopes_of(steps) == ["n1", "n2"]
    assert world.held[here] is world.held[there]
    world.put(service("one", "10.0.0.1", trafficDistribution="PreferSameNode")[0])
    world.put(route("to-one", "a", "two"))
    assert world.held[here] is world.held[there], "the Service is there, but nothing leads to it"
    assert list(world.held[here].of(ENDPOINTS)) == ["ai/two:80"]


def test_hints_for_nodes_are_followed() -> None:
    world = World()
    here, there = opened(world, A, "east", "n1").scope, opened(world, A, "east", "n2").scope
    hints = {"hints": {"forZones": [{"name": "east"}], "forNodes": [{"name": "n1"}]}}
    hinted = pods("one", ("10.0.0.1", "n1"), **hints)
    other = {**hints, "hints": {"forZones": [{"name": "east"}], "forNodes": [{"name": "n2"}]}}
    more = obj(
        "discovery.k8s.io",
        "EndpointSlice",
        "one-y",
        metadata={"labels": {"kubernetes.io/service-name": "one"}},
        addressType="IPv4",
        ports=[{"port": 8000}],
        endpoints=[{"addresses": ["10.0.0.2"], "zone": "east", **other}],
    )
    world.put(hinted, more)
    assert (nearest(world.held[here]), nearest(world.held[there])) == ({"10.0.0.1"}, {"10.0.0.2"})


def test_a_scope_without_proxies_is_closed_and_can_be_opened_again() -> None:
    world = World()
    scope = opened(world, A, "east", "n1").scope
    world.scopes.close(scope)
    assert world.put(*service("one", "10.0.0.111")) == []
    assert nearest(opened(world, A, "east", "n1").resources) == {"10.0.0.111", "10.9.9.9"}


def test_scopes_have_names_of_their_own() -> None:
    keys = [ScopeKey(A, zone, node) for zone in ("", "z") for node in ("", "n")]
    assert [str(key) for key in keys] == ["ai/a", "ai/a@/n", "ai/a@z", "ai/a@z/n"]


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
