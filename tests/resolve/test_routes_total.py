"""Whatever a route, a Service or a policy holds, resolve answers; and edits one by one end where a fresh start does."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun.api import BackendTLSPolicy, EndpointSlice, GRPCRoute, HTTPRoute, Object, Service, TLSRoute
from gwanmun.names import ObjectKey
from gwanmun.resolve.model import Resolver, resolve
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of
from resolve.given import BASE, objects

names = st.sampled_from(["a", "b", "r", "gw", "", "none"])
hosts = st.sampled_from(["*", "*.example.com", "a.example.com", "EXAMPLE.com", "", ".", "*.", "a b"])
texts = st.sampled_from(
    ["", "/", "//", "/v1/", "v1", "(", "(?=x)", "a{1001}", "100ms", "soon", "\x00", "Host", ":path", "é", "Exact"]
)
ports = st.sampled_from([None, 0, -1, 80, 8000, 70000])
kinds = st.sampled_from(["Exact", "RegularExpression", "PathPrefix", "", "Other"])
times = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])


def some(entry: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(entry, max_size=most)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields, and with none that are None."""
    made = st.fixed_dictionaries({}, optional=fields)
    return made.map(lambda found: {name: value for name, value in found.items() if value is not None})


headers = some(st.fixed_dictionaries({"name": texts, "value": texts}, optional={"type": kinds}))
edits = maybe(set=headers, add=headers, remove=some(texts))
ref = st.fixed_dictionaries(
    {"name": names},
    optional={
        "port": ports.filter(lambda port: port is not None),
        "namespace": st.sampled_from(["ai", "other"]),
        "kind": st.sampled_from(["Service", "Backend", "Bucket"]),
        "group": st.sampled_from(["", "gwanmun.dev", "x"]),
    },
)
path = st.fixed_dictionaries(
    {"type": st.sampled_from(["ReplaceFullPath", "ReplacePrefixMatch", "x"])},
    optional={"replaceFullPath": texts, "replacePrefixMatch": texts},
)
filters = some(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["RequestHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "CORS", "ExtensionRef", "x"]
            )
        },
        optional={
            "requestHeaderModifier": edits,
            "responseHeaderModifier": edits,
            "requestRedirect": maybe(
                scheme=texts, hostname=hosts, path=path, port=ports, statusCode=st.sampled_from([302, 200])
            ),
            "urlRewrite": maybe(hostname=hosts, path=path),
            "requestMirror": st.fixed_dictionaries({"backendRef": ref}, optional={"percent": st.integers(-1, 101)}),
            "cors": maybe(allowOrigins=some(texts), maxAge=st.integers(-1, 5)),
            "extensionRef": st.fixed_dictionaries({"name": names, "group": names, "kind": names}),
        },
    )
)
weighted = st.builds(lambda found, more: {**found, **more}, ref, maybe(weight=st.integers(-1, 2), filters=filters))
http_rule = maybe(
    matches=some(maybe(path=maybe(type=kinds, value=texts), headers=headers, queryParams=headers, method=texts)),
    filters=filters,
    backendRefs=some(weighted),
    timeouts=maybe(request=texts, backendRequest=texts),
    retry=maybe(codes=some(st.integers(0, 600)), attempts=st.integers(-1, 3), backoff=texts),
)
grpc_rule = maybe(
    matches=some(maybe(method=maybe(type=kinds, service=texts, method=texts), headers=headers)), backendRefs=some(weighted)
)
parents = some(
    st.fixed_dictionaries({"name": st.sampled_from(["gw", "x"])}, optional={"sectionName": names, "port": st.just(80)})
)


def meta(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return times.map(
        lambda time: {"name": name, "namespace": "ai", **({"creationTimestamp": time} if time is not None else {})}
    )


def route_of(kind: type[Object], name: str, rule: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    spec = st.fixed_dictionaries({"parentRefs": parents, "hostnames": some(hosts), "rules": some(rule)})
    return st.fixed_dictionaries({"metadata": meta(name), "spec": spec}).map(lambda body: msgspec.convert(body, kind))


service_port = st.fixed_dictionaries(
    {"port": st.sampled_from([80, 8000])},
    optional={
        "name": names,
        "protocol": st.sampled_from(["TCP", "UDP", "x"]),
        "appProtocol": st.sampled_from(["http", "https", "x"]),
    },
)
services = st.fixed_dictionaries(
    {"metadata": meta("a"), "spec": maybe(ports=some(service_port), type=st.sampled_from(["ClusterIP", "ExternalName"]))}
).map(lambda body: msgspec.convert(body, Service))
slices = st.fixed_dictionaries(
    {
        "metadata": st.just({"name": "a-1", "namespace": "ai", "labels": {"kubernetes.io/service-name": "a"}}),
        "addressType": st.sampled_from(["IPv4", "IPv6", "FQDN", "x"]),
        "endpoints": st.none() | some(st.fixed_dictionaries({"addresses": some(texts)})),
        "ports": st.none() | some(maybe(name=names, port=st.just(8000), protocol=st.just("TCP"))),
    }
).map(lambda body: msgspec.convert(body, EndpointSlice))
policies = st.fixed_dictionaries(
    {
        "metadata": meta("p"),
        "spec": st.fixed_dictionaries(
            {
                "targetRefs": some(
                    st.fixed_dictionaries({"name": names, "group": st.just(""), "kind": names.map(lambda _: "Service")})
                ),
                "validation": st.fixed_dictionaries(
                    {"hostname": hosts},
                    optional={
                        "wellKnownCACertificates": st.sampled_from(["System", "x"]),
                        "subjectAltNames": some(st.fixed_dictionaries({"type": st.sampled_from(["Hostname", "URI", "x"])})),
                    },
                ),
            }
        ),
    }
).map(lambda body: msgspec.convert(body, BackendTLSPolicy))
anything = st.one_of(
    route_of(HTTPRoute, "r", http_rule),
    route_of(HTTPRoute, "s", http_rule),
    route_of(GRPCRoute, "g", grpc_rule),
    route_of(TLSRoute, "t", maybe(backendRefs=some(ref))),
    services,
    slices,
    policies,
)


@settings(max_examples=150)
@given(st.lists(anything, max_size=6), st.data())
def test_any_sequence_of_edits_ends_where_a_fresh_start_does(edits: list[Object], data: st.DataObject) -> None:
    snapshot, changed = Snapshot().apply(objects(BASE))
    resolver = Resolver(Settings())
    resolver.update(snapshot, changed)
    for obj in edits:
        change: dict[ObjectKey, Object | None] = {key_of(obj): obj}
        if data.draw(st.booleans()):
            change[data.draw(st.sampled_from(sorted(snapshot.objects)))] = None
        snapshot, changed = snapshot.apply(change)
        assert resolver.update(snapshot, changed) == resolve(snapshot)
