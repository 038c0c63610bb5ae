"""`explain(model, request)`: the listener, host, rule and backends of a request, and of every other rule why not.

The rules of matching are the Gateway API's, the order is the model's own: the first rule that matches is taken, exactly as
the proxy does it. Nothing is sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never
from urllib.parse import parse_qsl, urlsplit

from gwanmun import ir
from gwanmun.explain.body import BodyReading, read_body
from gwanmun.explain.match import mismatch
from gwanmun.names import ListenerKey, NamespacedName


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a client would send it. `port` is the listener's port (443, not where it is bound on this machine);
    None takes the scheme's. Header names are in lower case."""

    method: str
    scheme: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    port: int | None = None

    @classmethod
    def of(cls, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> "Request":
        """From a URL such as `https://inference.example.com/v1/models`. ValueError where it is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f'"{url}" is not a URL such as https://inference.example.com/v1/chat/completions')
        return cls(
            method=method.upper(),
            scheme=parts.scheme,
            host=parts.hostname.lower(),
            path=parts.path or "/",
            query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
            port=parts.port,
        )

    def via(self, ports: Mapping[int, int]) -> "Request":
        """The request as it reaches the Gateway where it is sent to a port of this machine: `ports` maps those that are
        bound here to the listeners' own."""
        if self.port is None or self.port not in ports:
            return self
        return replace(self, port=ports[self.port])

    @property
    def effective_port(self) -> int:
        return self.port or (443 if self.scheme == "https" else 80)


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


def explain(model: ir.Model, request: Request, *, reads_bodies: bool = True, taken_by: str = "") -> Explanation:
    """What the gateway does with a request. `reads_bodies` is False where the native module is missing.

    `taken_by` is for a request of which the rule is known but not the listener: that of the first listener which gives it to
    that rule, whatever the request's scheme and port. Where none does it is as good as absent.
    """
    for port, scheme in _doors(model) if taken_by else ():
        explanation = explain(model, replace(request, port=port, scheme=scheme), reads_bodies=reads_bodies)
        if explanation.rule == taken_by:
            return explanation
    found = list(_listeners(model, request))
    if not found:
        return Explanation(_nobody_listens(model, request))
    gateway, listener = found[0]
    facts = [f"also listening for it: {other.key} of Gateway {key}" for key, other in found[1:]]
    known = Explanation("", gateway=gateway.key, listener=listener.key, facts=tuple(facts))
    domain = _most_specific(listener.hosts, request.host)
    misdirected = _most_specific(listener.misdirected, request.host)
    if misdirected and len(misdirected) > len(domain or ""):
        return replace(known, outcome=f"421: {misdirected} belongs to another listener of this port")
    if domain is None or not listener.hosts[domain].rules:  # a listener's own host is there even without rules
        there = ", ".join(name for name, host in listener.hosts.items() if host.rules) or "none"
        return replace(known, outcome=f"404: no route has the host {request.host}; there are {there}")
    reading = _read_body(request, listener.inference, reads_bodies=reads_bodies)
    known = replace(known, host=domain, facts=(*facts, *reading.facts))
    if reading.refused:
        return replace(known, outcome=reading.refused)
    request = _with_model(request, listener.inference, reading)
    taken, verdicts = _judge(listener.hosts[domain], request)
    known = replace(known, verdicts=verdicts)
    if taken is None:
        return replace(known, outcome=_unmatched(request, listener, reading, domain, len(verdicts)))
    return replace(known, outcome=_outcome(taken), shares=tuple(_shares(model, taken.action)))


def _doors(model: ir.Model) -> Iterator[tuple[int, str]]:
    """Port and scheme of every HTTP listener."""
    for gateway in model.gateways.values():
        for port in gateway.ports:
            for listener in port.listeners:
                if isinstance(listener, ir.HttpListener):
                    yield port.number, "https" if listener.tls else "http"


def _listeners(model: ir.Model, request: Request) -> Iterator[tuple[ir.Gateway, ir.HttpListener]]:
    """HTTP listeners on the request's port and scheme that take its host; of one port the most specific alone."""
    for gateway in model.gateways.values():
        for port in gateway.ports:
            if port.number != request.effective_port:
                continue
            candidates = {
                listener.hostname: listener
                for listener in port.listeners
                if isinstance(listener, ir.HttpListener) and (listener.tls is not None) == (request.scheme == "https")
            }
            name = _most_specific(candidates, request.host)
            if name is not None:
                yield gateway, candidates[name]


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


def _read_body(request: Request, inference: ir.InferenceSettings | None, *, reads_bodies: bool) -> BodyReading:
    if inference is None or not inference.model_header:
        return BodyReading()
    if not reads_bodies:
        return BodyReading(facts=("bodies are not read, since the native module is missing",) if request.body else ())
    return read_body(request.headers, request.body, inference)


def _with_model(request: Request, inference: ir.InferenceSettings | None, reading: BodyReading) -> Request:
    """The request with the model's header, as the module sets it from the body where the client sent none."""
    if inference is None or reading.model is None:
        return request
    return replace(request, headers={**request.headers, inference.model_header: reading.model})


def _unmatched(request: Request, listener: ir.HttpListener, reading: BodyReading, domain: str, rules: int) -> str:
    """What is answered where no rule takes the request; model APIs are told what is wrong with the model."""
    if reading.problem:
        return f"400: {reading.problem}, and none of the {rules} rules of host {domain} matches without a model"
    model = request.headers.get(listener.inference.model_header) if listener.inference else None
    if model is not None:
        return f"404: none of the {rules} rules of host {domain} matches with the model {model}"
    return f"404: none of the {rules} rules of host {domain} matches"


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
