"""The bootstrap: accepted by Envoy itself, and equal where its options are."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path, PurePath

import pytest
import trustme

from gwanmun.infra.bootstrap import (
    BootstrapOptions,
    XdsEndpoint,
    bootstrap,
    ca_secret_file,
    fingerprint,
    serialize_bootstrap,
    token_secret_file,
)
from gwanmun.protos import envoy_path, from_dict, to_dict

SMALL = BootstrapOptions("gw", PurePath("/run/admin.sock"), PurePath("/run/xds.sock"))
FULL = BootstrapOptions("gw", 9901, PurePath("/run/xds.sock"), node_cluster="edge", zone="seoul-a", max_connections=1000)
REMOTE = BootstrapOptions(
    "gw",
    PurePath("/run/admin.sock"),
    XdsEndpoint("gwanmun.infra.svc", 18000, "gwanmun.infra.svc", PurePath("/run/ca.json"), PurePath("/run/token.json")),
    max_heap_bytes=1 << 30,
    metadata={"node": "n1"},
    json_logs=True,
)


@pytest.mark.envoy
@pytest.mark.parametrize("options", [SMALL, FULL])
def test_envoy_accepts_it(options: BootstrapOptions, tmp_path: Path) -> None:
    config = tmp_path / "bootstrap.json"
    config.write_bytes(serialize_bootstrap(bootstrap(options)))
    done = subprocess.run(
        [envoy_path(), "--mode", "validate", "-c", config, "-l", "warning"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr


def test_every_field_is_one_of_envoys() -> None:
    document = bootstrap(FULL)
    assert to_dict(from_dict("envoy.config.bootstrap.v3.Bootstrap", document))["node"]["locality"] == {"zone": "seoul-a"}


def test_half_a_configuration_is_never_served() -> None:
    sources = bootstrap(SMALL)["dynamic_resources"]
    assert sources["cds_config"]["initial_fetch_timeout"] == sources["lds_config"]["initial_fetch_timeout"] == "0s"


def test_only_its_owner_can_reach_the_admin_socket() -> None:
    assert bootstrap(SMALL)["admin"]["address"] == {"pipe": {"path": "/run/admin.sock", "mode": 0o600}}
    assert bootstrap(FULL)["admin"]["address"] == {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}


BACKENDS = ("cluster.ai/chat_80", "cluster.ai/a.b_80|kind=Backend=gwanmun.dev", "cluster.ai/chat_80|identity=ai/internal")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_the_statistics_that_tell_how_it_does(backend: str) -> None:
    for name in ("upstream_rq_2xx", "upstream_rq_503", "upstream_rq_time", "upstream_rq_active", "membership_healthy"):
        assert kept(f"{backend}.{name}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_none_that_nobody_needs(backend: str) -> None:
    for name in (
        "external.upstream_rq_200",
        "internal.upstream_rq_time",
        "upstream_cx_length_ms",
        "upstream_cx_connect_ms",
        "lb_zone_routing_sampled",
        "circuit_breakers.high.rq_open",
    ):
        assert not kept(f"{backend}.{name}")


def kept(statistic: str) -> bool:
    patterns = bootstrap(SMALL)["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    return any(re.fullmatch(pattern["safe_regex"]["regex"], statistic) for pattern in patterns)


def test_fingerprints_tell_parts_apart() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert fingerprint(serialize_bootstrap(bootstrap(SMALL))) == fingerprint(serialize_bootstrap(bootstrap(SMALL)))
    assert fingerprint(serialize_bootstrap(bootstrap(SMALL))) != fingerprint(serialize_bootstrap(bootstrap(FULL)))


@pytest.mark.envoy
@pytest.mark.parametrize("host", ["gwanmun.infra.svc", "192.0.2.7", "2001:db8::7"])
def test_envoy_accepts_a_control_plane_elsewhere(host: str, tmp_path: Path) -> None:
    assert isinstance(REMOTE.xds_socket, XdsEndpoint)
    token, ca = tmp_path / "token.json", tmp_path / "ca.json"
    token.write_bytes(token_secret_file("abc"))
    ca.write_bytes(ca_secret_file(trustme.CA().cert_pem.bytes().decode()))
    endpoint = replace(REMOTE.xds_socket, host=host, ca_secret=ca, token_secret=token)
    test_envoy_accepts_it(replace(REMOTE, xds_socket=endpoint), tmp_path)


def test_a_control_plane_elsewhere_is_known_by_its_name_and_authority() -> None:
    cluster = bootstrap(REMOTE)["static_resources"]["clusters"][0]
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "gwanmun.infra.svc"
    names = tls["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert names["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "gwanmun.infra.svc"}}]
    from_dict("envoy.config.bootstrap.v3.Bootstrap", bootstrap(REMOTE))
