"""Small worlds of Gateway API objects for Hypothesis: few names, so that they collide, point nowhere and forbid each other.

Objects are made without validation: resolve must cope with what no API server would let in.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from golden.material import with_material
from gwanmun.api import Object
from gwanmun.api.decode import decode_object
from gwanmun.api.inferencepool import INFERENCE_GROUP
from gwanmun.api.kinds import KINDS
from gwanmun.api.load import load_text
from gwanmun.names import ObjectKey
from gwanmun.resources.snapshot import GATEWAY_GROUP, key_of

Value = Any
World = Mapping[ObjectKey, Object]

HOSTNAMES = ("*.example.com", "a.example.com", "b.a.example.com", "A.example.COM", "*.com", "other.org", "*", "", ".", "*.")
PROTOCOLS = ("HTTP", "HTTP", "HTTPS", "HTTPS", "TLS", "TCP", "UDP")
TIMES = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", None)
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")


def one_of(*values: Value) -> st.SearchStrategy[Value]:
    return st.sampled_from(values)


def mostly(good: Sequence[Value], odd: Sequence[Value]) -> st.SearchStrategy[Value]:
    """Sound values four times as often as odd ones, or worlds would hold nothing but mistakes."""
    return st.sampled_from([*list(good) * max(1, 4 * len(odd) // len(good)), *odd])


def record(needed: Mapping[str, Value], **maybe: Value) -> st.SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries(dict(needed), optional={name.removesuffix("_"): value for name, value in maybe.items()})


def few(values: st.SearchStrategy[Value], most: int = 2) -> st.SearchStrategy[list[Value]]:
    return st.lists(values, max_size=most)


names = mostly(["x"], ["y"])
namespaces = mostly(["a"], ["b"])
ports = mostly([80, 443], [0])
kinds = mostly(ROUTE_KINDS, ["Service", "Gateway", "ListenerSet", "Weird"])
groups = mostly([GATEWAY_GROUP], ["", "weird.io"])
selectors = record(
    {},
    matchLabels=st.dictionaries(one_of("team", "kubernetes.io/metadata.name"), one_of("a", "b"), max_size=1),
    matchExpressions=few(record({"key": one_of("team"), "operator": one_of("In", "NotIn", "Exists", "Weird")}), 1),
)
where = record({}, from_=mostly(["All", "Same"], ["Selector", "None", "Weird"]), selector=selectors).map(
    lambda found: {("from" if key == "from_" else key): value for key, value in found.items()}
)
secret_refs = record(
    {"name": names}, namespace=namespaces, kind=mostly(["Secret"], ["Weird"]), group=mostly([""], ["weird.io"])
)
ca_refs = record(
    {"name": names, "group": mostly([""], ["x"]), "kind": mostly(["ConfigMap", "Secret"], ["Service"])}, namespace=namespaces
)
listeners = record(
    {"name": one_of("l1", "l2", "l3"), "port": one_of(80, 443, 8443), "protocol": mostly(PROTOCOLS, ["Gopher"])},
    hostname=one_of(*HOSTNAMES),
    tls=record(
        {},
        mode=mostly(["Terminate", "Passthrough"], ["Weird"]),
        certificateRefs=few(secret_refs),
        options=st.dictionaries(one_of("x.io/y"), one_of("z"), max_size=1),
    ),
    allowedRoutes=record({}, namespaces=where, kinds=few(record({"kind": kinds}, group=groups))),
)
validations = record(
    {}, validation=record({"caCertificateRefs": few(ca_refs)}, mode=mostly(["AllowValidOnly", "AllowInsecureFallback"], ["x"]))
)
parameters = record(
    {"group": mostly(["gwanmun.dev", "kgateway.dev"], ["x"]), "kind": mostly(["GatewayClassConfig"], ["x"]), "name": names}
)
gateways = record(
    {"gatewayClassName": mostly(["ours"], ["theirs"]), "listeners": few(listeners, 3)},
    allowedListeners=record({}, namespaces=where),
    addresses=few(record({}, type=mostly(["IPAddress"], ["Hostname"]), value=mostly(["127.0.0.1", "::1"], ["not one", ""]))),
    infrastructure=record({}, parametersRef=parameters),
    tls=record(
        {},
        frontend=record({"default": validations}, perPort=few(record({"port": one_of(443), "tls": validations}), 1)),
        backend=record({}, clientCertificateRef=secret_refs),
    ),
)
gateway_classes = record({"controllerName": mostly(["gwanmun.dev/gateway-controller"], ["theirs"])}, parametersRef=parameters)
configs = record(
    {},
    connectionSettings=record(
        {},
        maxConnections=one_of(0, 10),
        connectTimeout=mostly(["10s", "1h30m", "0s"], ["soon", ""]),
        idleTimeout=mostly(["10s", "1h30m", "0s"], ["soon", ""]),
    ),
    inference=record({}, modelHeader=one_of("X-Model", ""), maxRequestBytes=one_of("1Mi", "x", -1, 1e30)),
)
parent_refs = record(
    {"name": names},
    kind=mostly(["Gateway", "ListenerSet"], ["Service"]),
    group=groups,
    namespace=namespaces,
    sectionName=mostly(["l1", "l2"], ["nowhere"]),
    port=one_of(80, 443),
)
listener_sets = record({"parentRef": record({"name": names}, namespace=namespaces), "listeners": few(listeners, 3)})
backend_objects = record(
    {"name": names},
    namespace=namespaces,
    kind=mostly(["Service"], ["Weird", "InferencePool"]),
    group=mostly([""], ["x", INFERENCE_GROUP]),
    port=ports,
)
headers = few(
    record(
        {"name": one_of("x-model-id", "X-Other", ""), "value": one_of("a", "(")}, type=one_of("Exact", "RegularExpression", "x")
    )
)
modifiers = record(
    {},
    set=few(record({"name": one_of("x-a", ""), "value": one_of("1")}), 1),
    add=few(record({"name": one_of("x-a"), "value": one_of("2")}), 1),
    remove=few(one_of("x-b"), 1),
)
mirrors = record(
    {"backendRef": backend_objects},
    percent=one_of(0, 50, 100),
    fraction=record({"numerator": one_of(0, 1)}, denominator=one_of(0, 10)),
)
rewrites = record(
    {"type": one_of("ReplaceFullPath", "ReplacePrefixMatch", "x")},
    replaceFullPath=one_of("/f"),
    replacePrefixMatch=one_of("/p", ""),
)
local_refs = record({"name": names, "group": groups, "kind": kinds})
filters = record(
    {
        "type": one_of(
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "RequestMirror",
            "RequestRedirect",
            "URLRewrite",
            "CORS",
            "ExtensionRef",
            "x",
        )
    },
    requestHeaderModifier=modifiers,
    responseHeaderModifier=modifiers,
    requestMirror=mirrors,
    requestRedirect=record(
        {}, scheme=one_of("https", "x"), hostname=one_of("h"), path=rewrites, port=ports, statusCode=one_of(301, 999)
    ),
    urlRewrite=record({}, hostname=one_of("h"), path=rewrites),
    cors=record({}, allowOrigins=few(one_of("*", "https://*.x.io", "https://x.io", ""))),
    extensionRef=local_refs,
)
weights = one_of(0, 1, 9)
http_rules = record(
    {},
    name=one_of("r1", "r2"),
    matches=few(
        record(
            {},
            path=record(
                {},
                type=mostly(["Exact", "PathPrefix", "RegularExpression"], ["x"]),
                value=mostly(["/", "/a", "/a/"], ["(", "", "a"]),
            ),
            method=one_of("GET", "x"),
            headers=headers,
            queryParams=headers,
        )
    ),
    filters=few(filters),
    backendRefs=few(
        st.builds(lambda ref, more: ref | more, backend_objects, record({}, weight=weights, filters=few(filters, 1)))
    ),
    timeouts=record(
        {}, request=mostly(["10s", "1h30m", "0s"], ["soon", ""]), backendRequest=mostly(["10s", "1h30m", "0s"], ["soon", ""])
    ),
    retry=record({}, codes=few(one_of(500, 9)), attempts=one_of(0, 2), backoff=mostly(["10s", "1h30m", "0s"], ["soon", ""])),
)
grpc_rules = record(
    {},
    matches=few(
        record(
            {},
            method=record(
                {}, type=one_of("Exact", "RegularExpression", "x"), service=one_of("s.S", "(", ""), method=one_of("M", "")
            ),
            headers=headers,
        )
    ),
    filters=few(filters),
    backendRefs=few(
        st.builds(lambda ref, more: ref | more, backend_objects, record({}, weight=weights, filters=few(filters, 1)))
    ),
)
l4_rules = record({}, backendRefs=few(st.builds(lambda ref, weight: ref | {"weight": weight}, backend_objects, weights)))
hostnames = few(one_of(*HOSTNAMES))
services = record(
    {
        "ports": few(
            record(
                {"port": ports},
                name=one_of("http", "tls"),
                protocol=one_of("TCP", "UDP"),
                appProtocol=one_of("kubernetes.io/h2c", "https", "x"),
            )
        )
    },
    type=one_of("ClusterIP", "ExternalName"),
    externalName=one_of("x.example.com", ""),
    clusterIP=one_of("None", "10.0.0.1"),
    trafficDistribution=one_of("PreferClose", "PreferSameNode", "x"),
)
endpoints = record(
    {"addresses": few(one_of("10.0.0.1", "10.0.0.2", "fd00::1"))},
    conditions=record({}, ready=st.booleans(), serving=st.booleans(), terminating=st.booleans()),
    zone=one_of("z1", "z2"),
    hints=record({}, forZones=few(record({"name": one_of("z1")}), 1), forNodes=few(record({"name": one_of("n1")}), 1)),
)
grants = record(
    {
        "from": few(record({"group": one_of(GATEWAY_GROUP), "kind": kinds, "namespace": namespaces})),
        "to": few(record({"group": one_of(""), "kind": one_of("Service", "Secret", "ConfigMap")}, name=names)),
    }
)
policies = record(
    {
        "targetRefs": few(
            record({"group": one_of(""), "kind": one_of("Service", "x"), "name": names}, sectionName=one_of("http", "tls"))
        ),
        "validation": record(
            {"hostname": one_of("x.example.com", "")},
            caCertificateRefs=few(record({"name": names, "group": one_of(""), "kind": one_of("ConfigMap", "x")})),
            wellKnownCACertificates=one_of("System", "x"),
            subjectAltNames=few(record({"type": one_of("Hostname", "URI", "x")}, hostname=one_of("h"), uri=one_of("u")), 1),
        ),
    }
)
backends = record(
    {
        "endpoints": few(
            record({"port": ports}, address=one_of("10.0.0.9"), hostname=one_of("h.example.com"), zone=one_of("z1"))
        )
    },
    protocol=one_of("HTTP", "H2C", "HTTPS", "GRPC", "TCP", "x"),
    engine=one_of("vllm", "x"),
    tls=record({}, hostname=one_of("h"), wellKnownCACertificates=one_of("System"), clientCertificateRef=secret_refs),
)


@cache
def _pem(what: str) -> str:
    return str(json.loads(with_material(what)))


secret_data = mostly(["good"], ["other key", "junk", "nothing"]).map(
    lambda what: {
        "good": {"tls.crt": _pem("certificate(world)"), "tls.key": _pem("key(world)"), "ca.crt": _pem("ca(world)")},
        "other key": {"tls.crt": _pem("certificate(world)"), "tls.key": _pem("key(other)")},
        "junk": {
            "tls.crt": "junk",
            "tls.key": "junk",
            "ca.crt": "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n",
        },
        "nothing": {},
    }[what]
)


def _object(kind: tuple[str, str], name: str, namespace: str, body: dict[str, Value], meta: dict[str, Value]) -> Object:
    found = KINDS[kind]
    metadata = {"name": name, **({"namespace": namespace} if found.namespaced else {}), **meta}
    return decode_object({"metadata": metadata, **body}, found)


def _of(
    group: str, kind: str, bodies: st.SearchStrategy[Any], named: st.SearchStrategy[str] = names
) -> st.SearchStrategy[Object]:
    meta = record(
        {},
        generation=one_of(1, 2),
        creationTimestamp=one_of(*TIMES),
        labels=st.dictionaries(one_of("team"), one_of("a", "b"), max_size=1),
    )
    return st.builds(_object, st.just((group, kind)), named, namespaces, bodies, meta)


def _spec(spec: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda value: {"spec": value}, spec)


def _route(rules: st.SearchStrategy[Any], **more: Value) -> st.SearchStrategy[Any]:
    return _spec(record({"parentRefs": few(parent_refs), "rules": few(rules)}, **more))


slices = record(
    {"endpoints": st.none() | few(endpoints), "ports": st.none() | few(record({}, name=one_of("http", "tls"), port=ports))}
)


pools = record(
    {
        "selector": record({}, matchLabels=st.dictionaries(one_of("team"), one_of("a", "b"), max_size=1)),
        "targetPorts": few(record({"number": one_of(8000, 8001)}), 3),
    },
    appProtocol=mostly(["http", "kubernetes.io/h2c"], ["weird"]),
    endpointPickerRef=record(
        {"name": names},
        kind=mostly(["Service"], ["Weird"]),
        group=mostly([""], ["x"]),
        port=record({"number": ports}),
        failureMode=mostly(["FailOpen", "FailClose"], ["weird"]),
    ),
)
pods = record(
    {},
    spec=record({}, nodeName=one_of("", "node-1")),
    status=record(
        {},
        phase=mostly(["Running"], ["Pending", ""]),
        podIP=mostly(["10.0.0.1", "FD00::1"], [""]),
        conditions=few(record({"type": one_of("Ready", "Weird")}, status=one_of("True", "False", "Unknown"))),
    ),
)


def _slice(name: str, namespace: str, service: str, body: dict[str, Value]) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}}
    return decode_object({"metadata": metadata, **body}, KINDS["discovery.k8s.io", "EndpointSlice"])


objects: st.SearchStrategy[Object] = st.one_of(
    _of(GATEWAY_GROUP, "Gateway", _spec(gateways)),
    _of(GATEWAY_GROUP, "ListenerSet", _spec(listener_sets)),
    _of(GATEWAY_GROUP, "HTTPRoute", _route(http_rules, hostnames=hostnames)),
    _of(GATEWAY_GROUP, "HTTPRoute", _route(http_rules, hostnames=hostnames)),
    _of(GATEWAY_GROUP, "GRPCRoute", _route(grpc_rules, hostnames=hostnames)),
    _of(GATEWAY_GROUP, "TLSRoute", _route(l4_rules, hostnames=hostnames)),
    _of(GATEWAY_GROUP, "TCPRoute", _route(l4_rules)),
    _of(GATEWAY_GROUP, "UDPRoute", _route(l4_rules)),
    _of(GATEWAY_GROUP, "GatewayClass", _spec(gateway_classes), one_of("ours", "theirs")),
    _of(GATEWAY_GROUP, "ReferenceGrant", _spec(grants)),
    _of(GATEWAY_GROUP, "BackendTLSPolicy", _spec(policies)),
    _of("gwanmun.dev", "GatewayClassConfig", _spec(configs)),
    _of("gwanmun.dev", "Backend", _spec(backends)),
    _of("", "Service", _spec(services)),
    _of("", "Namespace", st.just({}), namespaces),
    _of("", "Secret", record({"stringData": secret_data}, type=mostly(["kubernetes.io/tls"], ["Opaque"]))),
    _of("", "ConfigMap", st.builds(lambda data: {"data": data}, secret_data)),
    _of(INFERENCE_GROUP, "InferencePool", _spec(pools)),
    _of("", "Pod", pods, one_of("x", "y", "z")),
    _of("", "Node", st.just({}), one_of("node-1")),
    st.builds(_slice, names, namespaces, names, slices),
)

SOUND = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: gwanmun.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: x, namespace: a}
spec:
  gatewayClassName: ours
  allowedListeners: {namespaces: {from: All}}
  listeners:
    - {name: l1, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: l2, port: 443, protocol: HTTPS, hostname: "*.example.com", tls: {certificateRefs: [{name: x}]}}
    - {name: l3, port: 443, protocol: TLS, hostname: b.a.example.com, tls: {mode: Passthrough}}
    - {name: l4, port: 8443, protocol: TCP}
  tls: {backend: {clientCertificateRef: {name: x}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: x, namespace: a}
spec:
  parentRef: {name: x}
  listeners: [{name: l1, port: 80, protocol: HTTP, hostname: other.org}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: x, namespace: a}
spec:
  parentRefs: [{name: x}]
  hostnames: [a.example.com, other.org]
  rules:
    - backendRefs: [{name: x, port: 80}, {name: x, port: 443}]
    - matches: [{path: {value: /pool}}]
      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: x}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: x, namespace: a}
spec:
  selector: {matchLabels: {team: a}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: x, port: {number: 80}}
---
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: a, labels: {team: a}}
spec: {nodeName: node-1}
status: {phase: Running, podIP: 10.0.0.9}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: x, namespace: a}
spec:
  parentRefs: [{name: x}]
  hostnames: [b.a.example.com]
  rules: [{backendRefs: [{name: x, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: x, namespace: a}
spec:
  targetRefs: [{group: "", kind: Service, name: x, sectionName: tls}]
  validation: {hostname: x.example.com, wellKnownCACertificates: System}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: x, namespace: b}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}]
  to: [{group: "", kind: Service}]
---
apiVersion: v1
kind: Secret
metadata: {name: x, namespace: a}
type: kubernetes.io/tls
stringData: {tls.crt: certificate(world), tls.key: key(world)}
---
apiVersion: v1
kind: Service
metadata: {name: x, namespace: a}
spec: {ports: [{name: http, port: 80}, {name: tls, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: x, namespace: a, labels: {kubernetes.io/service-name: x}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: http, port: 8000}]
"""
"""A world in order. Random objects take the places of some of its own and refer to others."""


@cache
def sound() -> World:
    loaded = load_text(with_material(SOUND), "sound.yaml")
    assert not loaded.problems
    return {key_of(found.object): found.object for found in loaded.objects}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Objects by key."""
    lost = draw(st.sets(st.sampled_from(sorted(sound())), max_size=2))
    kept = {key: obj for key, obj in sound().items() if key not in lost}
    return kept | {key_of(obj): obj for obj in draw(st.lists(objects, max_size=8))}


edits: st.SearchStrategy[Mapping[ObjectKey, Object | None]] = st.lists(
    st.tuples(objects, mostly([False], [True])), min_size=1, max_size=4
).map(lambda found: {key_of(obj): None if gone else obj for obj, gone in found})
"""Objects put or taken away at once."""
