"""`explain(model, request)`: the listener, host, rule and backends of a request, and of every other rule why not.

The rules of matching are the Gateway API's, the order is the model's own: the first rule that matches is taken, as the proxy
does it (`tests/envoy/test_explain_agrees.py` compares them). Nothing is sent. Not known here: the headers that Envoy sets or
removes before it looks for a route, such as `x-forwarded-for`, and TLS listeners that pass connections through.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, assert_never
from urllib.parse import urlsplit

from gwanmun import ir
from gwanmun.explain.body import BodyReading, read_body, too_large, with_one_model
from gwanmun.explain.headers import Headers, value_of, with_value
from gwanmun.explain.match import mismatch
from gwanmun.explain.path import normalized
from gwanmun.names import ListenerKey, NamespacedName

_AUTHORITY: Final = re.compile(r"(?P<host>.*?)\.?(:[0-9]+)?", re.DOTALL)


class Door(NamedTuple):
    """Where the port of a Gateway is bound on this machine."""

    gateway: NamespacedName
    port: int
    address: str
    bound: int

    def is_at(self, host: str) -> bool:
        """Whether connections to that host come here; False for a name, which says nothing of it."""
        if not _is_address(host):
            return False
        mine, asked = ipaddress.ip_address(self.address), ipaddress.ip_address(host)
        return mine == asked or (mine.is_unspecified and mine.version == asked.version)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a client would send it. `server` is where it connects to, and what it names to TLS: the URL's host; `host`
    is the host that it asks for, another where it sends the header. `path` and `query` are as they are sent. `port` is the
    listener's port (443, not where it is bound on this machine); None takes the scheme's. `model` is for one whose model is
    known, however it came, `gateway` for one that is known to be sent to that Gateway."""

    method: str
    scheme: str
    server: str
    host: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    port: int | None = None
    model: str = ""
    gateway: NamespacedName | None = None

    @classmethod
    def of(cls, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> "Request":
        """From a URL such as `https://inference.example.com/v1/models`. ValueError where it is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f'"{url}" is not a URL such as https://inference.example.com/v1/chat/completions')
        sent = tuple((name.lower(), value) for name, value in headers)
        hosts = [value for name, value in sent if name == "host"]
        return cls(
            method=method.upper(),
            scheme=parts.scheme,
            server=_host_of(parts.hostname),
            host=_host_of(",".join(hosts) if hosts else parts.hostname),
            path=parts.path or "/",
            query=parts.query,
            headers=tuple(one for one in sent if one[0] != "host"),
            body=body,
            port=parts.port,
        )

    def via(self, doors: Sequence[Door]) -> "Request":
        """The request as it reaches a Gateway on this machine: by the port that is bound here or by the listener's own, and
        where the URL names an address, by that."""
        port = self.effective_port
        here = [door for door in doors if door.bound == port] or [door for door in doors if door.port == port]
        chosen = [door for door in here if door.is_at(self.server)]
        if chosen:
            return replace(self, port=chosen[0].port, gateway=chosen[0].gateway)
        return replace(self, port=here[0].port) if here else self

    @property
    def effective_port(self) -> int:
        return self.port or (443 if self.scheme == "https" else 80)

    @property
    def listener_host(self) -> str:
        """By what a listener is chosen: the name given to TLS, which is none for an address; without TLS the host asked for."""
        if self.scheme == "http":
            return self.host
        return "" if _is_address(self.server) else self.server


def _host_of(authority: str) -> str:
    """As host names of routes are compared: without port, without the dot at the end."""
    found = _AUTHORITY.fullmatch(authority.lower())
    return found["host"] if found else authority


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Served(NamedTuple):
    """What the access log knows of a request beside method and URL: the rule that took it, and its model."""

    rule: str
    model: str


@dataclass(frozen=True, slots=True)
class Share:
    """A backend of the chosen rule: its part of the traffic (0..1) and where it is now."""

    backend: str
    share: float
    endpoints: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule that could have taken the request. `why_not` is empty for the one that does."""

    rule: str
    name: str | None
    match: str
    why_not: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`outcome` is one sentence. `facts` are what was found on the way, in order."""

    outcome: str
    gateway: NamespacedName | None = None
    listener: ListenerKey | None = None
    host: str | None = None
    facts: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    shares: tuple[Share, ...] = ()

    @property
    def rule(self) -> str | None:
        """The rule that takes the request, if one does."""
        return next((verdict.rule for verdict in self.verdicts if not verdict.why_not), None)


def explain(model: ir.Model, request: Request, *, reads_bodies: bool = True, served: Served | None = None) -> Explanation:
    """What the gateway does with a request. `reads_bodies` is False where the native module is missing.

    Of one that was `served` the rule is known but not the listener: it is that of the first listener which gives it to that
    rule, whatever the request's scheme and port. Where none does this is as good as absent.
    """
    if served is not None:
        request = replace(request, model=served.model, gateway=None)
        for port, scheme in _doors(model):
            explanation = explain(model, replace(request, port=port, scheme=scheme), reads_bodies=reads_bodies)
            if explanation.rule == served.rule:
                return explanation
    found = list(_listeners(model, request))
    if not found:
        return Explanation(_nobody_listens(model, request))
    gateway, listener, inference = found[0]
    facts = [f"also listening for it: {other.key} of Gateway {one.key}" for one, other, _ in found[1:]]
    known = Explanation("", gateway=gateway.key, listener=listener.key, facts=tuple(facts))
    path = normalized(request.path)
    if path is None:
        return replace(known, outcome=f"400: the path {request.path} is none that HTTP allows")
    if path != request.path:
        facts.append(f"path {path}, as the gateway normalizes {request.path}")
    request, reading = _read(replace(request, path=path), inference, reads_bodies=reads_bodies)
    known = replace(known, facts=(*facts, *reading.facts))
    if reading.refused:
        return replace(known, outcome=reading.refused)
    domain = _most_specific((*listener.hosts, *listener.misdirected), request.host)
    if domain in listener.misdirected and domain not in listener.hosts:
        return replace(known, outcome=f"421: {domain} belongs to another listener of this port")
    if domain is None or not listener.hosts[domain].rules:  # a listener's own host is there even without rules
        there = ", ".join(name for name, host in listener.hosts.items() if host.rules) or "none"
        return replace(known, outcome=_unrouted(f"no route has the host {request.host}; there are {there}", reading))
    known = replace(known, host=domain)
    taken, verdicts = _judge(listener.hosts[domain], request)
    known = replace(known, verdicts=verdicts)
    if taken is None:
        model_sent = value_of(request.headers, inference.model_header) if inference is not None else ""
        model_named = f" with the model {model_sent}" if model_sent else ""
        nothing = f"none of the {len(verdicts)} rules of host {domain} matches{model_named}"
        return replace(known, outcome=_unrouted(nothing, reading))
    if isinstance(taken.action, ir.Forward) and taken.action.holds_bodies and len(request.body) > listener.max_request_bytes:
        return replace(known, outcome=too_large(listener.max_request_bytes))
    return replace(known, outcome=_outcome(taken), shares=tuple(_shares(model, taken.action)))


def _doors(model: ir.Model) -> Iterator[tuple[int, str]]:
    """Port and scheme of every HTTP listener."""
    for gateway in model.gateways.values():
        for port in gateway.ports:
            for listener in port.listeners:
                if isinstance(listener, ir.HttpListener):
                    yield port.number, "https" if listener.tls else "http"


def _listeners(model: ir.Model, request: Request) -> Iterator[tuple[ir.Gateway, ir.HttpListener, ir.InferenceSettings | None]]:
    """HTTP listeners on the request's port and scheme that take its host; of one port the most specific alone. With how
    they read bodies: those of a port without TLS are one to Envoy, and read them if any does."""
    for gateway in model.gateways.values():
        for port in gateway.ports:
            if port.number != request.effective_port or request.gateway not in (None, gateway.key):
                continue
            candidates = {
                listener.hostname: listener
                for listener in port.listeners
                if isinstance(listener, ir.HttpListener) and (listener.tls is not None) == (request.scheme == "https")
            }
            name = _most_specific(candidates, request.listener_host)
            if name is not None:
                chosen = candidates[name]
                alike = candidates.values() if chosen.tls is None else (chosen,)
                yield gateway, chosen, next((one.inference for one in alike if one.inference is not None), None)


def _nobody_listens(model: ir.Model, request: Request) -> str:
    there = sorted(
        f"{'https' if listener.tls else 'http'}://{listener.hostname}:{port.number}"
        for gateway in model.gateways.values()
        for port in gateway.ports
        for listener in port.listeners
        if isinstance(listener, ir.HttpListener)
    )
    wanted = f"{request.scheme}://{request.host}:{request.effective_port}"
    return f"no listener takes {wanted}; there are {', '.join(there) or 'none'}"


def _most_specific(domains: "Mapping[str, object] | tuple[str, ...]", host: str) -> str | None:
    """The domain that takes a host: itself, else the longest wildcard, else `*`."""
    if host in domains:
        return host
    labels = host.split(".")
    for start in range(1, len(labels)):
        wildcard = "*." + ".".join(labels[start:])
        if wildcard in domains:
            return wildcard
    return "*" if "*" in domains else None


def _read(request: Request, inference: ir.InferenceSettings | None, *, reads_bodies: bool) -> tuple[Request, BodyReading]:
    """What the module learns from the request, and the request as it leaves the module: its header names one model."""
    if inference is None or not inference.model_header:
        return request, BodyReading()
    if request.model:
        return replace(request, headers=with_value(request.headers, inference.model_header, request.model)), BodyReading()
    if not reads_bodies:
        unread = ("bodies are not read, since the native module is missing",)
        return request, BodyReading(facts=unread if request.body else ())
    headers = with_one_model(request.headers, inference.model_header)
    reading = read_body(request.method, headers, request.body, inference)
    if reading.model is not None:
        headers = with_value(headers, inference.model_header, reading.model)
    return replace(request, headers=headers), reading


def _unrouted(why: str, reading: BodyReading) -> str:
    """What is answered where no rule takes the request; of a body that was to name a model it is said what is wrong."""
    return f"400: {reading.problem}, and {why}" if reading.problem else f"404: {why}"


def _judge(host: ir.Host, request: Request) -> tuple[ir.Rule | None, tuple[Verdict, ...]]:
    taken: ir.Rule | None = None
    verdicts = []
    for rule in host.rules:
        why_not = mismatch(rule.match, request.method, request.path, request.headers, request.query)
        if not why_not and taken is not None:
            why_not = "matches as well, but the rule taken comes first by precedence"
        elif not why_not:
            taken = rule
        verdicts.append(Verdict(str(rule.key.rule), rule.name, _describe(rule.match), why_not))
    return taken, tuple(verdicts)


def _describe(match: ir.HttpMatch) -> str:
    parts = []
    match match.path:
        case ir.ExactPath(value):
            parts.append(f"path = {value}")
        case ir.PrefixPath(value):
            parts.append(f"path under {value}")
        case ir.RegexPath(value):
            parts.append(f"path ~ {value}")
        case _:
            assert_never(match.path)
    if match.method:
        parts.append(f"method = {match.method}")
    parts += [f"header {item.name} {_compare(item.value)}" for item in match.headers]
    parts += [f"query {item.name} {_compare(item.value)}" for item in match.query]
    if match.grpc:
        parts.append("gRPC")
    return ", ".join(parts)


def _compare(value: ir.ValueMatch) -> str:
    return f"{'=' if value.kind == 'exact' else '~'} {value.value}"


def _outcome(rule: ir.Rule) -> str:
    match rule.action:
        case ir.Forward():
            return f"forwarded by {rule.key.rule}"
        case ir.Redirect(status=status):
            return f"{status}: redirected by {rule.key.rule}"
        case ir.Respond(status=status, reason=reason):
            return f"{status}: answered by {rule.key.rule}" + (f" ({reason})" if reason else "")
        case _:
            assert_never(rule.action)


def _shares(model: ir.Model, action: ir.Action) -> Iterator[Share]:
    if not isinstance(action, ir.Forward):
        return
    total = sum(target.weight for target in action.targets)
    for target in action.targets:
        if target.target is None:
            yield Share(target.label, target.weight / total, (), "cannot be resolved: this share answers 500")
            continue
        endpoints = model.endpoints.get(target.target)
        addresses = tuple(f"{item.address}:{item.port}" for item in endpoints.endpoints if item.ready) if endpoints else ()
        note = "" if addresses else "has no ready endpoint: 503"
        yield Share(target.label or str(target.target), target.weight / total, addresses, note)
