"""Listeners that pass TCP connections and UDP datagrams on to endpoints chosen at that moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol, cast

Endpoint = tuple[str, int]
Choose = Callable[[], list[Endpoint]]
_CONNECT_TIMEOUT = 2.0
_UDP_IDLE = 60.0


class Listener(Protocol):
    """An open port. `aim` says where to go, anew at each connection; `close` leaves connections that are open alone."""

    def aim(self, choose: Choose) -> None: ...
    def close(self) -> None: ...


class _Pipe(asyncio.Protocol):
    """One side of a connection: what it reads goes to `other`, at the pace at which that can take it."""

    def __init__(self) -> None:
        self.other: _Pipe | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        if self.other is not None and self.other.transport is not None and self.other.transport.can_write_eof():
            with contextlib.suppress(OSError):
                self.other.transport.write_eof()
        return True  # half closed: the answer may still come

    def connection_lost(self, exception: Exception | None) -> None:
        if self.other is None or self.other.transport is None:
            return
        if exception is not None:
            self.other.transport.abort()  # a reset stays a reset
        else:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()


class _Front(_Pipe):
    """The client's side; it dials an endpoint before it reads."""

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self._choose = choose
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        self._dialling = asyncio.create_task(self._dial())

    async def _dial(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        for address, port in self._choose():
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    _, back = await loop.create_connection(_Pipe, address, port)
            except (OSError, TimeoutError):
                continue
            back.other, self.other = self, back
            if self.transport.is_closing():
                self.connection_lost(None)
            else:
                self.transport.resume_reading()
            return
        self.transport.abort()  # no endpoint: refused, as kube-proxy's REJECT


class _TcpListener:
    def __init__(self) -> None:
        self._choose: Choose = list
        self.server: asyncio.Server | None = None

    def aim(self, choose: Choose) -> None:
        self._choose = choose

    def front(self) -> _Front:
        return _Front(self._choose)

    def close(self) -> None:
        assert self.server is not None
        self.server.close()


async def listen_tcp(address: str, port: int) -> Listener:
    """OSError where the port is taken."""
    listener = _TcpListener()
    loop = asyncio.get_running_loop()
    listener.server = await loop.create_server(listener.front, address, port, backlog=4096)
    return listener


class _UdpBack(asyncio.DatagramProtocol):
    """The way back of one client's datagrams; closes itself when nothing has come for a minute."""

    def __init__(self, front: _UdpListener, client: Endpoint) -> None:
        self._front = front
        self._client = client
        self.transport: asyncio.DatagramTransport | None = None
        self._used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        asyncio.get_running_loop().call_later(_UDP_IDLE, self._expire)

    def send(self, data: bytes) -> None:
        self._used = True
        assert self.transport is not None
        self.transport.sendto(data)

    def datagram_received(self, data: bytes, _address: object) -> None:
        self._used = True
        self._front.answer(data, self._client)

    def error_received(self, exception: Exception) -> None:
        self._end()  # nobody listens there any more: the next datagram chooses another endpoint

    def _expire(self) -> None:
        if self._used:
            self._used = False
            asyncio.get_running_loop().call_later(_UDP_IDLE, self._expire)
        else:
            self._end()

    def _end(self) -> None:
        self._front.forget(self._client)
        if self.transport is not None:
            self.transport.close()


class _UdpListener(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._choose: Choose = list
        self._transport: asyncio.DatagramTransport | None = None
        self._backs: dict[Endpoint, asyncio.Task[_UdpBack | None]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def aim(self, choose: Choose) -> None:
        self._choose = choose

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, client: Endpoint) -> None:
        if client not in self._backs:
            self._backs[client] = asyncio.create_task(self._open(client))
        task = asyncio.create_task(self._send(data, client))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def answer(self, data: bytes, client: Endpoint) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, client)

    def forget(self, client: Endpoint) -> None:
        self._backs.pop(client, None)

    async def _open(self, client: Endpoint) -> _UdpBack | None:
        endpoints = self._choose()
        if not endpoints:
            return None
        loop = asyncio.get_running_loop()
        _, back = await loop.create_datagram_endpoint(lambda: _UdpBack(self, client), remote_addr=endpoints[0])
        return back

    async def _send(self, data: bytes, client: Endpoint) -> None:
        back = await self._backs[client]
        if back is None:
            self.forget(client)
        else:
            back.send(data)


async def listen_udp(address: str, port: int) -> Listener:
    """OSError where the port is taken."""
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_datagram_endpoint(_UdpListener, (address, port), family=socket.AF_INET)
    return listener
