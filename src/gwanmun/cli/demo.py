"""`gwanmun demo`: the specification's manifests at work."""

import asyncio
import signal
from typing import Annotated

import typer


def demo(
    once: Annotated[bool, typer.Option("--once", help="check that everything answers as it should, then exit")] = False,
    concurrency: Annotated[int, typer.Option(help="Envoy's worker threads; 0 takes all cores", min=0, max=256)] = 2,
) -> None:
    """Serve the specification's manifests in front of simulated vLLM and TGI servers, and show who answers what.

    Stays up with lines to paste for curl and the OpenAI SDK, until Ctrl-C or until its terminal is closed. With --once it is
    a check: the exit code is 1 where a request was not answered as it should be. For example:

        gwanmun demo --once
    """
    from gwanmun.app.demo import Demo
    from gwanmun.app.logs import configure_logs
    from gwanmun.cli.progress import DemoPrinter

    configure_logs("text", quiet=True)
    # Until the gateway handles signals itself: they end the demo as Ctrl-C does, so that nothing of it stays.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, signal.default_int_handler)
    if not asyncio.run(Demo(DemoPrinter(), stay=not once, concurrency=concurrency or None).run()):
        raise typer.Exit(1)
