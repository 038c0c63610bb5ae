"""Manifests and what is made of them, as pairs of files: `<noun>/x.in.yaml` -> `<noun>/x.out.yaml`.

Outputs are rewritten by `pytest tests/golden --rewrite-goldens`; read the difference before it is committed.
"""

from pathlib import Path

import pytest

from gateway_class import GATEWAY_CLASS
from golden.material import with_material
from golden.rendering import render
from gwanmun.api.load import load_text
from gwanmun.names import ObjectKey
from gwanmun.resolve.model import Resolution, resolve
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import key_of

HERE = Path(__file__).parent
INPUTS = sorted(HERE.glob("*/*.in.yaml"))
CLASS = GATEWAY_CLASS
"""The class that inputs may use without declaring it; it is not shown."""


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name.removesuffix('.in.yaml')}")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    found = render(resolve_text(path.read_text(), path.name))
    output = path.with_name(path.name.replace(".in.", ".out."))
    if request.config.getoption("rewrite_goldens"):
        output.write_text(found)
    assert output.exists(), "no output yet: run with --rewrite-goldens"
    assert found == output.read_text()


def test_every_output_has_an_input() -> None:
    outputs = {path.name.replace(".out.", ".in.") for path in HERE.glob("*/*.out.yaml")}
    assert outputs <= {path.name for path in INPUTS}


def resolve_text(text: str, name: str) -> Resolution:
    """What is made of manifests; they have to be valid for an API server."""
    loaded = [load_text(text, name) for text in (CLASS, with_material(text))]
    assert not [str(problem) for result in loaded for problem in result.problems if problem.severity == "error"]
    snapshot, _ = Snapshot().apply({key_of(found.object): found.object for result in loaded for found in result.objects})
    resolution = resolve(snapshot)
    hidden = ObjectKey("gateway.networking.k8s.io", "GatewayClass", "", "gwanmun")
    return Resolution(resolution.model, {key: status for key, status in resolution.statuses.items() if key != hidden})
