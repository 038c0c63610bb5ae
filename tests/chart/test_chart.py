"""The Helm chart, by real helm: linted, rendered as `golden/x.yaml`, and closed to values that it does not know.

Goldens are rewritten by `pytest tests/chart --rewrite-goldens`; read the difference before it is committed. Each test needs
the helm binary, from $HELM, the PATH or the test cluster's programs (`make cluster` builds it).
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwanmun.api.kinds import MADE_KINDS
from gwanmun.app.bundle import CRDS
from gwanmun.app.controller import lease_name

pytestmark = pytest.mark.helm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "gwanmun"
SPECIFICATION = HERE / "specification-values.yaml"
SPECIFICATIONS_FLAGS = {
    "controller.replicaCount": "2",
    "controller.resources.requests.cpu": "500m",
    "controller.resources.requests.memory": "512Mi",
    "controller.resources.limits.cpu": "1000m",
    "controller.resources.limits.memory": "1Gi",
    "metrics.enabled": "true",
    "metrics.serviceMonitor.enabled": "true",
}
RENDERED: dict[str, list[str]] = {
    "default": [],
    "specification": ["--values", str(SPECIFICATION)],
    "flags": [word for name, value in SPECIFICATIONS_FLAGS.items() for word in ("--set", f"{name}={value}")],
    "namespaced": [
        *("--set", "controller.watchNamespaces={team-a,team-b}"),
        *("--set", "image.digest=sha256:" + "0" * 64),
        *("--set", "imagePullSecrets={registry}"),
        *("--set", "xds.tlsSecretName=xds-tls"),
        *("--set", "metrics.enabled=false"),
        *("--set", "networkPolicy.enabled=false"),
        *("--set", "serviceAccount.create=false,serviceAccount.name=mine"),
        *("--set", "kgateway.gatewayClass=true,gatewayClass.parametersRef=tuned"),
    ],
}


@cache
def helm_binary() -> str:
    built = sorted(ROOT.glob("tests/kubernetes/cluster/bin/*/helm"), key=lambda path: path.stat().st_mtime)
    found = os.environ.get("HELM") or shutil.which("helm") or (str(built[-1]) if built else None)
    assert found, "no helm: set HELM, put it on the PATH, or leave these tests out with -m 'not helm'"
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm_binary(), *arguments], capture_output=True, text=True, check=False, timeout=60)


def render(*arguments: str) -> list[dict[str, Any]]:
    done = helm("template", "gwanmun", str(CHART), "--namespace", "gwanmun-system", *arguments)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found]


def of_kind(kind: str, documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


@pytest.mark.parametrize("arguments", RENDERED.values(), ids=RENDERED)
def test_lint(arguments: list[str]) -> None:
    done = helm("lint", "--strict", str(CHART), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RENDERED)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    documents = render(*RENDERED[name])
    shown = [document for document in documents if document["kind"] != "CustomResourceDefinition"]
    found = yaml.dump_all(shown, Dumper=yaml.CSafeDumper, sort_keys=False, width=124)
    golden = HERE / "golden" / f"{name}.yaml"
    if request.config.getoption("rewrite_goldens"):
        golden.write_text(found)
    assert golden.exists(), "no golden yet: run with --rewrite-goldens"
    assert found == golden.read_text()


def test_it_brings_the_crds_that_the_package_validates_with() -> None:
    done = helm("show", "crds", str(CHART))
    shown = {found["metadata"]["name"] for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found}
    ours = {
        yaml.load(path.read_bytes(), yaml.CSafeLoader)["metadata"]["name"]
        for path in (ROOT / "src/gwanmun/api/crds").glob("*.yaml")
    }
    assert shown == ours


def test_our_kinds_are_there_under_kgateways_group_too() -> None:
    crds = {found["metadata"]["name"]: found for found in render() if found["kind"] == "CustomResourceDefinition"}
    config = crds["gatewayclassconfigs.kgateway.dev"]
    assert config["spec"]["group"] == "kgateway.dev"
    assert config["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [found for found in render("--set", "kgateway.crds=false") if found["kind"] == "CustomResourceDefinition"]


def test_a_package_of_it_is_whole(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    assert helm("show", "crds", str(package)).stdout == helm("show", "crds", str(CHART)).stdout
    assert helm("template", "x", str(package)).stdout == helm("template", "x", str(CHART)).stdout


def test_the_specifications_values_are_in_force() -> None:
    documents = render(*RENDERED["specification"])
    deployment = of_kind("Deployment", documents)["spec"]
    pod = deployment["template"]["spec"]
    assert deployment["replicas"] == 2
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"cpu": "1000m", "memory": "1Gi"},
    }
    (term,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selected = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selected.items() <= deployment["template"]["metadata"]["labels"].items()
    monitor = of_kind("ServiceMonitor", documents)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"][0]["interval"] == "15s"
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert environment["GWANMUN_CERTIFICATE_ISSUER"] == "ClusterIssuer/letsencrypt-prod"
    assert environment["GWANMUN_LOG_LEVEL"] == "info"
    assert environment["GWANMUN_LOG_FORMAT"] == "json"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("controler.replicaCount=2", "controler"),
        ("controller.replicas=2", "replicas"),
        ("controller.replicaCount=two", "replicaCount"),
        ("metrics.serviceMonitor.enable=true", "enable"),
        ("metrics.port=80", "port"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("logging.level=loud", "level"),
        ("logging.format=xml", "format"),
        ("tls.certManager.issuer=x", "issuer"),
        ("image.digest=latest", "digest"),
        ("proxy.image.pullPolicy=Sometimes", "pullPolicy"),
        ("gatewayClass.name=", "name"),
    ],
)
def test_unknown_and_wrong_values_are_refused_by_name(value: str, named: str) -> None:
    done = helm("template", "gwanmun", str(CHART), "--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_cert_manager_without_an_issuer_is_refused() -> None:
    done = helm("template", "gwanmun", str(CHART), "--set", "tls.certManager.enabled=true")
    assert done.returncode != 0
    assert "tls.certManager.issuerRef.name has to be set" in done.stderr


def test_two_servers_on_one_port_are_refused() -> None:
    done = helm("template", "gwanmun", str(CHART), "--set", "xds.port=9090")
    assert done.returncode != 0
    assert "xds.port and metrics.port are both 9090; they have to be two ports of one pod" in done.stderr


def test_every_value_is_in_the_schema_and_described_in_the_reference() -> None:
    reference = (ROOT / "docs/reference/helm-values.md").read_text()
    values = yaml.load((CHART / "values.yaml").read_bytes(), yaml.CSafeLoader)
    missing = [path for path in paths(values) if f"`{path}`" not in reference]
    assert missing == []


def paths(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The leaves, as one writes them after --set."""
    found = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        found += paths(value, f"{path}.") if isinstance(value, dict) and value else [path]
    return found


@pytest.mark.parametrize("name", RENDERED)
def test_pods_are_restricted(name: str) -> None:
    pod = of_kind("Deployment", render(*RENDERED[name]))["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_proxies_have_network_policies_where_controllers_have_one() -> None:
    for arguments, wanted in (((), True), (("--set", "networkPolicy.enabled=false"), False)):
        documents = render(*arguments)
        container = of_kind("Deployment", documents)["spec"]["template"]["spec"]["containers"][0]
        assert any(one["kind"] == "NetworkPolicy" for one in documents) is wanted
        assert ({"name": "GWANMUN_PROXY_NETWORK_POLICY", "value": "true"} in container["env"]) is wanted


def test_releases_of_one_namespace_elect_a_leader_each() -> None:
    deployment = of_kind("Deployment", render())
    variables = {one["name"]: one.get("value") for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    granted = [
        name
        for found in render()
        if found["kind"] == "Role"
        for rule in found["rules"]
        if "leases" in rule["resources"]
        for name in rule.get("resourceNames", ())
    ]
    assert granted == [lease_name(str(variables["GWANMUN_INSTANCE"]))]


def test_rights_are_no_more_than_named() -> None:
    roles = [found for found in render() if found["kind"] in ("ClusterRole", "Role")]
    rules = [rule for role in roles for rule in role["rules"]]
    assert not [rule for rule in rules if any("*" in word for field in rule.values() for word in field)]
    for rule in rules:
        if "secrets" in rule["resources"] and {"update", "patch", "delete"} & set(rule["verbs"]):
            assert rule["resourceNames"] == ["gwanmun-xds-ca"]
        if "customresourcedefinitions" in rule["resources"]:
            assert (rule["verbs"], tuple(rule["resourceNames"])) == (["get"], CRDS)
    for_namespaces = of_kind("ClusterRole", render(*RENDERED["namespaced"]))
    reading = {resource for rule in for_namespaces["rules"] for resource in rule["resources"]}
    assert "secrets" not in reading
    assert "deployments" not in reading


@pytest.mark.parametrize("name", RENDERED)
def test_what_was_made_may_be_followed_and_deleted_when_it_is_not_wanted_any_more(name: str) -> None:
    rules = [rule for found in render(*RENDERED[name]) if found["kind"] in ("ClusterRole", "Role") for rule in found["rules"]]
    for kind in MADE_KINDS:
        granted = {
            verb
            for rule in rules
            if kind.group in rule["apiGroups"] and kind.plural in rule["resources"]
            for verb in rule["verbs"]
        }
        assert {"get", "list", "watch", "delete"} <= granted, kind.kind
