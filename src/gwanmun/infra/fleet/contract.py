"""What a proxy's pod and the program in it agree on: paths, the token's audience, variables. Pure.

Whoever translates for a fleet also reads it: the module is at `MODULE_FILE` in every pod.
"""

from pathlib import PurePosixPath
from typing import Final

TOKEN_AUDIENCE: Final = "gwanmun-xds"  # noqa: S105 (who a token is for, not a token)
"""Whom the tokens are for that proxies show to the control plane."""

RUN_DIRECTORY: Final = PurePosixPath("/run/gwanmun")
"""The only folder that the proxy writes to; in memory, and gone with the pod."""
MODULE_NAME: Final = "libgwanmun.so"
MODULE_FILE: Final = RUN_DIRECTORY / MODULE_NAME
"""Where Envoy finds the native module in a pod: a link to where the image has it."""

TOKEN_FILE: Final = PurePosixPath("/var/run/secrets/gwanmun.dev/xds/token")
"""The token, as the kubelet keeps it fresh."""
CA_FILE: Final = PurePosixPath("/etc/gwanmun/xds/ca.crt")
"""The authorities of the control plane's certificate."""

XDS_ADDRESS: Final = "GWANMUN_XDS_ADDRESS"
XDS_SERVER_NAME: Final = "GWANMUN_XDS_SERVER_NAME"
GATEWAY: Final = "GWANMUN_GATEWAY"
POD_NAME: Final = "GWANMUN_POD_NAME"
NODE_NAME: Final = "GWANMUN_NODE_NAME"
ZONE: Final = "GWANMUN_ZONE"
CONCURRENCY: Final = "GWANMUN_CONCURRENCY"
MEMORY_BYTES: Final = "GWANMUN_MEMORY_BYTES"
SETTLE_SECONDS: Final = "GWANMUN_SETTLE_SECONDS"
DRAIN_SECONDS: Final = "GWANMUN_DRAIN_SECONDS"
LOG_LEVEL: Final = "GWANMUN_LOG_LEVEL"
LOG_FORMAT: Final = "GWANMUN_LOG_FORMAT"

GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
FLEET_LABEL: Final = "gwanmun.dev/fleet"
"""Which installation of gwanmun made an object: several may share a cluster, and each deletes its own only."""
PROVISIONAL: Final = "gwanmun.dev/provisional"
"""Marks what was made with defaults, as the parameters that it should be made with could not be read."""
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "gwanmun"}
