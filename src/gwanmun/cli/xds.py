"""`gwanmun xds`: what Envoy is given."""

from typing import Annotated

import typer

from gwanmun.cli.output import Bind, Format, Paths, emit


def xds(
    paths: Paths,
    bind: Bind = [],
    kind: Annotated[str, typer.Option(help="only this kind: listener, route, scope, cluster, endpoint, secret")] = "",
    name: Annotated[str, typer.Option(help="only resources with this in their name")] = "",
    output: Annotated[Format, typer.Option("-o", "--output", help="yaml or json")] = Format.yaml,
) -> None:
    """Show the Envoy configuration that manifests become. Private keys are never shown.

    For example: gwanmun xds manifests/ --kind route
    """
    from gwanmun.app.showing import folder_configuration

    emit(folder_configuration(paths, bind, kind=kind, name=name), Format.json if output is Format.json else Format.yaml)
