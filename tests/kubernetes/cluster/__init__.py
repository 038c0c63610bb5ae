"""A Kubernetes cluster for tests: a real control plane, and pods that are plain processes in network namespaces.

`build` makes etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, helm and the Gateway API suite from
their Go modules; `supervisor` runs them in namespaces of their own; `agent` is all the kubelets; `services` is kube-proxy,
cluster DNS and the load balancer; `api` is what tests use, `python -m tests.kubernetes.cluster` what people use.

Deliberately absent: container images, cgroups and limits, users and capabilities, exec and port-forward, IPv6, and
persistent volumes. What a pod may do here it may do because this user may.
"""

from .api import Cluster, ClusterError, ClusterOptions

__all__ = ["Cluster", "ClusterError", "ClusterOptions"]
