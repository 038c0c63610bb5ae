"""`gwanmun down`: end what `up` left running."""

import asyncio

import typer

from gwanmun.cli.output import Folders


def down(paths: Folders) -> None:
    """End the gateway of a folder: the Envoy that serves on after `up` was killed, or a running `up` with its Envoy.

    For example: gwanmun down manifests/
    """
    from gwanmun.app.standalone import end
    from gwanmun.infra.rundir import named_path

    for line in asyncio.run(end(tuple(map(named_path, paths)), tell=typer.echo)):
        typer.echo(line)
