"""Which keys are refused by how they are written down: just those that Envoy would not read."""

import json
import subprocess
from pathlib import Path

import pytest

from gwanmun.names import ObjectKey
from gwanmun.protos import envoy_path
from resolve.given import given

pytestmark = [pytest.mark.shell, pytest.mark.envoy]

RSA = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
EC = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt"]
SIGN = ["req", "-x509", "-days", "30", "-subj", "/CN=a.example.com"]


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def pair(directory: Path, key: list[str], *, written: list[str] | None = None, signed: list[str] | None = None) -> None:
    """A key, written anew as `written` says after its certificate is made."""
    openssl(directory, *key, "-out", "key")
    openssl(directory, *SIGN, *(signed or []), "-key", "key", "-out", "crt")
    if written is not None:
        openssl(directory, *written, "-in", "key", "-out", "other")
        (directory / "other").replace(directory / "key")


def envoy_takes(directory: Path) -> bool:
    """Whether Envoy would start with this certificate."""
    material = {"certificate_chain": {"filename": "crt"}, "private_key": {"filename": "key"}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    tls = {"@type": kind, "common_tls_context": {"tls_certificates": [material]}}
    proxying = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    to_nobody = {"name": "tcp", "typed_config": {"@type": proxying, "stat_prefix": "tcp", "cluster": "nobody"}}
    listener = {
        "name": "tls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [to_nobody], "transport_socket": {"name": "tls", "typed_config": tls}}],
    }
    document = {"static_resources": {"listeners": [listener], "clusters": [{"name": "nobody"}]}}
    command = [str(envoy_path()), "--mode", "validate", "-l", "error", "--config-yaml", json.dumps(document)]
    return subprocess.run(command, cwd=directory, check=False, capture_output=True).returncode == 0


def problem(directory: Path) -> str | None:
    """What the Gateway says of a listener with this certificate, None where nothing is wrong."""
    data = {"tls.crt": (directory / "crt").read_text(), "tls.key": (directory / "key").read_text()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "ai"}, "stringData": data}
    resolution = given(
        """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]
---
"""
        + json.dumps({**secret, "type": "kubernetes.io/tls"})
    )
    status = resolution.statuses[ObjectKey("gateway.networking.k8s.io", "Gateway", "ai", "gw")]
    (listener,) = status.listeners
    (resolved,) = [found for found in listener.conditions if found.type == "ResolvedRefs"]
    return resolved.message if resolved.reason == "InvalidCertificateRef" else None


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (RSA, None),
        (["genpkey", "-algorithm", "ED25519"], None),
        ([*EC, "ec_param_enc:named_curve"], None),
        ([*EC, "ec_param_enc:named_curve"], ["ec", "-param_enc", "explicit"]),
        ([*EC, "ec_param_enc:named_curve"], ["ec", "-conv_form", "compressed"]),
    ],
)
def test_a_key_that_envoy_reads_is_taken(tmp_path: Path, key: list[str], written: list[str] | None) -> None:
    pair(tmp_path, key, written=written)
    assert problem(tmp_path) is None
    assert envoy_takes(tmp_path)


def test_a_signature_with_pss_is_no_key_for_pss(tmp_path: Path) -> None:
    pair(tmp_path, RSA, signed=["-sigopt", "rsa_padding_mode:pss"])
    assert problem(tmp_path) is None
    assert envoy_takes(tmp_path)


@pytest.mark.parametrize(
    ("key", "written", "fix"),
    [
        (["genpkey", "-algorithm", "RSA-PSS"], None, "openssl genpkey -algorithm RSA"),
        ([*EC, "ec_param_enc:explicit"], None, "openssl ec -param_enc named_curve"),
        ([*EC, "ec_param_enc:explicit"], ["ec", "-param_enc", "named_curve"], "openssl ec -param_enc named_curve"),
    ],
)
def test_a_key_that_envoy_cannot_read_is_refused(tmp_path: Path, key: list[str], written: list[str] | None, fix: str) -> None:
    pair(tmp_path, key, written=written)
    assert not envoy_takes(tmp_path)
    message = problem(tmp_path)
    assert message is not None
    assert fix in message
