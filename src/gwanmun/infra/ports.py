"""Which address and port of this machine every port of every Gateway gets.

Pure: the same Gateways on the same machine get the same places, in whatever order they came, and a place in use does not
move because other Gateways come and go. Whether a place is free is a question to the machine (`probe`), asked through an
argument. Deliberately absent: opening sockets, which is Envoy's work.

A Gateway without spec.addresses is bound to the address chosen for all (127.0.0.1). Where two Gateways want one port,
the next one gets 127.0.0.2, and so on: every client keeps the port it knows. Ports that need privileges which we lack are
mapped: 80 to 8080, 443 to 8443, and on to 10443, 20443 where that is taken.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

from gwanmun.ir.gateway import Gateway
from gwanmun.names import NamespacedName

Transport = Literal["tcp", "udp"]
_HIGHEST_PORT = 65_535
_LAST_SIBLING = 254


class PortKey(NamedTuple):
    """One port that a Gateway's manifests name."""

    gateway: NamespacedName
    port: int
    transport: Transport

    def __str__(self) -> str:
        return f"Gateway {self.gateway}, {self.transport} port {self.port}"


class Place(NamedTuple):
    """Something that only one socket can be bound to."""

    address: str
    port: int
    transport: Transport


@dataclass(frozen=True, slots=True)
class LocalBinding:
    """Where the port is served. `advertised` is the port that clients have to use. `note` says why it is another address
    or port than the manifests or options name, empty if it is the same."""

    address: str
    port: int
    advertised: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a place cannot be used, with the reason of the condition that says so."""

    reason: Literal["PortUnavailable", "AddressNotUsable"]
    message: str


@dataclass(frozen=True, slots=True)
class PortProblem:
    """A port that is not served here."""

    key: PortKey
    reason: Literal["PortUnavailable", "AddressNotUsable"]
    message: str


@dataclass(frozen=True, slots=True)
class PortOptions:
    """`address` is for Gateways that ask for none. Ports below `first_unprivileged` are mapped; 0 maps none."""

    address: str = "127.0.0.1"
    first_unprivileged: int = 1024


@dataclass(frozen=True, slots=True)
class PortPlan:
    """`bindings` has one for each address of spec.addresses, and exactly one where there are none."""

    bindings: Mapping[PortKey, tuple[LocalBinding, ...]] = field(default_factory=dict)
    problems: tuple[PortProblem, ...] = ()


def plan_ports(
    gateways: Iterable[Gateway],
    *,
    options: PortOptions,
    previous: Mapping[PortKey, tuple[LocalBinding, ...]],
    unusable: Callable[[Place], Unusable | None],
) -> PortPlan:
    """Bindings, or problems, for every port. `previous` is the last plan's: those that still fit stay. `unusable` is not
    asked about the places in it, since our own Envoy holds them."""
    # Those that ask for an address come first: the others can go elsewhere.
    ordered = sorted(gateways, key=lambda gateway: (not gateway.addresses, gateway.key))
    held = {Place(binding.address, binding.port, key.transport) for key, bound in previous.items() for binding in bound}
    plan = _Plan(options, lambda place: None if place in held else unusable(place))
    for gateway in ordered:
        for key in _keys(gateway):
            fitting = [binding for binding in previous.get(key, ()) if _still_fits(gateway, key, binding, options)]
            for binding in fitting if gateway.addresses else fitting[:1]:
                plan.bind(key, binding)
    for gateway in ordered:
        plan.place(gateway)
    bindings = {key: tuple(sorted(plan.bindings[key], key=lambda b: b.address)) for key in sorted(plan.bindings)}
    return PortPlan(bindings, tuple(sorted(plan.problems, key=lambda p: (p.key, p.message))))


def _keys(gateway: Gateway) -> list[PortKey]:
    """Ports that are bound as they are come first: those that are mapped have to keep clear of them."""
    return [
        PortKey(gateway.key, port.number, port.transport)
        for port in sorted(gateway.ports, key=lambda p: (-p.number, p.transport))
    ]


def _still_fits(gateway: Gateway, key: PortKey, binding: LocalBinding, options: PortOptions) -> bool:
    if gateway.addresses:
        address_fits = binding.address in gateway.addresses
    else:
        address_fits = binding.address in _candidates(options.address)
    mapped = key.port < options.first_unprivileged
    port_fits = binding.port >= options.first_unprivileged if mapped else binding.port == key.port
    return address_fits and port_fits


@cache
def _candidates(address: str) -> Sequence[str]:
    """Addresses to try for Gateways that ask for none. All of 127.0.0.0/8 is this machine; any other address has no
    siblings that we could take unasked."""
    first = ipaddress.ip_address(address)
    if not (isinstance(first, ipaddress.IPv4Address) and first.is_loopback):
        return [address]
    last_octet = int(first) & 0xFF
    return [str(first + step) for step in range(max(1, _LAST_SIBLING - last_octet + 1))]


class _Plan:
    """The plan while it is made."""

    def __init__(self, options: PortOptions, unusable: Callable[[Place], Unusable | None]) -> None:
        self.bindings: dict[PortKey, list[LocalBinding]] = {}
        self.problems: list[PortProblem] = []
        self._options = options
        self._unusable = unusable
        self._taken: dict[tuple[int, Transport], dict[str, NamespacedName]] = {}

    def bind(self, key: PortKey, binding: LocalBinding) -> None:
        self.bindings.setdefault(key, []).append(binding)
        self._taken.setdefault((binding.port, key.transport), {})[binding.address] = key.gateway

    def place(self, gateway: Gateway) -> None:
        """Bind what is not bound yet of a Gateway: on each address that it asks for, or together on one of our choice."""
        if not gateway.addresses:
            self._place_together(gateway, [key for key in _keys(gateway) if key not in self.bindings])
            return
        for address in gateway.addresses:
            keys = [key for key in _keys(gateway) if all(b.address != address for b in self.bindings.get(key, ()))]
            if _is_ip(address):
                for key in keys:
                    self._place_one(gateway, key, [address])
            else:
                message = f"{address} is not an IP address; a proxy on this machine needs one of its own"
                self.problems += [PortProblem(key, "AddressNotUsable", message) for key in keys]

    def _place_together(self, gateway: Gateway, keys: list[PortKey]) -> None:
        own = {binding.address: None for key in _keys(gateway) for binding in self.bindings.get(key, ())}
        candidates = [*own, *(address for address in _candidates(self._options.address) if address not in own)]
        roomy = next((a for a in candidates if all(self._port_at(a, gateway, key) is not None for key in keys)), None)
        for key in keys:
            self._place_one(gateway, key, candidates if roomy is None else [roomy])

    def _place_one(self, gateway: Gateway, key: PortKey, addresses: list[str]) -> None:
        address = next((a for a in addresses if self._port_at(a, gateway, key) is not None), None)
        if address is None:
            holder = self._holder(addresses[0], key.port, key.transport)
            message = f"{key.transport} port {key.port} of {addresses[0]} is already bound for Gateway {holder}"
            self.problems.append(PortProblem(key, "PortUnavailable", message))
            return
        for port in self._ports(gateway, key):
            if self._holder(address, port, key.transport) is not None:
                continue
            found = self._unusable(Place(address, port, key.transport))
            if found is None:
                self.bind(key, LocalBinding(address, port, port, self._note(gateway, key, address, port)))
                return
            # A port that clients know is not exchanged for another; one that we have chosen is.
            if port == key.port or found.reason == "AddressNotUsable":
                self.problems.append(PortProblem(key, found.reason, found.message))
                return

    def _port_at(self, address: str, gateway: Gateway, key: PortKey) -> int | None:
        """The first port that could serve `key` there, other Gateways considered; None if there is none.

        A mapped port gives way to an address of its own before it gives way to another Gateway, as far as we may choose
        addresses; then the port that clients are told is the same for all Gateways.
        """
        may_move = len(_candidates(self._options.address)) > 1 and not gateway.addresses
        for port in self._ports(gateway, key):
            if self._holder(address, port, key.transport) is None:
                return port
            if may_move and self._holder(address, port, key.transport) != gateway.key:
                return None
        return None

    def _ports(self, gateway: Gateway, key: PortKey) -> Iterator[int]:
        if key.port >= self._options.first_unprivileged:
            yield key.port
            return
        named = {port.number for port in gateway.ports if port.transport == key.transport}
        for offset in (8_000, *range(10_000, 60_000, 10_000)):
            if key.port + offset not in named:
                yield key.port + offset
        yield from (port for port in range(key.port + 8_001, _HIGHEST_PORT + 1) if port not in named)

    def _holder(self, address: str, port: int, transport: Transport) -> NamespacedName | None:
        """The Gateway whose binding excludes this one."""
        holders = self._taken.get((port, transport), {})
        return next((gateway for taken, gateway in holders.items() if _overlap(taken, address)), None)

    def _note(self, gateway: Gateway, key: PortKey, address: str, port: int) -> str:
        notes = []
        if port != key.port:
            notes.append(f"port {key.port} needs privileges: bound to {port}")
        usual = self._options.address
        if not gateway.addresses and address != usual:
            holder = self._holder(usual, port, key.transport)
            notes.append(f"bound to {address}" + (f", since Gateway {holder} is on {usual}" if holder else ""))
        return "; ".join(notes)


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _overlap(one: str, other: str) -> bool:
    """Whether the same port of both cannot be bound: they are the same, or one is all addresses of that family."""
    if one == other:
        return True
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first == second or (first.version == second.version and (first.is_unspecified or second.is_unspecified))
