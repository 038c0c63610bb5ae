"""`gwanmun`: one command for each thing that people do. Imports are lazy, so that `--help` and completion are quick."""

import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from gwanmun.cli import check, controller, demo, down, explain, proxy, sim, status, up, xds
from gwanmun.cli.output import fail

_INTERRUPTED = 130
"""As a shell says it of a command that Ctrl-C has ended."""

app = typer.Typer(
    name="gwanmun",
    help="An inference gateway: the Kubernetes Gateway API for AI model serving, on Envoy.",
    no_args_is_help=True,
    add_completion=False,  # `gwanmun completion` prints the script; nothing edits people's shell files
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up", short_help="Serve a folder of manifests on this machine.")(up.up)
app.command("down", short_help="End what serves a folder.")(down.down)
app.command("demo", short_help="Show the specification's manifests at work.")(demo.demo)
app.command("check", short_help="Validate manifests and show their conditions.")(check.check)
app.command("explain", short_help="Say where a request goes, and why.")(explain.explain)
app.command("status", short_help="Show where a folder is served and what is wrong.")(status.status)
app.command("xds", short_help="Show what Envoy is given.")(xds.xds)
app.command("sim", short_help="Run simulated model servers.")(sim.sim)
app.command("controller", short_help="Serve the Gateways of a Kubernetes cluster.")(controller.controller)
app.command("proxy", short_help="Run the Envoy of a Gateway inside a pod.")(proxy.proxy)


@app.command("version", short_help="Say what is installed.")
def version() -> None:
    """Say the versions of gwanmun and of Envoy, and whether the native module is there."""
    from gwanmun.app.about import about

    for name, value in about(installed_version("gwanmun")):
        typer.echo(f"{name:<14} {value}")


@app.command("completion", short_help="Print a completion script for a shell.")
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish")] = "bash") -> None:
    """Print a completion script for your shell.

    For example: gwanmun completion bash > ~/.local/share/bash-completion/completions/gwanmun
    """
    from typer._completion_shared import get_completion_script

    if shell not in ("bash", "zsh", "fish"):
        fail(f'"{shell}" is not one of bash, zsh, fish')
    typer.echo(get_completion_script(prog_name="gwanmun", complete_var="_GWANMUN_COMPLETE", shell=shell))


def main() -> None:
    """The entry point. Errors that are the user's to mend are one line on stderr and exit with 2, never a traceback."""
    from gwanmun.app.errors import UserError

    try:
        app()
    except UserError as error:
        sys.exit(_report(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _report(error: Exception) -> int:
    typer.echo(f"gwanmun: {error}", err=True)
    return 2
