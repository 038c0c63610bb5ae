"""One listener, judged by its own text, its neighbours on the port and its TLS material."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gwanmun import ir
from gwanmun.api.listener import Listener, ListenerTLSConfig
from gwanmun.memo import Query
from gwanmun.names import CertificateKey, ListenerKey, NamespacedName
from gwanmun.resolve.conflict import TLS_PROTOCOLS, Claim, Conflict
from gwanmun.resolve.namespace import namespace_rule
from gwanmun.resolve.status import Condition
from gwanmun.resolve.tls import FrontendValidation, Unresolved, certificate_ref, frontend_validation
from gwanmun.resolve.types import RouteListener
from gwanmun.resources.snapshot import GATEWAY_GROUP

ROUTE_KINDS_BY_PROTOCOL: Mapping[str, tuple[str, ...]] = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
"""The supported protocols, and the kinds of route that each can serve."""

NAMED_PROTOCOLS = ("HTTP", *TLS_PROTOCOLS)
"""Those that tell listeners apart by host name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A listener, judged. `tls` is None where TLS is not terminated; `listener.valid` ones have a place in the model.

    A `standing` listener is supported and without conflict. Even where it cannot serve it keeps its hosts from its
    neighbours, so that a broken certificate does not send its traffic to someone else's routes.
    """

    listener: RouteListener
    conditions: tuple[Condition, ...]
    tls: ir.TlsTermination | None
    standing: bool


@dataclass(frozen=True, slots=True)
class _Termination:
    """Certificates that can be served and why others cannot; all empty where the listener terminates no TLS."""

    certificates: tuple[CertificateKey, ...] = ()
    problems: tuple[Unresolved, ...] = ()
    clients: FrontendValidation = field(default_factory=FrontendValidation)


def judge(
    q: Query,
    gateway: NamespacedName,
    claim: Claim,
    listener: Listener,
    *,
    conflict: Conflict | None,
    overlap: ListenerKey | None,
    refused: bool,
) -> Verdict:
    """The verdict; `overlap` is a TLS listener of the same port with hosts in common, `refused` is about the Gateway."""
    terminates = listener.protocol in TLS_PROTOCOLS and (listener.tls is None or listener.tls.mode == "Terminate")
    termination = _termination(q, gateway, claim, listener.tls) if terminates else _Termination()
    namespaces, wrong_namespaces = namespace_rule(
        listener.allowed_routes.namespaces.from_,
        listener.allowed_routes.namespaces.selector,
        f"{_path(claim.key)}.allowedRoutes.namespaces",
    )
    kinds, unknown_kinds = _kinds(claim, listener)
    accepted = _accepted(claim, listener, conflict, wrong_namespaces, termination.clients)
    resolved = _resolved((*unknown_kinds, *termination.problems, *termination.clients.problems))
    lacking = "certificate" if terminates and not termination.certificates else "" if kinds else "kind of route"
    programmed = _programmed(accepted, conflict, refused=refused, lacking=lacking)
    overlapping = (_overlapping(claim, overlap),) if overlap is not None else ()
    return Verdict(
        RouteListener(
            key=claim.key,
            gateway=gateway,
            protocol=listener.protocol,
            tls_mode=_tls_mode(listener),
            port=listener.port,
            hostname=claim.hostname,
            kinds=kinds,
            namespaces=namespaces,
            valid=programmed.status is True,
        ),
        (accepted, _conflicted(claim, conflict), resolved, programmed, *overlapping),
        _tls(listener, termination) if terminates else None,
        listener.protocol in ROUTE_KINDS_BY_PROTOCOL and conflict is None,
    )


def _path(key: ListenerKey) -> str:
    return f"spec.listeners[{key.name}]"


def _tls_mode(listener: Listener) -> Literal["Terminate", "Passthrough"] | None:
    if listener.protocol not in TLS_PROTOCOLS:
        return None
    return "Passthrough" if listener.tls is not None and listener.tls.mode == "Passthrough" else "Terminate"


def _termination(q: Query, gateway: NamespacedName, claim: Claim, tls: ListenerTLSConfig | None) -> _Termination:
    path = f"{_path(claim.key)}.tls.certificateRefs"
    clients = q.get(frontend_validation, gateway, claim.port) if claim.protocol == "HTTPS" else FrontendValidation()
    if tls is None or not tls.certificate_refs:
        return _Termination(
            problems=(Unresolved("InvalidCertificateRef", f"{path}: a certificate is needed"),), clients=clients
        )
    found = [certificate_ref(q, claim.key.owner, ref, invalid="InvalidCertificateRef") for ref in tls.certificate_refs]
    return _Termination(
        tuple(dict.fromkeys(key for key in found if isinstance(key, CertificateKey))),
        tuple(
            Unresolved(problem.reason, f"{path}[{i}]: {problem.message}")
            for i, problem in enumerate(found)
            if isinstance(problem, Unresolved)
        ),
        clients,
    )


def _tls(listener: Listener, termination: _Termination) -> ir.TlsTermination:
    options = tuple(sorted(listener.tls.options.items())) if listener.tls is not None else ()
    return ir.TlsTermination(termination.certificates, termination.clients.validation, options)


def _kinds(claim: Claim, listener: Listener) -> tuple[tuple[tuple[str, str], ...], tuple[Unresolved, ...]]:
    """The kinds that may attach, in the order of the spec, and those that the protocol cannot serve."""
    supported = tuple((GATEWAY_GROUP, kind) for kind in ROUTE_KINDS_BY_PROTOCOL.get(claim.protocol, ()))
    asked = tuple(dict.fromkeys((kind.group, kind.kind) for kind in listener.allowed_routes.kinds))
    if not asked or not supported:
        return supported, ()
    unknown = tuple(
        Unresolved(
            "InvalidRouteKinds",
            f"{_path(claim.key)}.allowedRoutes.kinds: {kind} of group {group} cannot attach to a listener of protocol "
            f"{claim.protocol}; {' and '.join(ROUTE_KINDS_BY_PROTOCOL[claim.protocol])} can",
        )
        for group, kind in asked
        if (group, kind) not in supported
    )
    return tuple(kind for kind in asked if kind in supported), unknown


def _accepted(
    claim: Claim,
    listener: Listener,
    conflict: Conflict | None,
    wrong_namespaces: str | None,
    clients: FrontendValidation,
) -> Condition:
    path = _path(claim.key)
    if claim.protocol not in ROUTE_KINDS_BY_PROTOCOL:
        message = f'{path}.protocol: "{claim.protocol}" is not supported; {", ".join(ROUTE_KINDS_BY_PROTOCOL)} are'
        return Condition("Accepted", False, "UnsupportedProtocol", message)
    if conflict is not None:
        return Condition("Accepted", False, conflict.reason, _conflict_message(claim, conflict))
    accepted_modes = ("Terminate",) if claim.protocol == "HTTPS" else ("Terminate", "Passthrough")
    if claim.protocol in TLS_PROTOCOLS and listener.tls is not None and listener.tls.mode not in accepted_modes:
        message = (
            f'{path}.tls.mode: "{listener.tls.mode}" is not supported for {claim.protocol}; {" and ".join(accepted_modes)} is'
        )
        return Condition("Accepted", False, "UnsupportedValue", message)
    if wrong_namespaces is not None:
        return Condition("Accepted", False, "UnsupportedValue", wrong_namespaces)
    if clients.impossible:
        return Condition("Accepted", False, "NoValidCACertificate", "no client certificate can be checked; see ResolvedRefs")
    return Condition("Accepted", True, "Accepted")


def _conflicted(claim: Claim, conflict: Conflict | None) -> Condition:
    if conflict is None:
        return Condition("Conflicted", False, "NoConflicts")
    return Condition("Conflicted", True, conflict.reason, _conflict_message(claim, conflict))


def _conflict_message(claim: Claim, conflict: Conflict) -> str:
    other = _neighbour(claim, conflict.other)
    if conflict.reason == "HostnameConflict":
        return f'port {claim.port} and hostname "{claim.hostname}" are those of {other}'
    return f"protocol {claim.protocol} cannot share port {claim.port} with {other}"


def _neighbour(claim: Claim, other: ListenerKey) -> str:
    """Listeners of other ListenerSets are not named: their owners need not know of each other."""
    if other.owner == claim.key.owner:
        return f"listener {other.name}"
    return f"listener {other.name} of the Gateway" if other.owner.kind == "Gateway" else "a listener of another ListenerSet"


def _resolved(problems: tuple[Unresolved, ...]) -> Condition:
    """The first problem gives the reason, the message tells all."""
    if not problems:
        return Condition("ResolvedRefs", True, "ResolvedRefs")
    return Condition("ResolvedRefs", False, problems[0].reason, "; ".join(problem.message for problem in problems))


def _programmed(accepted: Condition, conflict: Conflict | None, *, refused: bool, lacking: str) -> Condition:
    if accepted.status is not True:
        reason = conflict.reason if conflict is not None else "Invalid"
        return Condition("Programmed", False, reason, "the listener is not accepted")
    if refused:
        return Condition("Programmed", False, "Invalid", "the Gateway is not accepted")
    if lacking:
        return Condition("Programmed", False, "Invalid", f"there is no valid {lacking}; see ResolvedRefs")
    return Condition("Programmed", True, "Programmed")


def _overlapping(claim: Claim, other: ListenerKey) -> Condition:
    """Clients may reuse a connection for a host of the other listener, and are then answered 421."""
    message = f'hostname "{claim.hostname}" overlaps with that of {_neighbour(claim, other)}'
    return Condition("OverlappingTLSConfig", True, "OverlappingHostnames", message)
