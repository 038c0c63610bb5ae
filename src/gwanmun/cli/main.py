"""`gwanmun`: one command for each thing that people do. Imports are lazy, so that `--help` and completion are quick."""

import os
import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from gwanmun.cli import check, controller, demo, down, explain, proxy, sim, status, up, xds

_INTERRUPTED = 130
"""As a shell says it of a command that Ctrl-C has ended."""
_COMPLETE = "_GWANMUN_COMPLETE"
"""What a shell's completion script sets, and what makes a call of ours one by such a script."""


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


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
def completion(shell: Annotated[Shell, typer.Argument(help="the shell that it is for")] = Shell.bash) -> None:
    """Print a completion script for your shell. For example:

    \b
    gwanmun completion bash > ~/.local/share/bash-completion/completions/gwanmun
    gwanmun completion fish > ~/.config/fish/completions/gwanmun.fish
    eval "$(gwanmun completion zsh)"        # in ~/.zshrc, after compinit
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="gwanmun", complete_var=_COMPLETE, shell=shell))


def main() -> None:
    """The entry point. Errors that are the user's to mend are one line on stderr and exit with 2, never a traceback."""
    from gwanmun.app.errors import UserError

    if _COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()  # which `add_completion` would do, with two options that people would read about in every help
    try:
        app()
    except UserError as error:
        sys.exit(_report(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        from gwanmun.protos import EnvoyBinaryError

        if not isinstance(error, EnvoyBinaryError):
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    typer.echo(f"gwanmun: {error}", err=True)
    return 2
