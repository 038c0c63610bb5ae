"""How commands print: tables for people, JSON or YAML for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gwanmun.providers import ServiceBinding


class Format(StrEnum):
    table = "table"
    json = "json"
    yaml = "yaml"


class DataFormat(StrEnum):
    """Of what has no table."""

    json = "json"
    yaml = "yaml"


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


BOTH_CONTROLLERS = "gwanmun.dev/gateway-controller and kgateway.dev/kgateway-controller"
"""What `resolve.world.Settings` has, written out: a help must not have to import it."""

Output = Annotated[Format, typer.Option("-o", "--output", help="table for people, json or yaml for programs")]
Folders = Annotated[list[Path], typer.Argument(help="folders or files of manifests", show_default=False)]
Paths = Annotated[
    list[Path], typer.Argument(help="folders or files of manifests, or @ for the cluster of the kubeconfig", show_default=False)
]
Bind = Annotated[
    list[str],
    typer.Option(
        help="endpoint of a Service: NAMESPACE/SERVICE[:PORT]=ADDRESS:PORT; repeatable",
        show_default=False,
    ),
]
ControllerNames = Annotated[
    list[str],
    typer.Option(
        "--controller-name", help="controllerName of the GatewayClasses to serve; repeatable", show_default=BOTH_CONTROLLERS
    ),
]


def emit(data: Any, output: Format | DataFormat) -> None:
    """Plain data as JSON or YAML on stdout."""
    if output == "json":
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml

    plain = json.loads(json.dumps(data))  # also of what only looks like plain data, as protobuf's ordered mappings
    typer.echo(yaml.dump(plain, sort_keys=False, allow_unicode=True, Dumper=yaml.CSafeDumper, width=120), nl=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table on stdout, as wide as the terminal; unbounded where stdout is none."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=200)
    made = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, highlight=False)
    for row in rows:
        made.add_row(*row)
    console.print(made)


def bindings_of(texts: Sequence[str]) -> "tuple[ServiceBinding, ...]":
    """What the `--bind` options say; ends the command where one is wrong."""
    from gwanmun.providers import parse_binding

    try:
        return tuple(parse_binding(text) for text in texts)
    except ValueError as error:
        fail(f"--bind {error}")


def warn(lines: Iterable[str]) -> None:
    """Lines on stderr: what is wrong, while the command goes on."""
    for line in lines:
        typer.echo(line, err=True)


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2: the request itself cannot be carried out."""
    typer.echo(f"gwanmun: {message}", err=True)
    raise typer.Exit(2)
