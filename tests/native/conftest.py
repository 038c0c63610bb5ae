"""A real Envoy with the module, a static configuration, and an upstream that reports what it saw.

One Envoy serves all tests of this folder; each listener has its own filter configuration. Deliberately absent: the
control plane, so that what these tests show is the module's alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy
import pytest
import pytest_asyncio

import gwanmun

ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"
MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"

MIB = 1024 * 1024
FILTER_CONFIGS = {
    "main": {"model_header": "x-model-id", "max_request_bytes": 4 * MIB},
    "small": {"max_request_bytes": 1000},
    "sharded": {"model_header": "", "shards": 7},
}


@dataclass(frozen=True)
class Reply:
    """What a client got. `seen` is the upstream's report, or the error's JSON where Envoy answered itself."""

    status: int
    headers: dict[str, str]
    seen: Any


class Gateway:
    """A running Envoy; `ports` by listener name, `upstreams` by cluster name."""

    def __init__(self, process: subprocess.Popen[bytes], admin: str, ports: dict[str, int]) -> None:
        self.process = process
        self.ports = ports
        self.upstreams: dict[str, Upstream] = {}
        self._admin = admin

    def is_alive(self) -> bool:
        return self.process.poll() is None and _get(f"{self._admin}/ready") == "LIVE\n"

    async def until_received(self, total: int) -> None:
        """Waits until `received_bytes` is `total`."""
        async with asyncio.timeout(10):
            while self.received_bytes() < total:  # noqa: ASYNC110 - another process's counter has no event
                await asyncio.sleep(0.005)

    def received_bytes(self) -> int:
        """Bytes that the listeners' connections have read so far."""
        stats = json.loads(_get(f"{self._admin}/stats?format=json&filter=%5Ehttp%5C..*downstream_cx_rx_bytes_total"))
        return sum(stat["value"] for stat in stats["stats"] if "http.admin" not in stat["name"])

    async def send(
        self, *pieces: bytes, listener: str = "main", path: str = "/v1/chat", chunked: bool = False, **headers: str
    ) -> Reply:
        """Sends one POST whose body arrives in these pieces, without a pause between them."""
        exchange = await Exchange.open(self, listener)
        # As real clients do, look for an answer while writing: a refusal comes before the body's end, and is lost with
        # the connection a second later.
        reply = asyncio.create_task(exchange.reply())
        await exchange.write(head(pieces, path=path, chunked=chunked, **headers))
        for piece in pieces:
            await exchange.write(framed(piece, chunked=chunked))
        if chunked:
            await exchange.write(b"0\r\n\r\n")
        return await reply


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, gateway: Gateway, listener: str = "main") -> Exchange:
        return cls(*await asyncio.open_connection("127.0.0.1", gateway.ports[listener]))

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return  # answered early; the reply tells

    def abort(self) -> None:
        """Goes away without a word."""
        self._writer.transport.abort()

    async def reply(self) -> Reply:
        start = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), timeout=10)
        status, headers = parse_head(start)
        body = await read_body(self._reader, headers)
        self._writer.close()
        return Reply(int(status.split()[1]), headers, json.loads(body) if body else None)


def head(pieces: tuple[bytes, ...], *, path: str = "/v1/chat", chunked: bool = False, **headers: str) -> bytes:
    """The head of a POST; a header's name has `_` for `-`, and an empty value leaves it out."""
    length = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(sum(map(len, pieces)))}
    fields = {"host": "test", "content-type": "application/json", **length}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode()


def framed(piece: bytes, *, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece


def parse_head(data: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = data.decode("latin-1").rstrip().split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while await reader.readline() not in (b"\r\n", b""):
        pass  # trailers
    return body


class Upstream:
    """A server that answers every request with what it got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.saw_head = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MIB)

    async def stop(self) -> None:
        """Waits for the connections to end, which the other side has closed."""
        self._server.close()
        await asyncio.gather(*self._connections)

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                _, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
                self.saw_head.set()
                body = await read_body(reader, headers)
                report = {
                    "upstream": self.name,
                    "headers": headers,
                    "metadata": json.loads(headers.get("x-metadata") or "null"),
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
                answer = json.dumps(report).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # Envoy has closed its side
        finally:
            writer.close()
            self._connections.discard(task)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
        return text


def module_filter(config: str) -> dict[str, Any]:
    """The HTTP filter; `config` is its JSON text."""
    return {
        "name": "gwanmun",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(MODULE)}}},
            "filter_name": "inference",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config},
        },
    }


def _route(match: dict[str, Any], cluster: str) -> dict[str, Any]:
    metadata = {"header": {"key": "x-metadata", "value": "%DYNAMIC_METADATA(gwanmun)%"}}
    return {"match": {"prefix": "/", **match}, "route": {"cluster": cluster}, "request_headers_to_add": [metadata]}


def _model_is(model: str) -> dict[str, Any]:
    return {"headers": [{"name": "x-model-id", "string_match": {"exact": model}}]}


def listener(name: str, config: str) -> dict[str, Any]:
    """A listener whose routes take the models gpt-4 and llama, and the path /any for all else."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_protocol_options": {"enable_trailers": True},
        "route_config": {
            "validate_clusters": False,
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        _route(_model_is("gpt-4"), "gpt"),
                        _route(_model_is("llama"), "llama"),
                        _route({"prefix": "/any"}, "llama"),
                    ],
                }
            ],
        },
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {"response_flag_filter": {"flags": ["NR"]}},
                    "body_format_override": {"json_format": {"metadata": "%DYNAMIC_METADATA(gwanmun)%"}},
                }
            ]
        },
        "http_filters": [
            module_filter(config),
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        # Far below the bodies that are held: the module has to raise it.
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _cluster(upstream: Upstream) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream.port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": upstream.name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": upstream.name, "endpoints": endpoints},
    }


@contextmanager
def running(folder: Path, bootstrap: dict[str, Any]) -> Iterator[Gateway]:
    """Runs Envoy until the block ends; fails with its log if it does not come up."""
    config, address, log = folder / "envoy.json", folder / "admin", folder / "log"
    config.write_text(json.dumps(bootstrap))
    with log.open("wb") as output:
        command: list[str | Path] = [
            ENVOY,
            "-c",
            config,
            "--admin-address-path",
            address,
            "--disable-hot-restart",
            "--concurrency",
            "1",
        ]
        process = subprocess.Popen([*command, "--log-level", "warning"], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while not (address.exists() and _is_live(f"http://{address.read_text()}")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        admin = f"http://{address.read_text()}"
        listeners = json.loads(_get(f"{admin}/listeners?format=json"))["listener_statuses"]
        ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in listeners}
        yield Gateway(process, admin, ports)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _is_live(admin: str) -> bool:
    try:
        return _get(f"{admin}/ready") == "LIVE\n"
    except OSError:
        return False


@pytest.fixture(scope="session")
def module() -> Path:
    if not MODULE.exists():
        pytest.fail('the native module is not built: `make module`, or leave these tests out with `-m "not native"`')
    return MODULE


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(module: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("envoy")
    upstreams = [Upstream(name) for name in ("gpt", "llama")]
    for upstream in upstreams:
        await upstream.start()
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [listener(name, json.dumps(config)) for name, config in FILTER_CONFIGS.items()],
            "clusters": [_cluster(upstream) for upstream in upstreams],
        },
    }
    with running(folder, bootstrap) as gateway:
        gateway.upstreams = {upstream.name: upstream for upstream in upstreams}
        yield gateway
    for upstream in upstreams:
        await upstream.stop()
