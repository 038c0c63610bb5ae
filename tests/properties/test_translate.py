"""Translation: what is taken over from the one before never shows, and what is joined by hand reads as if built whole."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun.ir import (
    Backend,
    Certificate,
    Endpoint,
    Endpoints,
    Forward,
    Gateway,
    HeaderEdits,
    HeaderMatch,
    Host,
    HttpListener,
    HttpMatch,
    InferenceSettings,
    L4Rule,
    Model,
    Port,
    PrefixPath,
    Redirect,
    Respond,
    Rule,
    TcpListener,
    TlsListener,
    TlsTermination,
    UdpListener,
    ValueMatch,
    WeightedTarget,
)
from gwanmun.names import CertificateKey, ClusterKey, ListenerKey, MatchKey, NamespacedName, ObjectKey, RuleKey
from gwanmun.protos import pb, unpack
from gwanmun.xds import Binding, Options, Translation, names, translate
from gwanmun.xds.translate import translate_at
from gwanmun.xds.types import MESSAGES, ROUTES

GROUP = "gateway.networking.k8s.io"
GATEWAYS = [NamespacedName("a", "one"), NamespacedName("b", "two")]
CLUSTERS = [ClusterKey(ObjectKey("", "Service", "ai", name), 80, p) for name in "xyz" for p in ("http1", "tcp", "udp")]
CERTIFICATES = [CertificateKey(NamespacedName("a", name)) for name in ("c", "d")]


# Pools of values: a draw that picks the same one again picks the same object, as an unchanged value is in a real model.
def rules(name: str) -> list[Rule]:
    targets = [(WeightedTarget(key, 1),) for key in CLUSTERS if key.protocol == "http1"]
    mixed = (*targets[0], WeightedTarget(None, 2, HeaderEdits(set=(("x", "1"),))))
    actions = [*map(Forward, targets), Forward(mixed), Redirect(port="listener"), Redirect(scheme="https"), Respond(404)]
    key = RuleKey(ObjectKey(GROUP, "HTTPRoute", "ai", name), 0)
    bad = HeaderEdits(add=(("host", "x"),))
    return [
        Rule(
            MatchKey(key, n), HttpMatch(PrefixPath(f"/{n}")), action, request_headers=bad if n == 2 else None, inference=n == 1
        )
        for n, action in enumerate(actions)
    ]


RULES = rules("r") + rules("s")


def asking(name: str, *values: str) -> list[Rule]:
    """Rules that ask for a model, more than are tried one after the other."""
    return [
        Rule(MatchKey(RULES[n % 3].key.rule, n), HttpMatch(headers=(HeaderMatch(name, ValueMatch(value)),)), Respond(200))
        for n, value in enumerate(values)
    ]


MODELS = asking("x-model-id", *map(str, range(70)), "1", "2")
DOMAINS = ["*", "*.example", "a.example", "b.example", "c.example", "d.example"]
HOSTS = [Host(domain, tuple(RULES[n : n + k])) for domain in DOMAINS for n, k in ((0, 0), (0, 2), (1, 3), (5, 9))]
HOSTS += [Host("a.example", tuple(found)) for found in (MODELS, [*RULES[:2], *MODELS], [*MODELS[5:], RULES[3]], MODELS[1:])]
SHARES = [(), (WeightedTarget(CLUSTERS[1], 1),), (WeightedTarget(CLUSTERS[2], 3), WeightedTarget(None, 1))]
L4 = [L4Rule(RuleKey(ObjectKey(GROUP, "TCPRoute", "ai", str(n)), 0), shares, ("a.example",)) for n, shares in enumerate(SHARES)]
ENDPOINTS = [
    Endpoint("10.0.0.1", 80, "z"),
    Endpoint("10.0.0.2", 80, hints=("z",), weight=2),
    Endpoint("10.0.0.3", 80, "z", "n"),
    Endpoint("10.0.0.4", 80, node_hints=("n",)),
    Endpoint("be.example", 81, "z", "n"),
]

hosts = st.lists(st.sampled_from(HOSTS), max_size=6, unique_by=lambda host: host.domain).map(
    lambda found: {host.domain: host for host in found}
)
tls = st.none() | st.lists(st.sampled_from(CERTIFICATES), unique=True).map(lambda found: TlsTermination(tuple(found)))


def key(number: int) -> ListenerKey:
    return ListenerKey(ObjectKey(GROUP, "Gateway", "a", "one"), f"l{number}")


@st.composite
def ports(draw: st.DrawFn, number: int) -> Port:
    """One port, of any kind."""
    match draw(st.sampled_from(["http", "https", "tls", "tcp", "udp"])):
        case "http":
            inference = draw(st.none() | st.just(InferenceSettings()))
            return Port(number, "tcp", (HttpListener(key(0), "*", draw(hosts), inference=inference),))
        case "https" | "tls":
            web = HttpListener(key(1), "a.example", draw(hosts), draw(tls) or TlsTermination(()), ("b.example",))
            passed = TlsListener(key(2), "*.example", tuple(draw(st.lists(st.sampled_from(L4)))), draw(tls))
            return Port(number, "tcp", (web, passed))
        case "tcp":
            return Port(number, "tcp", (TcpListener(key(3), draw(st.none() | st.sampled_from(L4))),))
        case _:
            return Port(number, "udp", (UdpListener(key(4), draw(st.none() | st.sampled_from(L4))),))


@st.composite
def gateways(draw: st.DrawFn) -> dict[NamespacedName, Gateway]:
    found = {}
    for name in draw(st.lists(st.sampled_from(GATEWAYS), unique=True)):
        numbers = draw(st.lists(st.sampled_from([80, 443, 53]), unique=True, max_size=3))
        found[name] = Gateway(name, tuple(draw(ports(number)) for number in numbers))
    return found


BACKENDS = [Backend(one, one.protocol, prefer=prefer) for one in CLUSTERS for prefer in (None, "node")]  # type: ignore[arg-type]  # of ir.Prefer
backends = st.lists(st.sampled_from(BACKENDS), unique_by=lambda backend: backend.key).map(
    lambda found: {backend.key: backend for backend in found}
)
endpoints = st.dictionaries(st.sampled_from(CLUSTERS), st.lists(st.sampled_from(ENDPOINTS), unique=True)).map(
    lambda found: {one: Endpoints(one, tuple(sorted(where))) for one, where in found.items()}
)
certificates = st.dictionaries(st.sampled_from(CERTIFICATES), st.sampled_from(["1", "2"])).map(
    lambda found: {one: Certificate(one, text, text) for one, text in found.items()}
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    return Model(draw(gateways()), draw(backends), draw(endpoints), draw(certificates))


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[Model, Options]]:
    """Models in which each has parts of the one before, the same objects."""
    parts = {"gateways": gateways(), "backends": backends, "endpoints": endpoints, "certificates": certificates}
    model = draw(models())
    steps = [(model, draw(options))]
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(parts)))
        model = replace(model, **{name: draw(parts[name])})
        steps.append((model, draw(st.just(steps[-1][1]) | options)))
    return steps


def bound(advertised: int, module: bool, zone: str) -> Options:
    bindings = {
        (gateway, number, transport): (
            Binding("127.0.0.1", number, number),
            Binding("127.0.0.2", number, number + advertised),
        )
        for gateway in GATEWAYS
        for number in (80, 443, 53)
        for transport in ("tcp", "udp")
    }
    path = "/module.so" if module else None
    return Options(bindings, path, zone, shard_threshold=3, shards=4)  # type: ignore[arg-type]  # tcp or udp


options = st.builds(bound, st.sampled_from([0, 8000]), st.booleans(), st.sampled_from(["", "z"]))


@settings(max_examples=150)
@given(edits())
def test_incremental_is_from_scratch(steps: list[tuple[Model, Options]]) -> None:
    previous: Translation | None = None
    for model, given_options in steps:
        found = translate(model, given_options, previous)
        fresh = translate(model, given_options)
        assert found == fresh
        assert found.changed == difference(previous, found)
        for kind, resources in found.resources.items():
            for name, body in resources.items():
                message = pb(MESSAGES[kind]).FromString(body)
                assert (message.cluster_name if kind.endswith("ClusterLoadAssignment") else message.name) == name
        previous = found


@settings(max_examples=150)
@given(edits())
def test_what_a_node_has_of_its_own_over_its_zone_is_all_that_it_is_to_have(steps: list[tuple[Model, Options]]) -> None:
    zone: Translation | None = None
    own: Translation | None = None
    for model, given_options in steps:
        zone = translate(model, given_options, zone)
        before, own = own, translate_at("n", zone, own)
        assert own.changed == difference(before, own)
        whole = translate(model, replace(given_options, node="n"))
        for kind in MESSAGES:
            assert {**zone.resources[kind], **own.resources[kind]} == whole.resources[kind]
            assert {**zone.needs[kind], **own.needs[kind]} == whole.needs[kind]


def difference(old: Translation | None, new: Translation) -> dict[str, frozenset[str]]:
    found = {}
    for kind in MESSAGES:
        before = old.resources[kind] if old is not None else {}
        after = new.resources[kind]
        found[kind] = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return {kind: changed for kind, changed in found.items() if changed}


@given(hosts)
def test_a_joined_table_reads_like_one_that_is_built_whole(found: dict[str, Host]) -> None:
    gateway = Gateway(GATEWAYS[0], (Port(80, "tcp", (HttpListener(key(0), "*", found),)),))
    translation = translate(Model({gateway.key: gateway}), bound(0, False, ""))
    table = pb(MESSAGES[ROUTES]).FromString(translation.resources[ROUTES]["a/one:80"])
    whole = pb(MESSAGES[ROUTES])()
    whole.CopyFrom(table)
    # Serialized by protobuf itself and parsed again it is the same, and nothing in it is unknown or out of place.
    assert pb(MESSAGES[ROUTES]).FromString(whole.SerializeToString(deterministic=True)) == table
    assert [host.name for host in table.virtual_hosts] == sorted(found)
    for host in table.virtual_hosts:
        assert list(host.domains) == [host.name]
        if not host.HasField("matcher"):
            assert {route.name for route in host.routes} == {names.match(rule.key) for rule in found[host.name].rules}
            continue
        for value, action in host.matcher.matcher_tree.exact_match_map.map.items():
            routes = unpack(action.action.typed_config).routes
            rules = [one for one in found[host.name].rules if {header.value.value for header in one.match.headers} <= {value}]
            assert [route.name for route in routes] == [names.match(one.key) for one in rules]
    assert table.max_direct_response_body_size_bytes.value == 1024 * 1024


texts = st.text(st.sampled_from("ab/:|=#%. "), max_size=3)
object_keys = st.builds(ObjectKey, texts, st.sampled_from(["Service", "Backend"]) | texts, texts, texts)
cluster_keys = st.builds(
    ClusterKey,
    object_keys,
    st.integers(1, 3),
    st.sampled_from(["http1", "tcp"]) | texts,
    st.none() | st.builds(NamespacedName, texts, texts),
)


@given(cluster_keys, cluster_keys)
def test_names_of_clusters_never_collide(one: ClusterKey, other: ClusterKey) -> None:
    assert (names.cluster(one) == names.cluster(other)) == (one == other)
    assert names.cluster(one) not in (names.UNRESOLVED, names.datagrams(NamespacedName("a", "b"), 1))


@given(st.builds(RuleKey, object_keys, st.integers(0, 2)), st.builds(RuleKey, object_keys, st.integers(0, 2)))
def test_names_of_rules_never_collide(one: RuleKey, other: RuleKey) -> None:
    assert (names.rule(one) == names.rule(other)) == (one == other)
