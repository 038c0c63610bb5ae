"""Manifests in, objects and problems out: what a user sees of `load_text`."""

from pathlib import Path
from textwrap import dedent

import pytest

from gwanmun.api import (
    Backend,
    BackendTLSPolicy,
    GatewayClassConfig,
    HTTPRoute,
    ReferenceGrant,
    Secret,
    Service,
    TLSRoute,
)
from gwanmun.api.load import LoadResult, load_text

EXAMPLES = Path(__file__).parents[2] / "examples"

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: chat
spec:
"""


def load(text: str | bytes) -> LoadResult:
    return load_text(dedent(text) if isinstance(text, str) else text, "a.yaml")


def problems(text: str | bytes) -> list[str]:
    return [str(problem).removeprefix("a.yaml:") for problem in load(text).problems]


def only(text: str) -> object:
    result = load(text)
    assert result.problems == []
    assert len(result.objects) == 1
    return result.objects[0].object


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_sound_manifest(path: Path) -> None:
    result = load_text(path.read_bytes(), path.name)
    assert [str(problem) for problem in result.problems] == []
    assert result.objects


def test_defaults_of_the_api_are_filled_in() -> None:
    route = only(ROUTE + "  rules:\n  - backendRefs: [{name: a, port: 80}]\n")
    assert isinstance(route, HTTPRoute)
    assert route.metadata.namespace == "default"
    rule = route.spec.rules[0]
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")
    assert (rule.backend_refs[0].kind, rule.backend_refs[0].weight) == ("Service", 1)


def test_a_match_on_a_header_alone_matches_every_path() -> None:
    route = only(ROUTE + "  rules:\n  - matches: [{headers: [{name: x-model-id, value: gpt-4}]}]\n")
    assert isinstance(route, HTTPRoute)
    match = route.spec.rules[0].matches[0]
    assert (match.path.value, match.headers[0].type) == ("/", "Exact")


def test_older_served_versions_give_the_same_objects() -> None:
    grant = only("""\
        apiVersion: gateway.networking.k8s.io/v1beta1
        kind: ReferenceGrant
        metadata: {name: g, namespace: b}
        spec:
          from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}]
          to: [{group: "", kind: Service}]
        """)
    assert isinstance(grant, ReferenceGrant)
    assert grant.spec.from_[0].namespace == "a"
    assert grant.api_version == "gateway.networking.k8s.io/v1beta1"


def test_a_deprecated_version_is_accepted_with_a_warning() -> None:
    result = load("""\
        apiVersion: gateway.networking.k8s.io/v1alpha2
        kind: TLSRoute
        metadata: {name: t}
        spec: {hostnames: [a.example.com], rules: [{backendRefs: [{name: a, port: 443}]}]}
        """)
    assert isinstance(result.objects[0].object, TLSRoute)
    assert [problem.severity for problem in result.problems] == ["warning"]
    assert "deprecated" in result.problems[0].message


def test_kgateway_dev_is_an_alias_of_our_group() -> None:
    config = only("""\
        apiVersion: kgateway.dev/v1alpha1
        kind: GatewayClassConfig
        metadata: {name: c}
        spec: {connectionSettings: {maxConnections: 10000, connectTimeout: 10s}}
        """)
    assert isinstance(config, GatewayClassConfig)
    assert (config.GROUP, config.api_version) == ("gwanmun.dev", "kgateway.dev/v1alpha1")
    assert config.spec.connection_settings.connect_timeout == "10s"
    assert config.spec.inference.max_request_bytes == "32Mi"


def test_a_backend_needs_no_service() -> None:
    backend = only("""\
        apiVersion: gwanmun.dev/v1alpha1
        kind: Backend
        metadata: {name: b}
        spec:
          engine: vllm
          endpoints: [{address: 127.0.0.1, port: 8001, zone: a}, {address: "::1", port: 8002}]
        """)
    assert isinstance(backend, Backend)
    assert [endpoint.weight for endpoint in backend.spec.endpoints] == [1, 1]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{endpoints: [{port: 1}]}", "spec.endpoints[0]: an endpoint has either an address or a hostname"),
        ("{endpoints: [{address: a.example.com, port: 1}]}", "must be an IPv4 or IPv6 address; write a DNS name as hostname"),
        ("{endpoints: [{address: 10.0.0.1, port: 1}], tls: {}}", "tls needs protocol HTTPS, GRPC or TCP"),
        ("{endpoints: [{address: 10.0.0.1, port: 1}], protocol: HTTPS}", "TLS to IP addresses needs tls.hostname"),
        ("{endpoints: [{address: 10.0.0.1, port: 1}, {hostname: a.b, port: 1}]}", "all IP addresses or all DNS names"),
    ],
)
def test_a_backend_that_cannot_work_is_refused(spec: str, said: str) -> None:
    found = problems(f"apiVersion: gwanmun.dev/v1alpha1\nkind: Backend\nmetadata: {{name: b}}\nspec: {spec}\n")
    assert any(said in problem for problem in found), found


def test_an_unknown_field_is_refused_with_the_field_that_was_meant() -> None:
    assert problems(ROUTE + "  parentRef:\n  - name: g\n  rules: [{match: []}]\n") == [
        "6: error: HTTPRoute chat: spec.parentRef: unknown field; did you mean parentRefs?",
        "8: error: HTTPRoute chat: spec.rules[0].match: unknown field; did you mean matches?",
    ]


def test_problems_name_line_field_value_and_what_would_be_accepted() -> None:
    text = ROUTE + dedent("""\
          rules:
          - matches:
            - method: FETCH
            retry:
              backoff: soon
            backendRefs:
            - name: a
              port: 80000
              weight: "5"
        """).replace("\n", "\n  ").join(["  ", ""])
    assert problems(text) == [
        '8: error: HTTPRoute chat: spec.rules[0].matches[0].method: "FETCH" is not accepted; '
        "one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH is",
        '10: error: HTTPRoute chat: spec.rules[0].retry.backoff: "soon" is not a duration such as "100ms", "10s" or "1h30m"',
        "13: error: HTTPRoute chat: spec.rules[0].backendRefs[0].port: 80000 is too large; at most 65535 is accepted",
        '14: error: HTTPRoute chat: spec.rules[0].backendRefs[0].weight: "5" is not a whole number',
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{backendRefs: [{name: a}]}", "spec.rules[0].backendRefs[0]: Must have port for Service reference"),
        ("{matches: [{path: {value: v1}}]}", "value must be an absolute path and start with '/'"),
        (
            "{timeouts: {request: 1s, backendRequest: 2s}}",
            "spec.rules[0].timeouts: backendRequest timeout cannot be longer than request timeout",
        ),
        ("{filters: [{type: CORS}]}", "filter.cors must be specified for CORS filter.type"),
    ],
)
def test_the_rules_of_the_crds_hold(rule: str, said: str) -> None:
    found = problems(ROUTE + f"  rules: [{rule}]\n")
    assert any(said in problem for problem in found), found


def test_names_of_list_entries_are_unique() -> None:
    found = problems("""\
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: g}
        spec:
          gatewayClassName: c
          listeners:
          - {name: http, port: 80, protocol: HTTP}
          - {name: http, port: 81, protocol: HTTP}
        """)
    assert found[0] == ('8: error: Gateway g: spec.listeners[1]: name "http" is there twice; each must be unique in this list')


def test_a_broken_document_hides_no_other() -> None:
    result = load("""\
        apiVersion: v1
        kind: Namespace
        metadata: {name: a}
        ---
        kind: [
        ---
        apiVersion: v1
        kind: Namespace
        metadata: {name: a, name: b}
        ---
        apiVersion: v1
        kind: Namespace
        metadata: {name: c}
        """)
    assert [(loaded.object.metadata.name, loaded.line) for loaded in result.objects] == [("a", 1), ("c", 11)]
    assert [problem.line for problem in result.problems] == [6, 9]
    assert 'the key "name" is there twice' in result.problems[1].message


@pytest.mark.parametrize(
    ("api_version", "kind", "said"),
    [
        (
            "gateway.networking.k8s.io/v1",
            "HTTPRuote",
            'error: HTTPRuote x: kind: unknown kind "HTTPRuote"; did you mean HTTPRoute?',
        ),
        (
            "gateway.networking.k8s.io/v2",
            "HTTPRoute",
            "gateway.networking.k8s.io/v1 or gateway.networking.k8s.io/v1beta1 is served",
        ),
        ("gateway.networking.k8.io/v1", "HTTPRoute", "HTTPRoute is of gateway.networking.k8s.io"),
        ("v1", "HTTPRoute", "HTTPRoute has apiVersion gateway.networking.k8s.io/v1"),
        (
            "apps/v1",
            "Deployment",
            'warning: Deployment x: apiVersion: Deployment of group "apps" is not read by gwanmun; ignored',
        ),
        ("networking.istio.io/v1", "Gateway", "is not read by gwanmun; ignored"),
        ("v1", "ServiceAccount", "warning: ServiceAccount x: kind: ServiceAccount is not read by gwanmun; ignored"),
    ],
)
def test_kinds_that_are_unknown_or_not_ours(api_version: str, kind: str, said: str) -> None:
    found = problems(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n")
    assert len(found) == 1
    assert said in found[0]


def test_a_secret_is_decoded_and_string_data_wins() -> None:
    secret = only("""\
        apiVersion: v1
        kind: Secret
        metadata: {name: s}
        data: {a: b2xk, b: "aGVs\\nbG8="}
        stringData: {a: new}
        """)
    assert isinstance(secret, Secret)
    assert secret.data == {"a": b"new", "b": b"hello"}
    assert "new" not in repr(secret)


@pytest.mark.parametrize(
    "data", ["{k: hunter2!}", "{k: 1234567}", "hunter2", "[hunter2]", "{k: {hunter2: 1}}", "{k: !x hunter2}"]
)
def test_the_value_of_a_secret_is_never_shown(data: str) -> None:
    for field in ("data", "stringData"):
        found = problems(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{field}: {data}\n")
        assert not any("hunter2" in problem or "1234567" in problem for problem in found)
        assert found or (field, data) == ("stringData", "{k: hunter2!}")


def test_a_tls_secret_has_both_halves() -> None:
    found = problems("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\nstringData: {tls.crt: x}\n")
    assert found == ["1: error: Secret s: a Secret of type kubernetes.io/tls needs the keys tls.crt and tls.key"]


def test_fields_of_kubernetes_own_kinds_that_we_do_not_read_are_let_through() -> None:
    service = only("""\
        apiVersion: v1
        kind: Service
        metadata: {name: s, creationTimestamp: null}
        spec: {ports: [{port: 80, targetPort: http}], sessionAffinity: None, ipFamilies: [IPv4], selector: null}
        """)
    assert isinstance(service, Service)
    assert service.spec.ports[0].target_port == "http"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{}", "metadata.name: a name is missing"),
        ("{name: Chat}", 'metadata.name: "Chat" is not at most 253'),
        ("{name: a, namespace: a.b}", "metadata.namespace"),
        ("{name: a, labels: {a: 1}}", "metadata.labels.a: 1 is not text; put it in quotes"),
        ("{name: a, labels: {'a b': x}}", 'metadata.labels["a b"]: "a b" is not a label key'),
        ("{name: a, label: {}}", "metadata.label: unknown field"),
        ("[a]", "metadata: metadata with a name is missing"),
    ],
)
def test_metadata_is_checked(metadata: str, said: str) -> None:
    found = problems(f"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {metadata}\nspec: {{}}\n")
    assert any(said in problem for problem in found), found


def test_the_same_object_twice_in_a_file() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
    assert problems(text + "---\n" + text) == [
        "5: error: Namespace a: the same object stands in line 1, which is used; this one is ignored"
    ]


def test_status_in_a_manifest_counts_for_nothing() -> None:
    route = only(ROUTE + "  hostnames: [a.example.com]\nstatus: {parents: 7}\n")
    assert isinstance(route, HTTPRoute)
    assert route.status.parents == ()


def test_backend_tls_policy() -> None:
    policy = only("""\
        apiVersion: gateway.networking.k8s.io/v1
        kind: BackendTLSPolicy
        metadata: {name: p}
        spec:
          targetRefs: [{group: "", kind: Service, name: s, sectionName: https}]
          validation: {wellKnownCACertificates: System, hostname: s.example.com}
        """)
    assert isinstance(policy, BackendTLSPolicy)
    assert policy.spec.validation.well_known_ca_certificates == "System"


def test_a_file_of_mistakes_ends_after_a_thousand() -> None:
    assert len(load("kind: A\n---\n" * 5_000).problems) == 1_001


def test_an_object_of_mistakes_ends_after_fifty() -> None:
    fields = "".join(f"  field{number}: 1\n" for number in range(100_000))
    assert len(load(ROUTE + fields).problems) == 50


ENTRIES = range(1, 65)
LISTENERS = ", ".join(
    f"{{name: l{n}, port: {n}, protocol: HTTPS, hostname: a{n}.b, tls: {{certificateRefs: [{{name: c}}]}}}}" for n in ENTRIES
)
MATCHES = ", ".join(f"{{path: {{value: /{n}}}, headers: [{{name: h, value: v}}]}}" for n in range(8))
RULES = ", ".join([f"{{matches: [{MATCHES}], backendRefs: [{{name: b, port: 80}}]}}"] * 16)
PARENTS = ", ".join(f"{{name: g{n}}}" for n in range(32))
PORTS = ", ".join(f"{{name: p{n}, port: {n + 1}}}" for n in range(1_000))
ADDRESSES = ", ".join(["{addresses: [10.0.0.1]}"] * 1_000)


@pytest.mark.parametrize(
    ("api_version", "kind", "body"),
    [
        ("gateway.networking.k8s.io/v1", "Gateway", f"spec: {{gatewayClassName: c, listeners: [{LISTENERS}]}}"),
        ("gateway.networking.k8s.io/v1", "ListenerSet", f"spec: {{parentRef: {{name: g}}, listeners: [{LISTENERS}]}}"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", f"spec: {{parentRefs: [{PARENTS}], rules: [{RULES}]}}"),
        ("v1", "Service", f"spec: {{ports: [{PORTS}]}}"),
        ("discovery.k8s.io/v1", "EndpointSlice", f"addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{ADDRESSES}]"),
    ],
)
def test_the_largest_objects_that_kubernetes_takes_are_taken(api_version: str, kind: str, body: str) -> None:
    assert problems(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n{body}\n") == []


_TAKEN = (
    "Content-Length host transfer-encoding Connection te upgrade expect cookie Authorization accept proxy-authorization"
    " x-forwarded-for X-Envoy-Retry-On x-gateway-destination-endpoint"
)


@pytest.mark.parametrize("header", _TAKEN.split())
def test_the_model_is_not_written_into_a_header_with_another_meaning(header: str) -> None:
    (problem,) = problems(_CLASS_CONFIG.format(header))
    assert f'spec.inference.modelHeader: "{header}" is refused: ' in problem
    assert "such as x-model-id" in problem


@pytest.mark.parametrize("header", [":authority", ":path", "x model"])
def test_the_models_header_is_a_header(header: str) -> None:
    (problem,) = problems(_CLASS_CONFIG.format(f'"{header}"'))
    assert f'spec.inference.modelHeader: "{header}" is not a header name' in problem


@pytest.mark.parametrize("header", ["X-Model", "x-gateway-model-name", "model", "host-model", "x-accept"])
def test_any_other_header_may_be_the_models(header: str) -> None:
    config = only(_CLASS_CONFIG.format(header))
    assert isinstance(config, GatewayClassConfig)
    assert config.spec.inference.model_header == header


_CLASS_CONFIG = """\
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {{name: c}}
spec: {{inference: {{modelHeader: {}}}}}
"""
