"""Whatever the golden manifests become, Envoy takes it."""

import json
import subprocess
from pathlib import Path

import pytest

import gwanmun
from golden.test_goldens import INPUTS, resolve_text
from gwanmun.ir import Model
from gwanmun.protos import envoy_path
from gwanmun.xds import Binding, Options, translate
from gwanmun.xds.static import static_bootstrap

MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"


def bound(model: Model, module: str | None) -> Options:
    """Every port on an address of its own."""
    ports = [(gateway.key, port.number, port.transport) for gateway in model.gateways.values() for port in gateway.ports]
    return Options(
        bindings={key: (Binding(f"127.0.1.{n}", 10000 + key[1] % 50000, key[1]),) for n, key in enumerate(ports, 1)},
        module_path=module,
        access_log="/dev/null",
        shard_threshold=4,
        shards=3,
    )


def validate(document: object, directory: Path) -> str:
    """What Envoy has against the configuration; nothing if it would run."""
    config = directory / "envoy.json"
    config.write_text(json.dumps(document))
    command = [envoy_path(), "--mode", "validate", "-c", config, "-l", "error"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else found.stdout + found.stderr


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name.removesuffix('.in.yaml')}")
def test_envoy_takes_every_golden(path: Path, tmp_path: Path) -> None:
    model = resolve_text(path.read_text(), path.name).model
    options = bound(model, str(MODULE) if MODULE.exists() else None)
    assert validate(static_bootstrap(translate(model, options)), tmp_path) == ""


def test_envoy_says_what_is_wrong(tmp_path: Path) -> None:
    assert "static_resource" in validate({"static_resource": {}}, tmp_path)
