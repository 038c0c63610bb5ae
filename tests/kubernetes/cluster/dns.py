"""A DNS server over UDP that answers A questions from a function; AAAA and the like of a known name get an empty answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

_HEADER = struct.Struct("!HHHHHH")
_A, _IN = 1, 1
_ANSWER_FLAGS, _NXDOMAIN, _TTL = 0x8580, 3, 1
Resolve = Callable[[str], list[str] | None]


def answer(question: bytes, resolve: Resolve) -> bytes | None:
    """The reply to one packet; None for what is no question at all. `resolve` gives None for a name that does not exist."""
    try:
        number, _, questions, _, _, _ = _HEADER.unpack_from(question)
        name, end = _decode_name(question, _HEADER.size)
        kind, group = struct.unpack_from("!HH", question, end)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    if questions != 1:
        return None
    asked = question[_HEADER.size : end + 4]
    addresses = resolve(name)
    if addresses is None:
        return _HEADER.pack(number, _ANSWER_FLAGS | _NXDOMAIN, 1, 0, 0, 0) + asked
    records = [
        struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL, 4) + socket.inet_aton(address)
        for address in (addresses if (kind, group) == (_A, _IN) else [])
    ]
    return _HEADER.pack(number, _ANSWER_FLAGS, 1, len(records), 0, 0) + asked + b"".join(records)


def _decode_name(packet: bytes, offset: int) -> tuple[str, int]:
    """A name without compression, as questions have it, and the offset behind it."""
    labels = []
    while length := packet[offset]:
        labels.append(packet[offset + 1 : offset + 1 + length].decode("ascii"))
        offset += 1 + length
    return ".".join(labels), offset + 1


class _Server(asyncio.DatagramProtocol):
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        reply = answer(data, self._resolve)
        if reply is not None:
            self._transport.sendto(reply, client)


async def serve(address: str, resolve: Resolve, *, port: int = 53) -> None:
    """Answers until the event loop ends. OSError where the port is taken."""
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Server(resolve), (address, port))
