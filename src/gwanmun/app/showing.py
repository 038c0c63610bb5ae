"""The Envoy configuration of a folder: of its running gateway, or as it would be."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gwanmun.app.control import ControlClient, NotRunningError
from gwanmun.app.errors import UserError
from gwanmun.app.offline import resolve_folders
from gwanmun.app.pipeline import envoy_bindings
from gwanmun.app.report import envoy_configuration
from gwanmun.app.scopes import bindings
from gwanmun.app.target import is_cluster
from gwanmun.app.words import settings_of
from gwanmun.infra.envoy import MODULE
from gwanmun.infra.fleet.contract import MODULE_FILE
from gwanmun.infra.podports import pod_ports
from gwanmun.infra.ports import PortOptions, plan_ports
from gwanmun.infra.probe import first_unprivileged_port
from gwanmun.ir import Model
from gwanmun.providers import parse_binding
from gwanmun.xds.options import Binding, Options, PortKey
from gwanmun.xds.translate import translate


def folder_configuration(
    paths: Sequence[Path], bind: Sequence[str], *, kind: str, name: str, controllers: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """By kind of resource; and what is wrong with the files, which a running gateway says itself. UserError for what is
    asked wrongly."""
    in_cluster = is_cluster(paths)
    client = ControlClient.of(paths)
    try:
        if not bind and not controllers and not in_cluster:
            with contextlib.suppress(NotRunningError):
                return asyncio.run(client.ask("GET", "/xds", kind=kind, name=name)), []
        resolved = resolve_folders(paths, [parse_binding(text) for text in bind], settings_of(controllers))
        model = resolved.resolution.model
        if in_cluster:
            return envoy_configuration(translate(model, _in_pods(model)), kind=kind, name=name), []
        plan = plan_ports(
            model.gateways.values(),
            options=PortOptions(first_unprivileged=first_unprivileged_port()),
            previous={},
            unusable=lambda _: None,
        )
        options = Options(bindings=envoy_bindings(plan), module_path=str(MODULE) if MODULE.exists() else None)
        return envoy_configuration(translate(model, options), kind=kind, name=name), resolved.problem_lines
    except ValueError as error:
        raise UserError(str(error)) from None


def _in_pods(model: Model) -> Options:
    """Where listeners are bound in the pods of every Gateway."""
    bound: dict[PortKey, tuple[Binding, ...]] = {}
    for gateway in model.gateways.values():
        ports = pod_ports((port.number, port.transport) for port in gateway.ports)
        bound |= bindings(gateway.key, ports, "0.0.0.0")  # noqa: S104  in pods, and only shown here
    return Options(bindings=bound, module_path=str(MODULE_FILE))
