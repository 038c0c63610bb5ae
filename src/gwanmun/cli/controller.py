"""`gwanmun controller`: gateways on Kubernetes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gwanmun.cli.output import ControllerNames, LogFormat, LogLevel

if TYPE_CHECKING:
    from gwanmun.infra.fleet.certificates import Issuer


def controller(
    proxy_image: Annotated[str, typer.Option(envvar="GWANMUN_PROXY_IMAGE", help="image of the proxies")] = "gwanmun-proxy",
    xds_address: Annotated[
        str,
        typer.Option(envvar="GWANMUN_XDS_ADDRESS", help="where proxies find this control plane: HOST:PORT"),
    ] = "gwanmun-controller.gwanmun-system.svc:18000",
    xds_listen: Annotated[str, typer.Option(envvar="GWANMUN_XDS_LISTEN", help="where to serve proxies")] = "0.0.0.0:18000",
    xds_tls_secret: Annotated[
        str,
        typer.Option(
            envvar="GWANMUN_XDS_TLS_SECRET",
            help="Secret with tls.crt, tls.key and ca.crt for the xDS port (cert-manager's)",
            show_default="an authority of our own",
        ),
    ] = "",
    metrics_listen: Annotated[
        str, typer.Option(envvar="GWANMUN_METRICS_LISTEN", help="where to answer /metrics, /healthz and /readyz")
    ] = "0.0.0.0:9090",
    controller_name: ControllerNames = [],
    watch_namespace: Annotated[
        list[str], typer.Option(help="namespace to look at; repeatable", show_default="all of them")
    ] = [],
    namespace: Annotated[
        str,
        typer.Option(envvar="POD_NAMESPACE", help="namespace of this controller itself", show_default="that of the kubeconfig"),
    ] = "",
    instance: Annotated[
        str, typer.Option(envvar="GWANMUN_INSTANCE", help="name of this installation, of which a cluster may have several")
    ] = "gwanmun",
    proxy_replicas: Annotated[int, typer.Option(envvar="GWANMUN_PROXY_REPLICAS", help="proxies of each Gateway", min=0)] = 2,
    proxy_image_pull_policy: Annotated[str, typer.Option(envvar="GWANMUN_PROXY_IMAGE_PULL_POLICY")] = "IfNotPresent",
    proxy_image_pull_secret: Annotated[list[str], typer.Option(help="of the proxies; repeatable")] = [],
    proxy_log_level: Annotated[str, typer.Option(envvar="GWANMUN_PROXY_LOG_LEVEL", help="Envoy's")] = "warning",
    proxy_network_policy: Annotated[
        bool,
        typer.Option(envvar="GWANMUN_PROXY_NETWORK_POLICY", help="a NetworkPolicy for the proxies of each Gateway"),
    ] = False,
    leader_elect: Annotated[
        bool, typer.Option(envvar="GWANMUN_LEADER_ELECT", help="several controllers run, and one of them writes")
    ] = True,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="how to reach the API server", show_default="$KUBECONFIG, the pod's service account, ~/.kube/config"),
    ] = None,
    context: Annotated[str, typer.Option(help="of the kubeconfig", show_default="the current one")] = "",
    certificate_issuer: Annotated[
        str,
        typer.Option(
            envvar="GWANMUN_CERTIFICATE_ISSUER",
            help="cert-manager's KIND/NAME that makes the certificates of listeners, such as ClusterIssuer/letsencrypt",
            show_default="nobody",
        ),
    ] = "",
    certificate_issuer_group: Annotated[
        str, typer.Option(envvar="GWANMUN_CERTIFICATE_ISSUER_GROUP", help="the issuer's API group")
    ] = "cert-manager.io",
    log_format: Annotated[
        LogFormat, typer.Option(envvar="GWANMUN_LOG_FORMAT", help="json: one object a line; text for people")
    ] = LogFormat.json,
    log_level: Annotated[LogLevel, typer.Option(envvar="GWANMUN_LOG_LEVEL", help="of this controller")] = LogLevel.info,
) -> None:
    """Serve the Gateways of a Kubernetes cluster: run proxies for each, configure them, and write statuses.

    For example, against a cluster that a kubeconfig leads to, with proxies that reach this machine at 10.0.0.5:

    \b
    gwanmun controller --log-format text --xds-address 10.0.0.5:18000 --proxy-image registry.example/gwanmun-proxy:0.1.0
    """
    from gwanmun.app.logs import configure_program_logs

    configure_program_logs(log_format, level=log_level)

    import structlog

    from gwanmun.app.controller import Controller, ControllerOptions
    from gwanmun.app.errors import UserError
    from gwanmun.app.words import ENVOY_LOG_LEVELS, PULL_POLICIES, controller_names, one_of
    from gwanmun.infra.authority import SERVER_NAME
    from gwanmun.infra.fleet import FleetOptions

    try:
        options = ControllerOptions(
            fleet=FleetOptions(
                image=proxy_image,
                xds_address=_reached(xds_address),
                xds_server_name=SERVER_NAME,
                xds_ca="",
                instance=instance,
                image_pull_policy=one_of("--proxy-image-pull-policy", proxy_image_pull_policy, PULL_POLICIES),
                image_pull_secrets=tuple(proxy_image_pull_secret),
                replicas=proxy_replicas,
                log_level=one_of("--proxy-log-level", proxy_log_level, ENVOY_LOG_LEVELS),
                log_format=log_format,
                network_policy=proxy_network_policy,
            ),
            kubeconfig=kubeconfig,
            context=context or None,
            namespace=namespace,
            namespaces=tuple(watch_namespace),
            controllers=controller_names(controller_name),
            xds_listen=xds_listen,
            metrics_listen=metrics_listen,
            xds_secret=xds_tls_secret or None,
            issuer=_issuer(certificate_issuer, certificate_issuer_group),
            leader_elect=leader_elect,
        )
        asyncio.run(Controller(options).run())
    except UserError as error:
        if log_format is not LogFormat.json:
            raise
        structlog.get_logger().error("controller_cannot_start", message=str(error))
        raise typer.Exit(2) from None


def _reached(address: str) -> str:
    from gwanmun.app.words import host_and_port

    host_and_port("--xds-address", address, example="gwanmun-controller.gwanmun-system.svc:18000")
    return address


def _issuer(text: str, group: str) -> "Issuer | None":
    from gwanmun.app.errors import UserError
    from gwanmun.infra.fleet.certificates import Issuer

    kind, _, name = text.partition("/")
    if text and not (kind and name):
        raise UserError(f'--certificate-issuer "{text}" is not KIND/NAME, such as ClusterIssuer/letsencrypt')
    return Issuer(name, kind, group) if text else None
