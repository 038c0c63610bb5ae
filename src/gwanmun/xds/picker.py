"""Endpoint pickers, on the side of the cluster: requests go where the picker has said, and its word is kept.

The names are those of the Gateway API Inference Extension's endpoint picker protocol. Deliberately absent: how a picker is
asked (``filters.extproc``).
"""

from typing import Final

from gwanmun.ir import Picker
from gwanmun.xds.types import Fields, extension

NAMESPACE: Final = "envoy.lb"
"""Namespace of the metadata that pickers answer in and are told in."""

PICKED: Final = "x-gateway-destination-endpoint"
"""`ip:port,ip:port...`, both a header and a key of the metadata. Retries go down the list."""

SERVED: Final = "x-gateway-destination-endpoint-served"
"""The endpoint that a request was sent to at last, told to the picker along with the answer's headers."""

_POLICY: Final = "envoy.extensions.load_balancing_policies"


def picked_endpoints(picker: Picker) -> Fields:
    """The load balancing of a cluster whose picker is asked. Endpoints that are not the cluster's own are passed over; where
    none is left, any serves if the picker may be done without, else none does (503)."""
    override = extension(
        "envoy.load_balancing_policies.override_host",
        f"{_POLICY}.override_host.v3.OverrideHost",
        # A list in both is gone through once more.
        override_host_sources=[{"metadata": _key(PICKED)}, {"header": PICKED}],
        selected_host_key=_key(SERVED),
        fallback_policy=_policies(_least_request() if picker.fail_open else _nobody()),
    )
    return {"load_balancing_policy": _policies(override)}


def _least_request() -> Fields:
    return extension("envoy.load_balancing_policies.least_request", f"{_POLICY}.least_request.v3.LeastRequest")


def _nobody() -> Fields:
    """The subset of endpoints with a label that no endpoint has."""
    return extension(
        "envoy.load_balancing_policies.subset",
        f"{_POLICY}.subset.v3.Subset",
        fallback_policy="NO_FALLBACK",
        subset_selectors=[{"keys": ["nobody"]}],
        subset_lb_policy=_policies(_least_request()),
    )


def _policies(policy: Fields) -> Fields:
    return {"policies": [{"typed_extension_config": policy}]}


def _key(name: str) -> Fields:
    return {"key": NAMESPACE, "path": [{"key": name}]}
