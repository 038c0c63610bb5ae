"""Containers' output on disk, one time stamp per line, and the kubelet endpoint by which `kubectl logs` reads it.

Deliberately absent: the logs of a container's previous run, and everything else that a kubelet serves (exec, attach,
port-forward, metrics): those answer 501.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PORT = 10250
_LIMIT = 64 * 2**20
_STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"


class Log:
    """One container's log file. `pump` appends until the container's output ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open = True
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    async def pump(self, output: asyncio.StreamReader) -> None:
        """Copies lines as they come; past 64 MiB the file starts anew, so a chatty pod cannot fill the disk."""
        rest = b""
        while chunk := await output.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._append(lines)
        if rest:
            self._append([rest])

    def note(self, text: str) -> None:
        """A line of the agent's own, such as why a program could not be started."""
        self._append([text.encode()])

    def _append(self, lines: list[bytes]) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime(_STAMP).encode()
        mode = "ab" if self.path.stat().st_size < _LIMIT else "wb"
        with self.path.open(mode) as file:
            file.write(b"".join(stamp + b" " + line + b"\n" for line in lines))


@dataclass(frozen=True)
class LogQuery:
    """The parameters of a request for logs, as the API server passes them on."""

    since: datetime.datetime | None = None
    tail: int | None = None
    limit: int | None = None
    timestamps: bool = False
    follow: bool = False


def decode_log_query(query: str, now: datetime.datetime) -> LogQuery:
    """ValueError for a number or time that is none."""
    values = {name: found[-1] for name, found in parse_qs(query).items()}
    since = datetime.datetime.fromisoformat(values["sinceTime"]) if "sinceTime" in values else None
    if "sinceSeconds" in values:
        since = now - datetime.timedelta(seconds=int(values["sinceSeconds"]))
    return LogQuery(
        since=since,
        tail=int(values["tailLines"]) if "tailLines" in values else None,
        limit=int(values["limitBytes"]) if "limitBytes" in values else None,
        timestamps=values.get("timestamps") == "true",
        follow=values.get("follow") == "true",
    )


def selected(lines: list[bytes], query: LogQuery) -> list[bytes]:
    """The lines that `query` asks for, with or without their time stamps."""
    if query.since is not None:
        first = query.since.astimezone(datetime.UTC).strftime(_STAMP).encode()
        lines = [line for line in lines if line[: len(first)] >= first]
    if query.tail is not None:
        lines = lines[-query.tail :] if query.tail else []
    return lines if query.timestamps else [line.partition(b" ")[2] for line in lines]


async def serve(pki: Path, find: Callable[[str, str, str], Log | None]) -> asyncio.Server:
    """The kubelet endpoint of all nodes; `find` is given namespace, pod and container. Only the API server may ask."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            async for part in _answer(head.split()[1], find):
                writer.write(part)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            return  # whoever asked is gone
        finally:
            writer.close()

    return await asyncio.start_server(handle, "0.0.0.0", PORT, ssl=context)


async def _answer(target: str, find: Callable[[str, str, str], Log | None]) -> AsyncIterator[bytes]:
    parts = urlsplit(target)
    words = parts.path.strip("/").split("/")
    if len(words) != 4 or words[0] != "containerLogs":
        yield _head("501 Not Implemented") + b"this node agent serves container logs only\n"
        return
    log = find(words[1], words[2], words[3])
    if log is None:
        yield _head("404 Not Found") + f"no container {words[3]} of pod {words[1]}/{words[2]} here\n".encode()
        return
    try:
        query = decode_log_query(parts.query, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        yield _head("400 Bad Request") + f"{error}\n".encode()
        return
    yield _head("200 OK")
    data = log.path.read_bytes()
    text = b"".join(line + b"\n" for line in selected(data.splitlines(), query))
    yield text if query.limit is None else text[: query.limit]
    if query.follow:
        async for part in _follow(log, len(data), query):
            yield part


async def _follow(log: Log, offset: int, query: LogQuery) -> AsyncIterator[bytes]:
    rest = LogQuery(timestamps=query.timestamps)
    while log.open:
        await asyncio.sleep(0.1)
        with log.path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        offset += len(data)
        if data:
            yield b"".join(line + b"\n" for line in selected(data.splitlines(), rest))


def _head(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n".encode()
