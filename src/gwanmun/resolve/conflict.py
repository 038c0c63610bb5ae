"""Conflicts between listeners that share a port: which listeners of a Gateway cannot be told apart.

Precedence is the Gateway's own listeners, then those of its ListenerSets, oldest first. A listener yields to what comes
before it from another object. Within one object nobody wins: all that cannot be told apart are refused, as Gateway API
demands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gwanmun.names import ListenerKey, ObjectKey
from gwanmun.resolve.hostname import wildcards_over

TLS_PROTOCOLS = ("HTTPS", "TLS")
UDP = "UDP"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a listener asks for; `hostname` is `*` for protocols without host names."""

    key: ListenerKey
    port: int
    protocol: str
    hostname: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """`reason` is HostnameConflict or ProtocolConflict; `other` is the first listener that it is with."""

    reason: str
    other: ListenerKey


@dataclass(slots=True)
class _Port:
    """The claims on one port so far, by what tells them apart; lookups instead of comparing all with all."""

    by_protocol: dict[str, list[ListenerKey]] = field(default_factory=dict)
    by_hostname: dict[str, list[ListenerKey]] = field(default_factory=dict)

    def add(self, claim: Claim) -> None:
        self.by_protocol.setdefault(claim.protocol, []).append(claim.key)
        self.by_hostname.setdefault(claim.hostname, []).append(claim.key)

    def conflict(self, claim: Claim) -> Conflict | None:
        """What a claim is in conflict with. A protocol's is told first: it stays even when hostnames are made to differ."""
        for protocol, keys in self.by_protocol.items():
            if not _may_share(claim.protocol, protocol) and (other := _first_other(keys, claim.key)):
                return Conflict("ProtocolConflict", other)
        other = _first_other(self.by_hostname.get(claim.hostname, ()), claim.key)
        return Conflict("HostnameConflict", other) if other else None


_Ports = dict[tuple[int, bool], _Port]


def find_conflicts(claims: Sequence[Claim]) -> dict[ListenerKey, Conflict]:
    """The listeners that are refused. `claims` are in order of precedence."""
    refused: dict[ListenerKey, Conflict] = {}
    accepted: _Ports = {}
    for owned in _by_owner(claims):
        yielding = _conflicts(owned, accepted)
        standing = [claim for claim in owned if claim.key not in yielding]
        quarrelling = _conflicts(standing, _ports(standing))
        for claim in standing:
            if claim.key not in quarrelling:
                accepted.setdefault(_socket(claim), _Port()).add(claim)
        refused |= yielding | quarrelling
    return refused


def find_overlaps(claims: Sequence[Claim]) -> dict[ListenerKey, ListenerKey]:
    """TLS listeners of one port whose hostnames overlap, each with another one that it overlaps with."""
    found: dict[ListenerKey, ListenerKey] = {}
    named = {(claim.port, claim.hostname): claim.key for claim in claims if claim.protocol in TLS_PROTOCOLS}
    for (port, hostname), key in named.items():
        for wider in wildcards_over(hostname):
            other = named.get((port, wider))
            if other is not None:
                found.setdefault(key, other)
                found.setdefault(other, key)
    return found


def _conflicts(claims: Sequence[Claim], ports: _Ports) -> dict[ListenerKey, Conflict]:
    return {
        claim.key: conflict
        for claim in claims
        if (port := ports.get(_socket(claim))) is not None and (conflict := port.conflict(claim)) is not None
    }


def _ports(claims: Sequence[Claim]) -> _Ports:
    ports: _Ports = {}
    for claim in claims:
        ports.setdefault(_socket(claim), _Port()).add(claim)
    return ports


def _by_owner(claims: Sequence[Claim]) -> list[list[Claim]]:
    owned: dict[ObjectKey, list[Claim]] = {}
    for claim in claims:
        owned.setdefault(claim.key.owner, []).append(claim)
    return list(owned.values())


def _first_other(keys: Sequence[ListenerKey], key: ListenerKey) -> ListenerKey | None:
    return next((other for other in keys if other != key), None)


def _socket(claim: Claim) -> tuple[int, bool]:
    return claim.port, claim.protocol == UDP


def _may_share(one: str, other: str) -> bool:
    """HTTP is told apart by Host, HTTPS and TLS together by SNI; TCP and UDP have nothing to tell apart by."""
    return one == other == "HTTP" or (one in TLS_PROTOCOLS and other in TLS_PROTOCOLS)
