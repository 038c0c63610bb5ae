"""What people see while `up` and `demo` work."""

import contextlib
import shutil
import sys
from collections.abc import Callable

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


class Teller:
    """An observer that says each thing once: that it has come, and that it has gone. `say` is told what a line is about:
    `listening`, `problem`, `mended`, or `gateway` for all else that happens."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._wrong: set[str] = set()
        self._addresses: set[str] = set()

    def addresses(self, lines: set[str]) -> None:
        for line in sorted(lines - self._addresses):
            self._say("listening", line)
        self._addresses = lines

    def problems(self, lines: set[str]) -> None:
        for line in sorted(lines - self._wrong):
            self._say("problem", line)
        for line in sorted(self._wrong - lines):
            self._say("mended", line)
        self._wrong = lines

    def event(self, line: str) -> None:
        self._say("gateway", line)


def print_line(about: str, line: str) -> None:
    """To people: where it listens and what happens on stdout, what is wrong (and is not any more) on stderr."""
    colour = {"problem": "red", "mended": "green"}.get(about)
    with contextlib.suppress(OSError):  # nobody reads any more (`gwanmun up manifests/ | head`): no reason to stop serving
        typer.secho(f"mended: {line}" if about == "mended" else line, fg=colour, err=colour is not None)


def log_line(about: str, line: str) -> None:
    """To programs: an event of the log."""
    tell = log.warning if about == "problem" else log.info
    tell(about, message=line)
