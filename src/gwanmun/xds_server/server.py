"""The gRPC loop around the delta-ADS machine: moves bytes, enforces limits, decides nothing.

Deliberately absent: state-of-the-world xDS and one service per type; every Envoy that we start speaks delta ADS.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from gwanmun.xds_server.messages import Node, decode_node, decode_request, encode_response
from gwanmun.xds_server.publisher import Peer, Publisher, Scope, Session
from gwanmun.xds_server.resources import Need

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"


class Cause(StrEnum):
    """Why a stream is turned away, in a word for whoever counts."""

    NO_TOKEN = "no_token"  # noqa: S105  a word, no token
    BAD_TOKEN = "bad_token"  # noqa: S105  a word, no token
    NO_ACCOUNT = "no_service_account"
    OTHER_ACCOUNT = "other_account"
    NOT_SERVED = "not_served"
    UNCHECKED = "unchecked"
    SILENT = "silent"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a proxy may not have any configuration."""

    reason: str
    cause: Cause = Cause.OTHER_ACCOUNT

    @property
    def known(self) -> bool:
        """Whether it has at least said convincingly who it is."""
        return self.cause not in (Cause.NO_TOKEN, Cause.BAD_TOKEN)


class _Failure(NamedTuple):
    """How a stream ends badly."""

    status: grpc.StatusCode
    reason: str
    cause: Cause | None = None


ScopeOf = Callable[[Node, Peer], Scope | Refusal]
"""Decides which set a proxy gets. What the node says of itself is a claim; the peer's names are proven."""

Metadata = Mapping[str, str]
"""What came with a stream before its first message, such as ``authorization``."""

Identify = Callable[[Metadata, Peer], Awaitable[Peer | Refusal]]
"""Finds out who a peer is: the peer with the names that it has proven, or why it is turned away. Whoever cannot find out for
the moment (no one to ask) raises TimeoutError; the proxy tries again."""

TurnedAway = Callable[[Peer, Cause, str], None]
"""Is told of every stream that is turned away, and why."""


async def by_certificate(_: Metadata, peer: Peer) -> Peer | Refusal:
    """Who a peer is, where its certificate (or the file mode of the socket) says it all."""
    return peer


def untold(_: Peer, cause: Cause, reason: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`max_streams` and `max_streams_of_one` (holder of a name, such as all proxies of a Gateway) count who has proven who it
    is; whoever has yet to is one of `max_unidentified`. `first_request_seconds` is how long a stream may be silent at first.

    `patience`: a stream stops waiting for what its proxy does not ask for (`Stream.awaited`) after one to two times as
    many seconds.

    Keepalives find a peer that vanished without a word; Envoy's own keepalive does the same at its end.
    """

    max_streams: int = 2000
    max_streams_of_one: int = 500
    max_unidentified: int = 1000
    first_request_seconds: float = 10.0
    max_request_bytes: int = 64 << 20
    keepalive_seconds: float = 20.0
    keepalive_timeout_seconds: float = 10.0
    patience: float = 5.0


class XdsServer:
    """Serves what a `Publisher` publishes. Constructing it starts nothing; `start` listens, `stop` ends in good order.

    `services` are further gRPC services for the same port, such as access-log ingest.
    """

    def __init__(
        self,
        publisher: Publisher,
        scope_of: ScopeOf,
        options: ServerOptions = ServerOptions(),
        services: Sequence["grpc.GenericRpcHandler[Any, Any]"] = (),
        identify: Identify = by_certificate,
        turned_away: TurnedAway = untold,
    ) -> None:
        self._publisher = publisher
        self._scope_of = scope_of
        self._identify = identify
        self._turned_away = turned_away
        self._options = options
        self._services = services
        self._server: grpc.aio.Server | None = None
        self._unidentified = 0
        self._streams: Counter[str] = Counter()
        self._stopping = False

    async def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on "127.0.0.1:0", "unix:/run/ads.sock" or the like; returns the port (a socket path has none to speak of).

        `credentials` (``grpc.ssl_server_credentials``) turn on TLS, and mutual TLS where they demand a client certificate.
        Raises RuntimeError when the address is not to be had.
        """
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        service = grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})
        server = grpc.aio.server(options=_channel_options(self._options))
        server.add_generic_rpc_handlers((service, *self._services))
        try:
            port = _bind(server, address, credentials)
            await server.start()
        except BaseException:
            await server.stop(0)
            raise
        self._server = server
        return port

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """End all streams and stop listening. Proxies serve on with what they hold and connect again by themselves."""
        self._stopping = True
        self._publisher.close()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """One stream, from the first message to the end."""
        failure = await self._serve_whom_we_know(requests, context)
        if failure is not None:
            if failure.cause is not None:
                self._turned_away(_peer_of(context), failure.cause, failure.reason)
            await context.abort(failure.status, failure.reason)

    async def _serve_whom_we_know(self, requests: AsyncIterator[bytes], context: Any) -> _Failure | None:
        peer = await self._who(context)
        if isinstance(peer, _Failure):
            return peer
        holder = peer.names[0] if peer.names else ""
        if (full := self._full(holder)) is not None:
            return full
        self._streams[holder] += 1
        try:
            return await self._converse(requests, context, peer)
        finally:
            self._streams[holder] -= 1
            self._streams += Counter()  # forgets those that have none

    async def _who(self, context: Any) -> Peer | _Failure:
        """Nobody who has yet to say who he is takes the place of those that have."""
        if self._unidentified >= self._options.max_unidentified:
            return _limit(f"{self._unidentified} others have yet to prove who they are")
        self._unidentified += 1
        try:
            found = await self._identify(_metadata_of(context), _peer_of(context))
        except TimeoutError as error:
            return _Failure(grpc.StatusCode.UNAVAILABLE, str(error), Cause.UNCHECKED)
        finally:
            self._unidentified -= 1
        return _refused(found) if isinstance(found, Refusal) else found

    def _full(self, holder: str) -> _Failure | None:
        total, of_one = self._streams.total(), self._streams[holder]
        if total >= self._options.max_streams:
            return _limit(f"{total} proxies are connected already")
        if holder and of_one >= self._options.max_streams_of_one:
            return _limit(f"{of_one} proxies of {holder} are connected already")
        return None

    async def _converse(self, requests: AsyncIterator[bytes], context: Any, peer: Peer) -> _Failure | None:
        try:
            async with asyncio.timeout(self._options.first_request_seconds):
                first = await anext(requests, None)
        except TimeoutError:
            reason = f"no request came within {self._options.first_request_seconds:g} s"
            return _Failure(grpc.StatusCode.DEADLINE_EXCEEDED, reason, Cause.SILENT)
        if first is None:
            return None
        try:
            node, request = decode_node(first), decode_request(first)
        except DecodeError as error:
            return _Failure(grpc.StatusCode.INVALID_ARGUMENT, f"not a DeltaDiscoveryRequest: {error}")
        scope = self._scope_of(node, peer)
        if isinstance(scope, Refusal):
            return _refused(scope)
        await self._publisher.until(lambda: self._stopping or self._publisher.published(scope) is not None)
        if self._stopping:
            return None
        session = self._publisher.connect(node, scope, peer)
        try:
            self._publisher.receive(session, request)
            async with asyncio.TaskGroup() as tasks:
                others = (
                    tasks.create_task(self._read(requests, session)),
                    tasks.create_task(self._lose_patience(session)),
                )
                await _write(session, context)
                for other in others:
                    other.cancel()
        finally:
            self._publisher.disconnect(session)
        return _Failure(grpc.StatusCode.INVALID_ARGUMENT, session.failure) if session.failure else None

    async def _read(self, requests: AsyncIterator[bytes], session: Session) -> None:
        try:
            async for data in requests:
                self._publisher.receive(session, decode_request(data))
        except DecodeError as error:
            session.failure = f"not a DeltaDiscoveryRequest: {error}"
        session.close()

    async def _lose_patience(self, session: Session) -> None:
        """Let the stream go on when it waits for the same things as one interval ago."""
        before: tuple[Need, ...] = ()
        while True:
            await asyncio.sleep(self._options.patience)
            if before and session.stream.awaited == before:
                self._publisher.stop_waiting(session)
            before = session.stream.awaited


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    if credentials is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, credentials))


async def _write(session: Session, context: Any) -> None:
    """Write what the session has to say until it closes. Waiting here for a slow proxy holds up nobody else."""
    while not session.closed:
        await session.wake.wait()
        session.wake.clear()
        outbox, session.outbox = session.outbox, []
        for response in outbox:
            await context.write(encode_response(response))


def _peer_of(context: Any) -> Peer:
    identity = context.auth_context()
    names = [*identity.get("x509_subject_alternative_name", ()), *identity.get("x509_common_name", ())]
    return Peer(context.peer(), tuple(dict.fromkeys(name.decode() for name in names)))


def _metadata_of(context: Any) -> Metadata:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _refused(refusal: Refusal) -> _Failure:
    status = grpc.StatusCode.PERMISSION_DENIED if refusal.known else grpc.StatusCode.UNAUTHENTICATED
    return _Failure(status, refusal.reason, refusal.cause)


def _limit(reason: str) -> _Failure:
    return _Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, Cause.LIMIT)


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second control plane on one port must fail, not share its proxies
        ("grpc.max_receive_message_length", options.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", options.max_streams),
        ("grpc.keepalive_time_ms", int(options.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Envoy pings as often as its bootstrap says; without these two gRPC takes that for abuse and hangs up.
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
