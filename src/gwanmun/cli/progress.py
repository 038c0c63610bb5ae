"""What people see while `up` and `demo` work."""

import contextlib
import shutil
import sys

import structlog
import typer
from rich.console import Console
from rich.text import Text

from gwanmun.app.demo import GATEWAY, HTTP_HOST, DemoRequest, DemoWorld
from gwanmun.app.probe import Answer

log = structlog.get_logger()


class DemoPrinter:
    """The demo's table, a line for each answer as it comes."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False)

    def starting(self, servers: int) -> None:
        self._console.print(f"Starting {servers} simulated model servers and Envoy; Gateway {GATEWAY} ...")
        self._console.print()
        self._line("REQUEST", "PATH", "STATUS", "ANSWERED BY", "WHAT CAME BACK", style="bold")

    def answered(self, request: DemoRequest, answer: Answer, right: bool) -> None:
        by = answer.served_by or "the gateway"
        status = f"{answer.status}" if right else f"{answer.status} WRONG, not {request.status} of {request.answered_by}"
        where = f"{request.scheme} {request.path}" if request.scheme == "http" else request.path
        self._line(request.title, where, status, by, answer.text, style="" if right else "red")

    def skipped(self, request: DemoRequest, why: str) -> None:
        self._line(request.title, request.path, "-", "-", why, style="yellow")

    def summary(self, right: int, asked: int) -> None:
        self._console.print()
        self._console.print(f"{right} of {asked} requests were answered as the manifests say.")

    def ready_to_paste(self, world: DemoWorld) -> None:
        command = "gwanmun" if shutil.which("gwanmun") else sys.argv[0]  # in a virtual environment it may be on no path
        https, address, authority, folder = world.ports[443], world.address, world.authority, world.manifests
        self._console.print(
            f"""
The gateway stays up. Its manifests are in {folder}: edit one and see. Try:

  curl --cacert {authority} --resolve {HTTP_HOST}:{https}:{address} \\
    https://{HTTP_HOST}:{https}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  {command} status {folder}
  {command} explain {folder} https://{HTTP_HOST}/v1/chat/completions -d '{{"model": "claude-3"}}'
  {command} explain {folder} ID        (the x-request-id of an answer)

With the OpenAI SDK (pip install openai):

  import httpx, ssl, openai
  tls = ssl.create_default_context(cafile="{authority}")
  client = openai.OpenAI(
      base_url="https://{address}:{https}/v1", api_key="none",
      http_client=httpx.Client(verify=tls, headers={{"host": "{HTTP_HOST}"}}, event_hooks={{"request": [
          lambda request: request.extensions.update(sni_hostname="{HTTP_HOST}")]}}))
  print(client.chat.completions.create(model="gpt-4", messages=[{{"role": "user", "content": "Hello"}}]))

Ctrl-C ends it.""",
            markup=False,
        )

    def _line(self, *cells: str, style: str) -> None:
        widths = (34, 24, 8, 18, 0)
        text = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        self._console.print(Text(text, style=style))


class _Observer:
    """Says each thing once: that it has come, and that it has gone."""

    def __init__(self) -> None:
        self._wrong: set[str] = set()
        self._addresses: set[str] = set()

    def addresses(self, lines: set[str]) -> None:
        for line in sorted(lines - self._addresses):
            self.listening(line)
        self._addresses = lines

    def problems(self, lines: set[str]) -> None:
        for line in sorted(lines - self._wrong):
            self.problem(line)
        for line in sorted(self._wrong - lines):
            self.mended(line)
        self._wrong = lines

    def listening(self, line: str) -> None:
        raise NotImplementedError

    def problem(self, line: str) -> None:
        raise NotImplementedError

    def mended(self, line: str) -> None:
        raise NotImplementedError


class TerminalObserver(_Observer):
    """What `up` says to people: where it listens and what happens on stdout, what is wrong on stderr."""

    def listening(self, line: str) -> None:
        _say(line)

    def problem(self, line: str) -> None:
        _say(line, fg="red", err=True)

    def mended(self, line: str) -> None:
        _say(f"mended: {line}", fg="green", err=True)

    def event(self, line: str) -> None:
        _say(line)


class LogObserver(_Observer):
    """The same as events of the log, for programs."""

    def listening(self, line: str) -> None:
        log.info("listening", message=line)

    def problem(self, line: str) -> None:
        log.warning("problem", message=line)

    def mended(self, line: str) -> None:
        log.info("mended", message=line)

    def event(self, line: str) -> None:
        log.info("gateway", message=line)


def _say(line: str, *, fg: str | None = None, err: bool = False) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more (`gwanmun up manifests/ | head`): no reason to stop serving
        typer.secho(line, fg=fg, err=err)
