"""`gwanmun sim`: simulated model servers."""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gwanmun.cli.output import fail

if TYPE_CHECKING:
    from gwanmun.sim.server import SimServer
    from gwanmun.sim.spec import SimSpec

_LAST_PORT = 65_535
_KEYS = ("name", "model", "port", "host", "profile", "seed", "zone", "adapter")


def sim(
    servers: Annotated[
        list[str],
        typer.Argument(
            help="ENGINE[:KEY=VALUE,...]; engines vllm, tgi, openai, echo, grpc; keys " + ", ".join(_KEYS), show_default=False
        ),
    ],
) -> None:
    """Run simulated model servers: the HTTP APIs and metrics of vLLM and TGI, without a GPU.

    Several models are separated by "+". Faults are set while running: POST /sim/faults. For example:

    \b
    gwanmun sim vllm:name=a,model=gpt-4,port=8001 tgi:name=b,model=mixtral-8x7b,port=8002,profile=8b-h100
    """
    from gwanmun.sim.server import run

    try:
        specs = [_parse(text, number) for number, text in enumerate(servers)]
    except ValueError as error:
        fail(str(error))
    try:
        asyncio.run(run(specs, ready=_announce))
    except OSError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _announce(servers: "Sequence[SimServer]") -> None:
    for server in servers:
        typer.echo(
            f"{server.spec.engine} {server.spec.name} listens on {server.address}, serves {', '.join(server.spec.models)}"
        )


def _parse(text: str, number: int) -> "SimSpec":
    from gwanmun.sim.spec import SimSpec

    engine, _, rest = text.partition(":")
    if engine not in ("vllm", "tgi", "openai", "echo", "grpc"):
        raise ValueError(f'"{text}": {engine} is not one of vllm, tgi, openai, echo, grpc')
    values: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            raise ValueError(f'"{part}" in "{text}" is not KEY=VALUE with a key of {", ".join(_KEYS)}')
        if not value:
            raise ValueError(f'"{text}": {key} is empty')
        values[key] = value
    for key in ("port", "seed"):
        if key in values and not values[key].isdigit():
            raise ValueError(f'"{text}": {key} is a number, not "{values[key]}"')
    if int(values.get("port", "0")) > _LAST_PORT:
        raise ValueError(f'"{text}": {values["port"]} is not a port (1 to {_LAST_PORT}, or 0 for a free one)')
    host = values.get("host", "127.0.0.1")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f'"{text}": host {host} is not an IP address such as 127.0.0.1') from None
    spec = SimSpec(
        name=values.get("name", f"{engine}-{number}"),
        engine=engine,  # type: ignore[arg-type]  # checked above
        models=tuple(values.get("model", "sim-model").split("+")),
        adapters=tuple(filter(None, values.get("adapter", "").split("+"))),
        host=host,
        port=int(values.get("port", "0")),
        profile=values.get("profile", "tiny"),
        seed=int(values.get("seed", "0")),
        zone=values.get("zone"),
    )
    spec.engine_profile()  # says now if there is no such profile
    return spec
