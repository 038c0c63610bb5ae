"""What broken files said before: kept for who takes Envoy over, for nobody else to read, and gone when it is not needed."""

import pytest

from gwanmun.api.load import load_text
from gwanmun.infra import launch
from gwanmun.infra.ending import clear
from gwanmun.infra.kept import read_kept, write_kept
from gwanmun.infra.rundir import RunDir

MANIFEST = """\
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: a}
stringData: {password: hunter2}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: gw}], rules: [{timeouts: {request: 10s}, matches: [{path: {value: /a}}]}]}
---
apiVersion: kgateway.dev/v1alpha1
kind: GatewayClassConfig
metadata: {name: c}
spec: {inference: {maxRequestBytes: 1Mi}}
"""
OBJECTS = tuple(item.object for item in load_text(MANIFEST, "a.yaml").objects)


@pytest.fixture
def adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_envoys", lambda _: [object()])


@pytest.mark.usefixtures("adopted")
def test_objects_come_back_as_they_were(rundir: RunDir) -> None:
    assert len(OBJECTS) == 3
    write_kept(rundir, {"/m/a.yaml": OBJECTS})
    assert read_kept(rundir) == {"/m/a.yaml": OBJECTS}
    assert (rundir.path / "kept.json").stat().st_mode & 0o777 == 0o600
    write_kept(rundir, {})
    assert not (rundir.path / "kept.json").exists()


@pytest.mark.usefixtures("adopted")
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"a.yaml": [["", "Unknown", {}]]}', b'{"a.yaml": [["", "Secret", []]]}']
)
def test_what_cannot_be_read_counts_as_nothing(rundir: RunDir, content: bytes) -> None:
    rundir.write("kept.json", content)
    assert read_kept(rundir) == {}


def test_without_an_envoy_nothing_counts_and_its_end_removes_it(rundir: RunDir) -> None:
    write_kept(rundir, {"/m/a.yaml": OBJECTS})
    (rundir.path / ".kept.json.part").write_bytes(b"{")  # killed while it wrote
    assert read_kept(rundir) == {}
    clear(rundir)
    assert not list(rundir.path.glob("*kept*")) + list(rundir.path.glob(".kept*"))
