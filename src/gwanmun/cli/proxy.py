"""`gwanmun proxy`: what the proxy's container runs."""

import asyncio
import os

import typer


def proxy() -> None:
    """Run the Envoy of a Gateway inside a pod. Everything it has to know is in environment variables.

    GWANMUN_XDS_ADDRESS (host:port of the controller), GWANMUN_GATEWAY (namespace/name) and GWANMUN_POD_NAME have to be set;
    the objects that the controller makes for a Gateway set them. SIGTERM drains: new requests go elsewhere, and are taken for
    GWANMUN_SETTLE_SECONDS still; those under way then are finished, for GWANMUN_DRAIN_SECONDS at most.

        GET :9090/ready, :9090/healthz, :9090/metrics
    """
    import structlog

    from gwanmun.app.errors import UserError
    from gwanmun.app.logs import configure_logs, configure_program_logs
    from gwanmun.app.proxy import proxy_options, run_proxy

    configure_logs("json")
    try:
        options = proxy_options(os.environ)
        configure_program_logs(options.log_format)
        code = asyncio.run(run_proxy(options))
    except UserError as error:
        # Also the last line that a pod says is an object.
        structlog.get_logger().error("proxy_cannot_start", message=str(error))
        code = 2
    raise typer.Exit(code)
