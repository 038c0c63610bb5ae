"""Which release of the Gateway API is installed, and what a GatewayClass says of it."""

import json
from pathlib import Path
from typing import Any

import yaml
from structlog.testing import capture_logs

import gwanmun.api
from gwanmun.app.bundle import ANNOTATION, CRDS, SUPPORTED, Bundle
from gwanmun.kube import ApiError, UnreachableError
from gwanmun.status.surroundings import unsupported


class Cluster:
    """An API server that has these CRDs, by name with their releases; None: without the annotation."""

    def __init__(self, **others: str | None) -> None:
        self.versions: dict[str, str | None] = dict.fromkeys(CRDS, "v1.6.0") | {
            f"{plural}.gateway.networking.k8s.io": version for plural, version in others.items()
        }
        self.error: Exception | None = None

    async def get_metadata(self, path: str) -> Any:
        if self.error is not None:
            raise self.error
        name = path.removeprefix("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/")
        if name not in self.versions:
            raise ApiError(404, "NotFound", name)
        version = self.versions[name]
        return {"metadata": {"name": name, **({} if version is None else {"annotations": {ANNOTATION: version}})}}


async def looked(cluster: Cluster) -> str | None:
    bundle = Bundle(cluster, changed=lambda: None)
    await bundle.look()
    return bundle.problem


def test_what_is_supported_is_what_the_package_brings() -> None:
    folder = Path(gwanmun.api.__file__).parent / "crds"
    crds = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("gateway.networking.k8s.io_*.yaml"))]
    assert {one["metadata"]["annotations"][ANNOTATION].rpartition(".")[0] for one in crds} == {SUPPORTED}
    assert sorted(one["metadata"]["name"] for one in crds) == list(CRDS)


async def test_releases_of_the_same_minor_are_supported() -> None:
    assert await looked(Cluster(httproutes="v1.6.3", gateways="v1.6.1-rc.1")) is None


async def test_an_older_release_a_newer_one_and_none_are_named() -> None:
    problem = await looked(Cluster(httproutes="v1.4.1", gateways="v1.60.0", tlsroutes=None))
    assert problem is not None
    assert "httproutes.gateway.networking.k8s.io (v1.4.1)" in problem
    assert "gateways.gateway.networking.k8s.io (v1.60.0)" in problem
    assert f"tlsroutes.gateway.networking.k8s.io (no annotation {ANNOTATION})" in problem
    assert "grpcroutes" not in problem


async def test_what_cannot_be_read_counts_as_it_was() -> None:
    cluster, told = Cluster(httproutes="v1.4.1"), [0]

    def changed() -> None:
        told[0] += 1

    bundle = Bundle(cluster, changed=changed)
    await bundle.look()
    before = bundle.problem
    for cluster.error in (UnreachableError("away"), ApiError(500, "", "broken"), ApiError(403, "Forbidden", "no")):
        with capture_logs() as logs:
            await bundle.look()
            await bundle.look()
        assert bundle.problem == before
    assert [one["event"] for one in logs] == ["crds_unread"]
    assert "customresourcedefinitions" in logs[0]["grant"]
    cluster.error = None
    del cluster.versions["httproutes.gateway.networking.k8s.io"]
    await bundle.look()
    assert (bundle.problem, told[0]) == (None, 2)


def test_best_effort_is_accepted_and_not_supported() -> None:
    conditions = [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
        {"type": "SupportedVersion", "status": "True", "reason": "SupportedVersion", "message": ""},
    ]
    accepted, version = unsupported({"conditions": json.loads(json.dumps(conditions))}, "old")["conditions"]
    assert accepted == conditions[0]
    assert (version["status"], version["reason"], version["message"]) == ("False", "UnsupportedVersion", "old")
