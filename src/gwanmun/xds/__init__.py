"""The resolved model in Envoy's words: listeners, routes, clusters, endpoints and secrets, as serialized xDS resources.

`translate` is the way in. Deliberately absent: how resources reach Envoy (``xds_server``), and Kubernetes (``resolve``).
"""

from gwanmun.xds.options import Binding, Options, PortKey
from gwanmun.xds.translate import Translation, translate
from gwanmun.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET, Need, Problem

__all__ = [
    "CLUSTER",
    "ENDPOINTS",
    "LISTENER",
    "ROUTES",
    "SCOPED_ROUTES",
    "SECRET",
    "Binding",
    "Need",
    "Options",
    "PortKey",
    "Problem",
    "Translation",
    "translate",
]
