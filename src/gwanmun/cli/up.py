"""`gwanmun up`: a gateway on this machine, from a folder of manifests."""

import asyncio
from typing import Annotated

import typer

from gwanmun.cli.output import Bind, ControllerNames, Folders, LogFormat, bindings_of


def up(
    paths: Folders,
    bind: Bind = [],
    address: Annotated[str, typer.Option(help="where Gateways without spec.addresses listen")] = "127.0.0.1",
    zone: Annotated[str, typer.Option(help="the zone of this proxy; endpoints of the same zone are preferred")] = "",
    concurrency: Annotated[int, typer.Option(help="Envoy's worker threads; 0 takes all cores", min=0, max=256)] = 0,
    controller_name: ControllerNames = [],
    drain_seconds: Annotated[int, typer.Option(help="how long connections may end by themselves at Ctrl-C", min=0)] = 10,
    log_format: Annotated[LogFormat, typer.Option(help="text for people; json: one object a line, on stderr")] = LogFormat.text,
) -> None:
    """Serve the manifests of a folder with an Envoy on this machine, and follow every change of them.

    Ctrl-C drains and ends both; once more ends them at once. Closing the terminal drains and ends them too, but not under
    nohup. If this command is killed outright Envoy serves on, and the next `up` of the same folder takes it over. For example:

    \b
    gwanmun up manifests/
    gwanmun up manifests/ --bind ai-inference/vllm=127.0.0.1:8001 --bind ai-inference/vllm=127.0.0.1:8002
    """
    from gwanmun.infra.rundir import named_path
    from gwanmun.providers.ahead import cores, read_ahead

    named = tuple(map(named_path, paths))
    ahead = read_ahead(named, cores())  # goes on beside all that is loaded here, and has to come before any thread

    from gwanmun.app.logs import configure_logs
    from gwanmun.app.standalone import Standalone, StandaloneOptions
    from gwanmun.app.words import controller_names
    from gwanmun.cli.progress import Teller, log_line, print_line

    configure_logs(log_format)
    options = StandaloneOptions(
        paths=named,
        address=address,
        zone=zone,
        bindings=bindings_of(bind),
        concurrency=concurrency or None,
        controllers=controller_names(controller_name),
        drain_seconds=drain_seconds,
    )
    teller = Teller(print_line if log_format is LogFormat.text else log_line)
    asyncio.run(Standalone(options, observer=teller, ahead=ahead).run())
