"""`python -m tests.kubernetes.cluster up | down | exec | list | build`: clusters for people and for make."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys

from . import build, namespaces, state
from .api import Cluster, ClusterError, ClusterOptions


def main() -> int:
    """Exit status 0, or 1 with one message; `exec` becomes the command and has its status."""
    arguments = _parse()
    try:
        status: int = arguments.act(arguments)
    except (ClusterError, build.BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    return status


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: object, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(act=act)
        return one

    up = command("up", _up, "start a cluster, which runs until `down`")
    up.add_argument("name", nargs="?", default="default")
    up.add_argument("--nodes", type=int, default=ClusterOptions.nodes, help="dealt out over three zones (default: %(default)s)")
    up.add_argument("--no-crds", action="store_true", help="without the CRDs of the Gateway API")
    up.add_argument("--zone-delay", type=float, metavar="SECONDS", help="one way, between pods of different zones")
    down = command("down", _down, "end a cluster and remove all of it")
    down.add_argument("name", nargs="?", default="default")
    execute = command("exec", _exec, "run a command inside a cluster, with KUBECONFIG, kubectl and helm")
    execute.add_argument("--name", default="default")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    command("list", _list, "the clusters of this user")
    command("build", _build, "build the programs, if they are not there, and say where they are")
    return parser.parse_args()


def _up(arguments: argparse.Namespace) -> int:
    options = ClusterOptions(nodes=arguments.nodes, crds=not arguments.no_crds, zone_delay=arguments.zone_delay)
    cluster = Cluster(arguments.name, options)
    asyncio.run(cluster.start(with_parent=False))
    name = "" if arguments.name == "default" else f" --name {arguments.name}"
    print(f"up; logs are in {cluster.state / 'logs'}\n{sys.executable} -m {__package__} exec{name} -- kubectl get nodes")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    asyncio.run(Cluster(arguments.name).stop())
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ClusterError("exec needs a command: exec -- kubectl get pods")
    cluster = Cluster(arguments.name)
    environment = cluster.environment() if cluster.state.exists() else {}
    namespaces.enter(cluster.init().pid)
    os.execvpe(command[0], command, environment)


def _list(_: argparse.Namespace) -> int:
    for folder in state.clusters():
        init = state.read_init(folder)
        print(f"{folder.name}\t{'running' if init is not None and init.alive() else 'dead'}\t{folder}")
    return 0


def _build(_: argparse.Namespace) -> int:
    print(build.build())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, subprocess.CalledProcessError) as stopped:
        sys.exit(f"stopped: {stopped!r}")
