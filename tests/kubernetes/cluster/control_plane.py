"""The command lines of etcd, the API server, the controller manager and the scheduler. Pure; `supervisor` runs them.

The flags that are there for a reason: no fsync, because nothing outlives the cluster; node life cycle and taint eviction
off, because one agent speaks for all nodes and sends no heartbeats; credentials per controller, because the controller
manager's own user may not touch most of what it manages.
"""

from __future__ import annotations

from pathlib import Path

from .network import HOST_ADDRESS, SERVICE_RANGE

_ETCD = "http://127.0.0.1:2379"
_ETCD_PEER = "http://127.0.0.1:2380"
_CONTROLLERS_LEFT_OUT = (
    "node-lifecycle-controller",
    "node-ipam-controller",
    "node-route-controller",
    "cloud-node-lifecycle-controller",
    "service-lb-controller",
    "taint-eviction-controller",
)


def commands(programs: Path, state: Path) -> dict[str, list[str]]:
    """By name, in the order in which they are started."""
    pki = state / "pki"
    return {
        "etcd": [
            str(programs / "etcd"),
            f"--data-dir={state / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEER}",
            f"--initial-advertise-peer-urls={_ETCD_PEER}",
            f"--initial-cluster=default={_ETCD_PEER}",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            str(programs / "kube-apiserver"),
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={HOST_ADDRESS}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'sa.key'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--authorization-mode=Node,RBAC",
            f"--kubelet-client-certificate={pki / 'kube-apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kube-apiserver-kubelet-client.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        ],
        "kube-controller-manager": [
            str(programs / "kube-controller-manager"),
            *_identity(pki, "kube-controller-manager"),
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            "--controllers=" + ",".join(["*", *(f"-{name}" for name in _CONTROLLERS_LEFT_OUT)]),
            "--concurrent-deployment-syncs=10",
            "--concurrent-endpoint-syncs=10",
            "--concurrent-namespace-syncs=20",
        ],
        "kube-scheduler": [
            str(programs / "kube-scheduler"),
            *_identity(pki, "kube-scheduler"),
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        ],
    }


def _identity(pki: Path, name: str) -> list[str]:
    kubeconfig = pki / f"{name}.kubeconfig"
    return [f"--{flag}kubeconfig={kubeconfig}" for flag in ("", "authentication-", "authorization-")]
