"""What is kept of objects of an API server."""

from typing import Any

from gwanmun.api import Pod
from gwanmun.api.decode import decode_object
from gwanmun.api.kinds import KINDS
from gwanmun.providers.kubernetes.trim import present, trimmed


def pod(**changes: Any) -> Pod:
    """As a kubelet reports it."""
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z", "lastProbeTime": None},
    ]
    found = decode_object(
        {
            "metadata": {"name": "p", "namespace": "a", "labels": {"app": "vllm"}, "resourceVersion": "1", **changes},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions},
        },
        KINDS["", "Pod"],
    )
    assert isinstance(found, Pod)
    return found


def test_a_pod_is_kept_as_pools_see_it() -> None:
    kept = trimmed(pod(annotations={"checksum": "x" * 1000}, ownerReferences=[{"apiVersion": "v1", "kind": "X", "name": "x"}]))
    assert isinstance(kept, Pod)
    assert kept.metadata.labels == {"app": "vllm"}
    assert (kept.spec.node_name, kept.status.pod_ip, kept.status.phase) == ("node-1", "10.0.0.1", "Running")
    assert [(one.type, one.status) for one in kept.status.conditions] == [("Ready", "True")]


def test_who_wrote_a_status_is_for_its_writer_alone() -> None:
    managed = [{"manager": "kubectl"}, {"manager": "one", "subresource": "status", "fieldsV1": {"f:status": {}}}]
    spec = {"gatewayClassName": "gwanmun", "listeners": []}
    metadata = {"name": "gw", "namespace": "ai", "resourceVersion": "2", "managedFields": managed}
    written = decode_object({"metadata": metadata, "spec": spec}, KINDS["gateway.networking.k8s.io", "Gateway"])
    unwritten = decode_object(
        {"metadata": {"name": "gw", "namespace": "ai"}, "spec": spec}, KINDS["gateway.networking.k8s.io", "Gateway"]
    )
    assert trimmed(written) == trimmed(unwritten)
    found = present(written)
    assert found is not None
    assert found.authors == {"one"}


def test_what_a_kubelet_writes_now_and_then_is_no_change() -> None:
    later = trimmed(pod(resourceVersion="2", annotations={"cni": "10.0.0.1/32"}))
    assert later == trimmed(pod())
    assert trimmed(pod(deletionTimestamp="2026-01-01T00:01:00Z")) != trimmed(pod())
