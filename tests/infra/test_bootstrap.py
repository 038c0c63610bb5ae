"""The bootstrap: accepted by Envoy itself, and equal where its options are."""

import subprocess
from pathlib import Path, PurePath

import pytest

from gwanmun.infra.bootstrap import BootstrapOptions, bootstrap, fingerprint, serialize_bootstrap
from gwanmun.protos import envoy_path, from_dict, to_dict

SMALL = BootstrapOptions("gw", PurePath("/run/admin.sock"), PurePath("/run/xds.sock"))
FULL = BootstrapOptions("gw", 9901, PurePath("/run/xds.sock"), node_cluster="edge", zone="seoul-a", max_connections=1000)


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


def test_fingerprints_tell_parts_apart() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert fingerprint(serialize_bootstrap(bootstrap(SMALL))) == fingerprint(serialize_bootstrap(bootstrap(SMALL)))
    assert fingerprint(serialize_bootstrap(bootstrap(SMALL))) != fingerprint(serialize_bootstrap(bootstrap(FULL)))
