"""Manifests from a Kubernetes API server: `replica` is the pure machine of one kind, `provider` the loop around all."""

from gwanmun.providers.kubernetes.provider import Batch, KubernetesOptions, KubernetesProvider
from gwanmun.providers.kubernetes.trim import Present

__all__ = ["Batch", "KubernetesOptions", "KubernetesProvider", "Present"]
