"""Talking to a Kubernetes API server: requests, and the Lease by which one of several controllers leads.

Deliberately absent: what is watched (``providers``), what is written (``status``, ``infra``), and any cache.
"""

from gwanmun.kube.client import UNREADABLE, ApiError, Connection, KubeClient, KubeConfigError, UnreachableError, connection
from gwanmun.kube.paths import collection_path, manifest_path, object_path
from gwanmun.kube.present import Present, authors_of_status

__all__ = [
    "UNREADABLE",
    "ApiError",
    "Connection",
    "KubeClient",
    "KubeConfigError",
    "Present",
    "UnreachableError",
    "authors_of_status",
    "collection_path",
    "connection",
    "manifest_path",
    "object_path",
]
