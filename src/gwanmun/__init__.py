"""Gwanmun: an inference gateway. The Kubernetes Gateway API for AI model serving, on Envoy."""
