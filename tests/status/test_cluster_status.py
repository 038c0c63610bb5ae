"""`status @`, `check @` and the like of clusters with Gateways of others, and of installations with names of their own."""

from pathlib import Path

import pytest

from gwanmun.api import Object
from gwanmun.app import cluster
from gwanmun.app.cluster import ClusterPicture, status_report
from gwanmun.app.errors import UserError
from gwanmun.app.offline import resolve_folders
from gwanmun.kube import Present
from gwanmun.names import ObjectKey
from gwanmun.providers import FolderProvider
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot

OURS = "gwanmun.dev/gateway-controller"
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai}
spec: {gatewayClassName: mesh, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
"""
MESH = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mesh}
spec: {controllerName: mesh.example/controller}
"""


def picture(folder: Path, manifests: str) -> ClusterPicture:
    (folder / "all.yaml").write_text(manifests)
    objects: dict[ObjectKey, Object] = {
        key: obj for key, obj in FolderProvider([folder]).scan().objects.items() if obj is not None
    }
    present = {key: Present("v1", "u", "1", 1, getattr(obj, "status", None)) for key, obj in objects.items()}
    return ClusterPicture(Snapshot().apply(objects)[0], present, ())


def test_gateways_of_others_alone_are_no_success(tmp_path: Path) -> None:
    report = status_report(picture(tmp_path, GATEWAY + MESH), frozenset({OURS}))
    assert not report["healthy"]
    assert report["problems"] == [
        f"no Gateway has a class of {OURS}; there are those of mesh (mesh.example/controller); "
        "give the name of the controller that is meant with --controller-name"
    ]


def test_a_class_that_is_not_there_is_named(tmp_path: Path) -> None:
    (problem,) = status_report(picture(tmp_path, GATEWAY), frozenset({OURS}))["problems"]
    assert "mesh (which is not there, or may not be read)" in problem


def test_the_controller_that_is_meant_can_be_named(tmp_path: Path) -> None:
    report = status_report(picture(tmp_path, GATEWAY + MESH), frozenset({"mesh.example/controller"}))
    assert not any("no Gateway" in problem for problem in report["problems"])
    assert {row["kind"] for row in report["objects"]} >= {"Gateway", "GatewayClass"}


def test_an_empty_cluster_is_all_right(tmp_path: Path) -> None:
    assert status_report(picture(tmp_path, MESH), frozenset({OURS}))["healthy"]


def test_what_others_serve_is_not_resolved_as_if_it_were_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = picture(tmp_path, GATEWAY + MESH)
    monkeypatch.setattr(cluster, "read_cluster", lambda _: seen)
    with pytest.raises(UserError, match=r"mesh\.example/controller"):
        resolve_folders([Path("@")])
    meant = resolve_folders([Path("@")], (), Settings(("mesh.example/controller",)))
    assert len(meant.resolution.model.gateways) == 1
