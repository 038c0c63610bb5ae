"""Manifests from a Kubernetes API server: `replica` is the pure machine of one kind, `provider` the loop around all."""

from gwanmun.providers.kubernetes.provider import Batch, KubernetesOptions, KubernetesProvider, WatchStats, metadata_of

__all__ = ["Batch", "KubernetesOptions", "KubernetesProvider", "WatchStats", "metadata_of"]
