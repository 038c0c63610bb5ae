"""What is made for a Gateway, as pairs of files: `golden/x.in.yaml` -> `golden/x.out.yaml`.

Outputs are rewritten by `pytest tests/fleet --rewrite-goldens`; read the difference before it is committed.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from gwanmun.api import Gateway, GatewayClassConfig
from gwanmun.api.load import load_text
from gwanmun.api.meta import ManagedMeta
from gwanmun.infra.fleet import FleetOptions, fleet_objects
from gwanmun.infra.fleet.merge import merged
from gwanmun.infra.fleet.naming import dns_label, fleet_name, label_value
from gwanmun.infra.podports import PodPorts, pod_ports

INPUTS = sorted((Path(__file__).parent / "golden").glob("*.in.yaml"))
OPTIONS = FleetOptions(
    image="gwanmun-proxy:1.0",
    xds_address="gwanmun.gwanmun-system.svc:18000",
    xds_server_name="gwanmun.gwanmun-system.svc",
    xds_ca="(certificates)",
    instance="gwanmun-system.gwanmun",
)


def loaded(path: Path) -> tuple[Gateway, GatewayClassConfig | None]:
    found = load_text(path.read_text(), path.name)
    assert not [str(problem) for problem in found.problems if problem.severity == "error"]
    objects = [manifest.object for manifest in found.objects]
    gateway = next(found for found in objects if isinstance(found, Gateway))
    return gateway, next((found for found in objects if isinstance(found, GatewayClassConfig)), None)


def ports_of(gateway: Gateway) -> PodPorts:
    def transport(protocol: str) -> Literal["tcp", "udp"]:
        return "udp" if protocol == "UDP" else "tcp"

    return pod_ports({(listener.port, transport(listener.protocol)) for listener in gateway.spec.listeners})


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    gateway, config = loaded(path)
    objects = fleet_objects(gateway, config, ports_of(gateway), OPTIONS)
    found = yaml.dump_all(objects, Dumper=_NoAliases, sort_keys=False, width=124)
    output = path.with_name(path.name.replace(".in.", ".out."))
    if request.config.getoption("rewrite_goldens"):
        output.write_text(found)
    assert output.exists(), "no output yet: run with --rewrite-goldens"
    assert found == output.read_text()


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["proxy", "ClusterIP", "NodePort"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "type", "containers", "volumes", "env", "spec", "ports"]), inner, max_size=3)
    ),
    max_leaves=8,
)
OVERRIDES = st.dictionaries(st.sampled_from(["type", "ports", "containers", "volumes", "affinity"]), ANYTHING, max_size=3)


@given(OVERRIDES, OVERRIDES)
def test_there_is_no_override_that_it_stumbles_over(service: dict[str, Any], pod: dict[str, Any]) -> None:
    gateway, config = loaded(next(path for path in INPUTS if path.name.startswith("overrides")))
    assert config is not None
    proxy = config.spec.proxy
    proxy = replaced(proxy, service=replaced(proxy.service, spec=service), pod=replaced(proxy.pod, spec=pod))
    assert fleet_objects(gateway, replaced(config, spec=replaced(config.spec, proxy=proxy)), ports_of(gateway), OPTIONS)


def test_a_gateway_without_ports_keeps_what_costs_nothing() -> None:
    gateway, config = loaded(INPUTS[0])
    objects = fleet_objects(gateway, config, {}, OPTIONS)
    assert [found["kind"] for found in objects] == ["ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget"]
    assert objects[2]["spec"]["replicas"] == 0


def test_every_object_is_found_by_its_installation_and_goes_with_its_gateway() -> None:
    for path in INPUTS:
        gateway, config = loaded(path)
        for found in fleet_objects(gateway, config, ports_of(gateway), OPTIONS):
            metadata = found["metadata"]
            assert metadata["labels"]["gwanmun.dev/fleet"] == "gwanmun-system.gwanmun"
            assert metadata["namespace"] == gateway.metadata.namespace
            assert [owner["uid"] for owner in metadata["ownerReferences"]] == [gateway.metadata.uid]


def test_a_new_authority_restarts_no_proxy() -> None:
    gateway, config = loaded(INPUTS[0])
    before, after = (
        fleet_objects(gateway, config, ports_of(gateway), replace(OPTIONS, xds_ca=ca)) for ca in ("(old)", "(old and new)")
    )
    assert [old["kind"] for old, new in zip(before, after, strict=True) if old != new] == ["ConfigMap"]


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,80}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES)
def test_names_are_labels_of_dns_and_differ(one: str, other: str) -> None:
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", dns_label(one))
    assert re.fullmatch("[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", label_value(one))
    assert (dns_label(one) == dns_label(other)) == (label_value(one) == label_value(other)) == (one == other)


def test_an_ordinary_name_stays_as_it_is() -> None:
    gateway = replace_name("gw")
    assert fleet_name(gateway) == "gw-gwanmun"


def replace_name(name: str) -> Gateway:
    gateway, _ = loaded(INPUTS[0])
    return Gateway(metadata=ManagedMeta(name=name, namespace="ai"), spec=gateway.spec)


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": 1, "b": 2}, {"b": None, "c": {"d": None, "e": 1}}, {"a": 1, "c": {"e": 1}}),
        (
            [{"name": "a", "x": 1, "y": 1}],
            [{"name": "a", "x": 2}, {"name": "b"}],
            [{"name": "a", "x": 2, "y": 1}, {"name": "b"}],
        ),
        (["a"], ["b"], ["b"]),
        ([{"name": "a"}], ["b"], ["b"]),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
    ],
)
def test_merging(base: Any, over: Any, result: Any) -> None:
    assert merged(base, over) == result


def policy_of(name: str, ports: PodPorts | None = None) -> dict[str, Any]:
    gateway, config = loaded(next(path for path in INPUTS if path.name.startswith(name)))
    objects = fleet_objects(
        gateway, config, ports_of(gateway) if ports is None else ports, replace(OPTIONS, network_policy=True)
    )
    kinds = [one["kind"] for one in objects]
    assert "Service" not in kinds or kinds.index("NetworkPolicy") < kinds.index("Service")
    return next(one for one in objects if one["kind"] == "NetworkPolicy")


METRICS = {"from": [{"namespaceSelector": {}}], "ports": [{"port": 9090, "protocol": "TCP"}]}


def test_a_network_policy_lets_in_what_proxies_serve_and_nothing_else() -> None:
    gateway, _ = loaded(next(path for path in INPUTS if path.name.startswith("specification")))
    policy = policy_of("specification")
    listeners, metrics = policy["spec"]["ingress"]
    assert {(one["port"], one["protocol"]) for one in listeners["ports"]} == {
        (pod, transport.upper()) for (_, transport), pod in ports_of(gateway).items()
    }
    assert ("from" in listeners, metrics, policy["spec"]["policyTypes"]) == (False, METRICS, ["Ingress"])
    deployment = next(one for one in fleet_objects(gateway, None, {}, OPTIONS) if one["kind"] == "Deployment")
    assert policy["spec"]["podSelector"] == deployment["spec"]["selector"]


def test_without_a_port_only_metrics_are_let_in() -> None:
    assert policy_of("defaults", {})["spec"]["ingress"] == [METRICS]


def test_ports_of_containers_and_services_of_ones_own_are_let_in() -> None:
    text = """
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {name: more}
spec:
  proxy:
    pod: {spec: {containers: [{name: sidecar, image: x, ports: [{name: probe, containerPort: 7000}]}]}}
    service: {spec: {ports: [{name: more, port: 81, targetPort: probe}, {name: same, port: 5300, protocol: UDP}]}}
"""
    (config,) = (one.object for one in load_text(text, "more.yaml").objects)
    assert isinstance(config, GatewayClassConfig)
    gateway, _ = loaded(next(path for path in INPUTS if path.name.startswith("defaults")))
    objects = fleet_objects(gateway, config, {(80, "tcp"): 10080}, replace(OPTIONS, network_policy=True))
    policy = next(one for one in objects if one["kind"] == "NetworkPolicy")
    assert [(one["port"], one["protocol"]) for one in policy["spec"]["ingress"][0]["ports"]] == [
        (10080, "TCP"),
        (7000, "TCP"),
        ("probe", "TCP"),
        (5300, "UDP"),
    ]
