"""`gwanmun down`: end what `up` left running."""

import asyncio

import typer

from gwanmun.cli.output import Folders


def down(paths: Folders) -> None:
    """End the gateway of a folder: the Envoy that serves on after `up` was killed, or a running `up` with its Envoy.

    For example: gwanmun down manifests/
    """
    from gwanmun.app.standalone import end

    for line in asyncio.run(end(tuple(path.resolve() for path in paths), tell=typer.echo)):
        typer.echo(line)
