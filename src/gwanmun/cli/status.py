"""`gwanmun status`: is it all right?"""

import asyncio
from typing import Annotated, Any

import click
import typer

from gwanmun.cli.output import ControllerNames, Format, Output, Paths, emit, fail, table


def status(
    paths: Paths,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="show it again whenever it changes")] = False,
    controller_name: ControllerNames = [],
    output: Output = Format.table,
) -> None:
    """Show the gateway of a folder: where it listens, what is attached, what is wrong.

    Exits with 0 where all is well, 1 where something is wrong, 2 where no gateway runs, or only its Envoy. For example:

    \b
    gwanmun status manifests/ --watch
    gwanmun status @            (the cluster of the current kubeconfig context; @NAME is that of another)
    """
    from gwanmun.app.target import is_cluster

    if is_cluster(paths):
        _show_cluster(paths, watch, controller_name, output)
    elif controller_name:
        fail("--controller-name is for a cluster; the gateway of a folder was told by: gwanmun up --controller")
    else:
        asyncio.run(_show(paths, watch, output))


def _show_cluster(paths: Paths, watch: bool, names: list[str], output: Format) -> None:
    from gwanmun.app.cluster import read_cluster, status_report
    from gwanmun.app.words import settings_of

    if watch:
        fail("a cluster is not watched; try: watch gwanmun status @")
    state = status_report(read_cluster(paths[0]), frozenset(settings_of(names).controller_names))
    _print(state, output)
    if not state["healthy"]:
        raise typer.Exit(1)


async def _show(paths: Paths, watch: bool, output: Format) -> None:
    from gwanmun.app.control import ControlClient

    client = ControlClient.of(paths)
    state = await client.status()
    _print(state, output)
    while watch:
        state = await client.status(after=state["version"])
        click.clear()
        _print(state, output)
    if not state["healthy"]:
        raise typer.Exit(1)


def _print(state: dict[str, Any], output: Format) -> None:
    if output is not Format.table:
        emit(state, output)
        return
    if envoy := state.get("envoy"):
        draining = f"; still draining: {', '.join(map(str, envoy['draining']))}" if envoy["draining"] else ""
        typer.echo(f"Envoy {envoy['version']} pid {envoy['pid']} {envoy['state']}; configuration {state['version']}{draining}")
    table(
        ("GATEWAY", "PORT", "LISTENS ON", "NOTE"),
        [(item["gateway"], str(item["port"]), item["address"], item["note"]) for item in state["addresses"]],
    )
    table(
        ("KIND", "NAMESPACE", "NAME", "PART", "", "ROUTES"),
        [
            (
                row["kind"],
                row["namespace"],
                row["name"],
                row["part"],
                "ok" if row["healthy"] else "WRONG",
                "" if row["attached_routes"] is None else str(row["attached_routes"]),
            )
            for row in state["objects"]
        ],
    )
    if backends := state.get("backends"):
        table(
            ("BACKEND", "READY"),
            [(backend["backend"], f"{backend['ready']} of {backend['endpoints']}") for backend in backends],
        )
    for problem in state["problems"]:
        typer.echo(problem)
