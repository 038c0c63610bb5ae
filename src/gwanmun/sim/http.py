"""HTTP/1.1 server connections for the simulators: h11 on asyncio transports.

Not uvicorn, because faults need the transport: reset in mid-body, silence, a listener that vanishes; and because a client
that leaves must cancel the work at once, streaming or not. Absent: HTTP/2, upgrades, trailers.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec
import structlog

from gwanmun.sim.faults import Drip, HangMidStream, ResetMidStream

Headers = Sequence[tuple[str, str]]

_HIGH_WATER = 256 * 1024
_LARGEST_HEAD = 256 * 1024

log = structlog.get_logger(__name__)


class DisconnectedError(Exception):
    """The client is gone; raised by writes, and the way a handler ends early."""


class Exchange:
    """One request, read completely, and its response."""

    def __init__(self, connection: "Connection", request: h11.Request, body: bytes) -> None:
        target = urlsplit(request.target.decode("ascii", "replace"))
        self.method = request.method.decode("ascii")
        self.path = unquote(target.path)
        self.query = {name: values[-1] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
        self.query_string = target.query
        self.http_version = request.http_version.decode("ascii")
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        self.body = body
        self.client = connection.client
        self.tls = connection.tls
        self.extra_headers: list[tuple[str, str]] = []
        self.mid_stream: HangMidStream | ResetMidStream | None = None
        self.drip: Drip | None = None
        self.status: int | None = None
        self._connection = connection
        self._pieces = 0
        self._chunked = False

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def respond(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """The whole answer at once."""
        if self.mid_stream is None and self.drip is None:
            head = self._head(status, [*headers, ("content-length", str(len(body)))])
            await self._connection.write(head + self._data(body) + self._end())
            return
        await self._connection.write(self._head(status, [*headers, ("content-length", str(len(body)))]))
        if self.mid_stream is not None:
            await self._connection.write(self._data(body[: len(body) // 2]))
            await self._stop(self.mid_stream)
        await self._write_slowly(body)
        await self.finish()

    async def respond_json(self, status: int, value: object, headers: Headers = ()) -> None:
        """`respond` with a JSON body."""
        await self.respond(status, msgspec.json.encode(value), [("content-type", "application/json"), *headers])

    async def start(self, status: int, headers: Headers = ()) -> None:
        """Send status and headers of a streamed answer now."""
        await self._connection.write(self._head(status, [*headers, ("transfer-encoding", "chunked")]))

    async def write(self, piece: bytes) -> None:
        """Send one piece of a streamed answer."""
        if self.mid_stream is not None and self._pieces >= self.mid_stream.after:
            await self._stop(self.mid_stream)
        self._pieces += 1
        await self._write_slowly(piece)

    async def finish(self) -> None:
        """End a streamed answer."""
        await self._connection.write(self._end())

    def reset(self) -> None:
        """End the connection with a reset instead of an answer."""
        self._connection.reset()

    async def hang(self) -> None:
        """Never return: the task is cancelled when the client leaves or the server stops."""
        await asyncio.get_running_loop().create_future()

    async def _stop(self, how: HangMidStream | ResetMidStream) -> None:
        match how:
            case HangMidStream():
                await self.hang()
            case ResetMidStream():
                self._connection.reset()
                raise DisconnectedError

    async def _write_slowly(self, piece: bytes) -> None:
        if self.drip is None:
            await self._connection.write(self._data(piece))
            return
        for start in range(0, len(piece), self.drip.size):
            await self._connection.write(self._data(piece[start : start + self.drip.size]))
            await asyncio.sleep(self.drip.every)

    def _head(self, status: int, headers: Headers) -> bytes:
        self.status = status
        return self._connection.encoded(h11.Response(status_code=status, headers=[*headers, *self.extra_headers]))

    def _data(self, piece: bytes) -> bytes:
        return b"" if self.method == "HEAD" else self._connection.encoded(h11.Data(data=piece))

    def _end(self) -> bytes:
        return self._connection.encoded(h11.EndOfMessage())


Handler = Callable[[Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection: requests one after the other, each handled in a task that dies with the connection."""

    def __init__(self, handler: Handler, connections: set["Connection"], *, keep_alive: float) -> None:
        self.client = ""
        self.tls: dict[str, str | None] | None = None
        self._handler = handler
        self._connections = connections
        self._keep_alive = keep_alive
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._request: h11.Request | None = None
        self._body: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if peer else ""
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            names = dict(pair for group in (session.getpeercert() or {}).get("subject", ()) for pair in group)
            self.tls = {"version": session.version(), "client_common_name": names.get("commonName")}
        self._connections.add(self)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        if self.task is None:
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_waiting()
        self._transport = None
        self._writable.set()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Used by Exchange and the server

    def encoded(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        """The bytes of one part of the answer. Raises DisconnectedError when the connection is already over."""
        if self._transport is None:
            raise DisconnectedError
        return self._h11.send(event) or b""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client reads too slowly. Raises DisconnectedError."""
        if self._transport is None or self._transport.is_closing():
            raise DisconnectedError
        if data:
            self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        if self._transport is None:
            return
        if not self._transport.is_closing():
            # Linger on, zero seconds: the kernel sends RST. What was written before may still be read by the other side.
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close_when_idle(self) -> None:
        """Close now, or after the answer that is under way."""
        if self.task is None and self._transport is not None:
            self._transport.close()
        self._keep_alive = 0.0

    # Reading

    def _read(self) -> None:
        assert self._transport is not None
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error)
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._stop_waiting()
                self._request = event
                self._body = []
                if self._h11.they_are_waiting_for_100_continue:
                    proceed = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
                    self._transport.write(self._h11.send(proceed) or b"")
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                exchange = Exchange(self, self._request, b"".join(self._body))
                self._request, self._body = None, []
                self.task = asyncio.get_running_loop().create_task(self._handle(exchange))
                return
            else:
                self._transport.close()
                return

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        assert self._transport is not None
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = str(error).encode()
            head = h11.Response(
                status_code=error.error_status_hint,
                headers=[("content-length", str(len(text))), ("connection", "close")],
            )
            for event in (head, h11.Data(data=text), h11.EndOfMessage()):
                self._transport.write(self._h11.send(event) or b"")
        self._transport.close()

    async def _handle(self, exchange: Exchange) -> None:
        # A client that left, or a fault that cut the line, is how this simulator is meant to be used: not an error.
        with contextlib.suppress(DisconnectedError):
            try:
                await self._handler(exchange)
            except (asyncio.CancelledError, DisconnectedError):
                raise
            except Exception:
                log.exception("sim_request_failed", method=exchange.method, path=exchange.path)
                await self._apologize(exchange)
        self.task = None
        if self._transport is None:
            return
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and self._keep_alive > 0:
            self._h11.start_next_cycle()
            self._wait_for_request()
            self._read()
        else:
            self._transport.close()

    async def _apologize(self, exchange: Exchange) -> None:
        """A mistake of ours: 500 if nothing was sent yet, else a cut connection, so that nobody takes it for an answer."""
        if exchange.status is None:
            await exchange.respond(500, b"the simulator failed; its log says why")
        else:
            self.reset()

    def _wait_for_request(self) -> None:
        assert self._transport is not None
        self._idle = asyncio.get_running_loop().call_later(self._keep_alive, self._transport.close)

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
