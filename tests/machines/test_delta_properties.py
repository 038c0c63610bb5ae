"""Whatever happens in whatever order, a client ends up with what is published, and never routes into nothing on the way."""

from delta_client import Client, Held, is_bad
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gwanmun.xds_server.delta import Stream
from gwanmun.xds_server.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    Need,
    Publication,
    Resource,
    ResourceSet,
    resource,
)
from gwanmun.xds_server.subscription import Limits

URLS = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)
NAMES = ("a", "b", "c", "d")
LIMITS = Limits(resources=2)
BODIES = st.sampled_from([b"1", b"2", b"3", b"bad1", b"bad2", None])


class Published(RuleBasedStateMachine):
    """A published set, the stream that follows it, and a client whose messages are under way for as long as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.current = ResourceSet()
        self.serial = 1
        self.client = Client(Stream(self.current, 1, LIMITS))

    def publish(self, new: ResourceSet) -> None:
        self.serial += 1
        publication = Publication(self.serial, new, new.changes_since(self.current))
        self.current = new
        self.client.inbox.extend(self.client.stream.publish(publication))

    @rule(many=st.integers(1, 5))
    def deliver(self, many: int) -> None:
        for _ in range(min(many, len(self.client.inbox))):
            self.client.step()

    @rule()
    def reconnect(self) -> None:
        """Anywhere but between the refusal of a Secret and what is sent in its place: of that moment nobody would know."""
        self.client.answer_all_of(SECRET)
        self.client.reconnect(Stream(self.current, self.serial, LIMITS))

    @rule()
    def lose_patience(self) -> None:
        self.client.inbox.extend(self.client.stream.stop_waiting())

    @invariant()
    def one_response_of_a_type_is_outstanding(self) -> None:
        under_way = [response.type_url for response in self.client.inbox]
        assert len(under_way) == len(set(under_way))


class AnySubscription(Published):
    """Any subscriptions, any resources, some bad."""

    @initialize(partial=st.booleans(), names_culprits=st.booleans())
    def connect(self, partial: bool, names_culprits: bool) -> None:
        self.client.partial, self.client.names_culprits = partial, names_culprits

    @rule(url=st.sampled_from(URLS), edits=st.dictionaries(st.sampled_from(NAMES), BODIES, min_size=1))
    def edit(self, url: str, edits: dict[str, bytes | None]) -> None:
        made = {name: body if body is None else resource(name, body) for name, body in edits.items()}
        self.publish(self.current.replace(url, made))

    @rule(url=st.sampled_from(URLS), names=st.sets(st.sampled_from([*NAMES, "*", "never"]), min_size=1))
    def subscribe(self, url: str, names: set[str]) -> None:
        self.client.subscribe(url, *sorted(names))

    @rule(url=st.sampled_from(URLS), names=st.sets(st.sampled_from([*NAMES, "*"]), min_size=1))
    def unsubscribe(self, url: str, names: set[str]) -> None:
        if url in self.client.types:
            self.client.unsubscribe(url, *sorted(names))

    @rule()
    def drain(self) -> None:
        self.client.drain()
        while self.client.stream.awaited:  # this client asks for what it likes, not for what it needs
            self.lose_patience()
            self.client.drain()
        refused = {(r.type_url, r.name): r.version for r in self.client.stream.rejections}
        # While new routes are refused, what the old ones may need is not taken away.
        withheld = any(url in (LISTENER, ROUTES) for url, _ in refused)
        for url, held in self.client.types.items():
            available = self.current.of(url)
            for name in {*available, *held.bodies}:
                wanted = available.get(name) if held.wants(name) else None
                if wanted is None:
                    assert name not in held.bodies or (withheld and url not in (LISTENER, ROUTES))
                elif is_bad(wanted.body):
                    assert refused[url, name] == wanted.version
                    assert not is_bad(held.bodies.get(name, b""))
                else:
                    assert held.bodies[name] == wanted.body
                    assert (url, name) not in refused
        if LISTENER in self.client.types:
            assert self.client.stream.applied == self.serial

    def teardown(self) -> None:
        self.drain()


class EnvoyLike(Published):
    """A client that asks for endpoints of the clusters it gets, as Envoy does, and publications that hang together."""

    @initialize()
    def connect(self) -> None:
        self.client.follows_clusters = True
        for url in (CLUSTER, LISTENER):
            self.client.subscribe(url, "*")
        self.client.types[ENDPOINTS] = Held()
        self.client.subscribe(ROUTES, "r")

    @rule(clusters=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([b"1", b"2"])), version=st.binary(max_size=1))
    def move(self, clusters: dict[str, bytes], version: bytes) -> None:
        """Routes to exactly these clusters."""
        made: dict[str, Resource] = {name: resource(name, body, [Need(ENDPOINTS, name)]) for name, body in clusters.items()}
        self.publish(
            ResourceSet(
                {
                    CLUSTER: made,
                    ENDPOINTS: {name: resource(name, version or b"0") for name in clusters},
                    LISTENER: {"l": resource("l", b"1", [Need(ROUTES, "r")])},
                    ROUTES: {"r": resource("r", ",".join(sorted(clusters)).encode())},
                }
            )
        )

    @rule(name=st.sampled_from(NAMES), body=st.binary(max_size=2))
    def endpoints_change(self, name: str, body: bytes) -> None:
        if name in self.current.of(ENDPOINTS):
            self.publish(self.current.replace(ENDPOINTS, {name: resource(name, body)}))

    @rule(refused=st.binary(max_size=1))
    @precondition(lambda self: ROUTES in self.client.types)
    def break_routes(self, refused: bytes) -> None:
        """Every cluster goes, and so would the routes, were they not refused."""
        self.publish(ResourceSet({LISTENER: self.current.of(LISTENER), ROUTES: {"r": resource("r", b"bad" + refused)}}))

    @invariant()
    def no_route_leads_into_nothing(self) -> None:
        routes = self.client.types.get(ROUTES, Held()).bodies.get("r", b"").decode()
        for name in filter(None, routes.split(",")):
            assert name in self.client.types[CLUSTER].bodies
            assert name in self.client.types[ENDPOINTS].bodies

    def teardown(self) -> None:
        self.client.drain()
        for url in (CLUSTER, ENDPOINTS, LISTENER, ROUTES):
            published = {name: found.body for name, found in self.current.of(url).items()}
            if not any(is_bad(found.body) for found in self.current.of(ROUTES).values()):
                assert self.client.types[url].bodies == published


_RUNS = settings(max_examples=150, stateful_step_count=30)
TestAnySubscription = AnySubscription.TestCase
TestAnySubscription.settings = _RUNS
TestEnvoyLike = EnvoyLike.TestCase
TestEnvoyLike.settings = _RUNS
