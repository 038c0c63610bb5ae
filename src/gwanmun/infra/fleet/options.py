"""What an installation of gwanmun tells the fleets that it runs."""

from dataclasses import dataclass, field
from datetime import timedelta

from gwanmun.api.gwanmun_v1alpha1 import ResourceRequirements

DEFAULT_RESOURCES = ResourceRequirements(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"})


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """`instance` names the installation: what another one made is never touched.

    `xds_address` is "host:port" of the control plane, `xds_server_name` what its certificate is for and `xds_ca` the
    authorities that may have signed it (PEM). `replicas`, `resources` and `drain` hold where no GatewayClassConfig says
    otherwise. `log_level` is Envoy's; `log_format` is json or text. `network_policy`: only what proxies serve can be reached.
    """

    image: str
    xds_address: str
    xds_server_name: str
    xds_ca: str
    instance: str = "gwanmun"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    replicas: int = 2
    resources: ResourceRequirements = field(default_factory=lambda: DEFAULT_RESOURCES)
    drain: timedelta = timedelta(minutes=5)
    log_level: str = "warning"
    log_format: str = "json"
    network_policy: bool = False
