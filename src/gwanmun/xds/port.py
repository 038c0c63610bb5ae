"""A port of a Gateway: the shapes of its Envoy listeners, their route tables, and what it cannot serve.

Deliberately absent: Envoy's messages (``listener``, ``table``).
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gwanmun.ir import (
    ConnectionSettings,
    Endpoints,
    Host,
    HttpListener,
    L4Rule,
    Port,
    TcpListener,
    TlsListener,
    TlsTermination,
    UdpListener,
    WeightedTarget,
)
from gwanmun.names import CertificateKey, ClusterKey, ListenerKey, NamespacedName
from gwanmun.xds import names
from gwanmun.xds.http import HttpChain
from gwanmun.xds.listener import Chain, DatagramShape, ListenerShape, TcpChain, Tls
from gwanmun.xds.options import Binding
from gwanmun.xds.route import RouteContext
from gwanmun.xds.table import Shards, Table, shard_count, shards, table
from gwanmun.xds.types import Problem


@dataclass(frozen=True, slots=True)
class PortContext:
    """What a port has to know beside itself. `bindings` are those of every TCP port of its Gateway and its own."""

    gateway: NamespacedName
    bindings: tuple[tuple[int, tuple[Binding, ...]], ...]
    own: tuple[Binding, ...]
    connections: ConnectionSettings
    certificates: frozenset[CertificateKey]
    module_path: str | None
    access_log: str | None
    shard_threshold: int
    shards: int


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What becomes of a port. `shares` are the weighted backends of a UDP port that has several."""

    port: Port
    context: PortContext
    shapes: tuple[ListenerShape | DatagramShape, ...] = ()
    tables: Mapping[str, Table | Shards] = field(default_factory=dict)
    shares: tuple[tuple[int, ClusterKey | None], ...] = ()
    problems: tuple[Problem, ...] = ()


def plan_port(port: Port, context: PortContext, previous: PortPlan | None) -> PortPlan:
    """`previous` is a cache only."""
    if previous is not None and previous.port is port and previous.context == context:
        return previous
    udp = next((one for one in port.listeners if isinstance(one, UdpListener)), None)
    if udp is not None:
        return _udp(port, udp, context)
    plan = _Plan(port, context, previous)
    for group in _groups(context.own):
        plan.add(group)
    return plan.done()


def _groups(bindings: tuple[Binding, ...]) -> Iterator[tuple[Binding, ...]]:
    """One Envoy listener has many addresses, but its redirects show one port."""
    for advertised in sorted({binding.advertised for binding in bindings}):
        yield tuple(binding for binding in bindings if binding.advertised == advertised)


class _Plan:
    """A TCP port's plan while it is made, one group of addresses after the other."""

    def __init__(self, port: Port, context: PortContext, previous: PortPlan | None) -> None:
        self._port = port
        self._context = context
        self._before: Mapping[str, Table | Shards] = previous.tables if previous is not None else {}
        self._shapes: list[ListenerShape | DatagramShape] = []
        self._tables: dict[str, Table | Shards] = {}
        self._problems: dict[Problem, None] = {}

    def done(self) -> PortPlan:
        for built in self._tables.values():
            for one in built.tables if isinstance(built, Shards) else (built,):
                self._problems |= dict.fromkeys(one.problems)
        return PortPlan(self._port, self._context, tuple(self._shapes), self._tables, (), tuple(self._problems))

    def add(self, group: tuple[Binding, ...]) -> None:
        name = names.listener(self._context.gateway, self._port.number, "tcp", group[0].advertised)
        chains = tuple(self._chains(name, group))
        if chains:
            context = self._context
            self._shapes.append(
                ListenerShape(name, group, chains, context.connections, context.module_path, context.access_log)
            )

    def _chains(self, name: str, group: tuple[Binding, ...]) -> Iterator[Chain]:
        plain = [one for one in self._port.listeners if isinstance(one, HttpListener) and one.tls is None]
        if plain:
            yield Chain(name, self._http(name, plain, self._route_context("http", group)))
            return
        taken: set[tuple[str, ...]] = set()  # Envoy refuses a listener in which two chains match the same
        for listener in self._port.listeners:
            match listener:
                case HttpListener(tls=TlsTermination() as tls):
                    found = self._https(name, listener, tls, self._route_context("https", group))
                case TlsListener():
                    found = self._tls(name, listener)
                case TcpListener(rule=rule):
                    found = iter([Chain(name, _tcp(rule.targets if rule is not None else ()))])
                case _:
                    found = iter(())
            for chain in found:
                if chain.server_names in taken:
                    self._problem(listener.key, f"another listener of port {self._port.number} serves the same names")
                    continue
                taken.add(chain.server_names)
                yield chain

    def _https(self, name: str, listener: HttpListener, tls: TlsTermination, context: RouteContext) -> Iterator[Chain]:
        ended = self._ended(listener.key, tls)
        if ended is not None:
            table_name = names.route_table(name, listener.key)
            yield Chain(table_name, self._http(table_name, [listener], context), _server_names(listener.hostname), ended, True)

    def _tls(self, name: str, listener: TlsListener) -> Iterator[Chain]:
        ended = None
        if listener.tls is not None:
            ended = self._ended(listener.key, listener.tls)
            if ended is None:
                return
        chain_name = names.route_table(name, listener.key)
        served: set[str] = set()
        for index, rule in enumerate(listener.rules):
            for host in rule.hosts or (listener.hostname,):
                if host not in served:  # the oldest route has it
                    served.add(host)
                    yield Chain(f"{chain_name}|{index}|{host}", _tcp(rule.targets), _server_names(host), ended, True)
        if listener.hostname not in served:
            # No other listener is to get what this one's hostname says is its own.
            yield Chain(chain_name, _tcp(()), _server_names(listener.hostname), ended, True)

    def _ended(self, key: ListenerKey, tls: TlsTermination) -> Tls | None:
        found = tuple(one for one in tls.certificates if one in self._context.certificates)
        if not found:
            self._problem(key, "none of the listener's certificates can be used; it is not served")
            return None
        return Tls(found, tls.client_validation)

    def _http(self, table_name: str, listeners: list[HttpListener], context: RouteContext) -> HttpChain:
        inference = next((one.inference for one in listeners if one.inference is not None), None)
        if inference is not None and self._context.module_path is None:
            for one in listeners:
                if one.inference is not None:
                    header = one.inference.model_header
                    self._problem(
                        one.key,
                        "the native module is missing: the model is not read from request bodies, so that only requests "
                        f"with the header {header} are routed by their model",
                    )
        if inference is not None and self._context.module_path is not None:
            context = replace(context, one_valued=inference.model_header)  # the module sees to it
        max_request_bytes = listeners[0].max_request_bytes  # the same for all of a Gateway
        hosts = listeners[0].hosts if len(listeners) == 1 else _merged(listeners)
        misdirected = tuple(sorted({host for one in listeners for host in one.misdirected}))
        before = self._before.get(table_name)
        threshold, most = self._context.shard_threshold, self._context.shards
        count = shard_count(hosts, threshold=threshold, most=most) if self._context.module_path is not None else 0
        if count:
            cut = shards(
                table_name,
                hosts,
                count=count,
                misdirected=misdirected,
                context=replace(context, sharded=True),
                previous=before if isinstance(before, Shards) else None,
            )
            self._tables[table_name] = cut
            cors, picked = any(one.cors for one in cut.tables), any(one.picked for one in cut.tables)
            return HttpChain(table_name, inference, count, cors, picked, max_request_bytes)
        whole = table(
            table_name,
            hosts,
            misdirected=misdirected,
            context=context,
            previous=before if isinstance(before, Table) else None,
        )
        self._tables[table_name] = whole
        return HttpChain(table_name, inference, 0, whole.cors, whole.picked, max_request_bytes)

    def _route_context(self, scheme: str, group: tuple[Binding, ...]) -> RouteContext:
        """Other ports are seen where they are on the same address, if they are."""
        here = {binding.address for binding in group}
        advertised = []
        for number, bindings in self._context.bindings:
            near = [binding for binding in bindings if binding.address in here] or bindings
            seen = group[0].advertised if number == self._port.number else near[0].advertised
            advertised.append((number, seen))
        return RouteContext("https" if scheme == "https" else "http", self._port.number, tuple(advertised))

    def _problem(self, key: Hashable, message: str) -> None:
        self._problems[Problem(key, message)] = None


def _merged(listeners: list[HttpListener]) -> dict[str, Host]:
    """Each host is on one listener of a port; were it on more, the first would have it."""
    merged: dict[str, Host] = {}
    for listener in listeners:
        for domain, host in listener.hosts.items():
            merged.setdefault(domain, host)
    return merged


def _server_names(hostname: str) -> tuple[str, ...]:
    return () if hostname == "*" else (hostname,)


def _tcp(targets: tuple[WeightedTarget, ...]) -> TcpChain:
    """Without targets connections are closed."""
    return TcpChain(tuple((_cluster(one.target), one.weight) for one in targets) or ((names.UNRESOLVED, 1),))


def _cluster(target: ClusterKey | None) -> str:
    return names.UNRESOLVED if target is None else names.cluster(target)


def _udp(port: Port, listener: UdpListener, context: PortContext) -> PortPlan:
    rule: L4Rule | None = listener.rule
    targets = rule.targets if rule is not None else ()
    shares: tuple[tuple[int, ClusterKey | None], ...] = ()
    match targets:
        case ():
            cluster = names.UNRESOLVED
        case (only,):
            cluster = _cluster(only.target)
        case _:
            cluster = names.datagrams(context.gateway, port.number)
            shares = tuple((one.weight, one.target) for one in targets)
    name = names.listener(context.gateway, port.number, "udp", port.number)
    shapes = (DatagramShape(name, context.own, cluster),) if context.own else ()
    return PortPlan(port, context, shapes, {}, shares)


def share_endpoints(plan: PortPlan, endpoints: Mapping[ClusterKey, Endpoints]) -> tuple[tuple[int, Endpoints | None], ...]:
    """Where the shares of a UDP port go."""
    return tuple((weight, None if target is None else endpoints.get(target)) for weight, target in plan.shares)
