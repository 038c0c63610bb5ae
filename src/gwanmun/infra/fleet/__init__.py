"""Proxies on Kubernetes: the objects of each Gateway's fleet, and applying them."""

from gwanmun.infra.fleet.objects import fleet_objects
from gwanmun.infra.fleet.options import FleetOptions

__all__ = ["FleetOptions", "fleet_objects"]
