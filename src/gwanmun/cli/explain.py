"""`gwanmun explain`: where does this request go, and why?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gwanmun.cli.output import Bind, ControllerNames, Format, Output, Paths, emit, fail, table, warn


def explain(
    paths: Paths,
    url: Annotated[str, typer.Argument(help="URL of the request, or the id of a request that was served", show_default=False)],
    method: Annotated[str, typer.Option("-X", "--method", help="GET, or POST where there is a body")] = "",
    header: Annotated[list[str], typer.Option("-H", "--header", help='"name: value"; repeatable')] = [],
    data: Annotated[str, typer.Option("-d", "--data", help="the body, or @FILE")] = "",
    bind: Bind = [],
    controller_name: ControllerNames = [],
    output: Output = Format.table,
) -> None:
    """Say which listener, route, rule and backends take a request, and of every other rule why not. Nothing is sent.

    With a request id (the x-request-id of an answer) it tells what happened to that request. Exits with 0 where the request
    is forwarded or redirected, 1 where it is not, 2 where it cannot be told. For example:

    \b
    gwanmun explain manifests/ https://inference.example.com/v1/chat/completions -d '{"model": "gpt-4"}'
    gwanmun explain manifests/ 5e9b1c1e-7d0c-9b1f-8a8e-1f7b0c3d2e4a
    """
    from gwanmun.app.explaining import explain_request, served_request

    if "://" not in url:
        if "/" in url or "." in url:
            fail(f'"{url}" is neither a URL such as https://{url} nor the id of a request')
        told = served_request(paths, url)
        if told is None:
            where = ", ".join(map(str, paths))
            fail(f"no request {url} is in the access log of the gateway of {where}; one that is under way comes when it ends")
        if output is Format.table:
            _print_served(told)
        else:
            emit(told, output)
        return
    body = _body(data)
    headers = [_header(text) for text in header]
    told, problems = explain_request(
        paths, method or ("POST" if body else "GET"), url, headers, body, bind, controllers=controller_name
    )
    warn(problems)
    if output is Format.table:
        _print(told)
    else:
        emit(told, output)
    if not told["outcome"].startswith(("forwarded", "3")):
        raise typer.Exit(1)


def _body(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        fail(f"--data {data}: {error.strerror}")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        fail(f'"{text}" is not a header such as "x-model-id: gpt-4"')
    return name.strip().lower(), value.strip()


def _print_served(told: dict[str, Any]) -> None:
    typer.echo(told["outcome"])
    for name, value in told["log"].items():
        if value is not None:
            typer.echo(f"  {name:<14}  {value}")
    if told["explanation"] is None:
        typer.echo(
            "\nSuch a request is not taken by that rule now: manifests have changed, or headers that are not logged decided."
        )
        return
    typer.echo("\nSuch a request now:")
    _print(told["explanation"])


def _print(told: dict[str, Any]) -> None:
    typer.echo(told["outcome"])
    if told["listener"]:
        typer.echo(f"  listener  {told['listener']}")
    if told["host"]:
        typer.echo(f"  host      {told['host']}")
    for fact in told["facts"]:
        typer.echo(f"  note      {fact}")
    if told["shares"]:
        table(
            ("BACKEND", "SHARE", "ENDPOINTS"),
            [
                (share["backend"], f"{share['share']:.1%}", share["note"] or ", ".join(share["endpoints"]))
                for share in told["shares"]
            ],
        )
    if told["verdicts"]:
        table(
            ("", "RULE", "MATCHES", "WHY NOT"),
            [
                (
                    "->" if not verdict["why_not"] else "",
                    verdict["name"] or verdict["rule"],
                    verdict["match"],
                    verdict["why_not"],
                )
                for verdict in told["verdicts"]
            ],
        )
