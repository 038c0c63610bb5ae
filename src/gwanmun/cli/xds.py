"""`gwanmun xds`: what Envoy is given."""

from enum import StrEnum
from typing import Annotated

import typer

from gwanmun.cli.output import Bind, ControllerNames, DataFormat, Paths, emit, warn


class Kind(StrEnum):
    listener = "listener"
    route = "route"
    scope = "scope"
    cluster = "cluster"
    endpoint = "endpoint"
    secret = "secret"  # noqa: S105  the kind's name


def xds(
    paths: Paths,
    bind: Bind = [],
    controller_name: ControllerNames = [],
    kind: Annotated[Kind | None, typer.Option(help="only this kind", show_default=False)] = None,
    name: Annotated[str, typer.Option(help="only resources with this in their name")] = "",
    output: Annotated[DataFormat, typer.Option("-o", "--output", help="yaml or json")] = DataFormat.yaml,
) -> None:
    """Show the Envoy configuration that manifests become. Private keys are never shown.

    For example: gwanmun xds manifests/ --kind route
    """
    from gwanmun.app.showing import folder_configuration

    shown, problems = folder_configuration(paths, bind, kind=kind or "", name=name, controllers=controller_name)
    warn(problems)
    emit(shown, output)
