"""Routes: hosts, rules in order, what a rule matches and what it does."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from gwanmun.ir.backend import Picker
from gwanmun.names import ClusterKey, MatchKey, RuleKey


@dataclass(frozen=True, slots=True)
class ExactPath:
    value: str


@dataclass(frozen=True, slots=True)
class PrefixPath:
    """By path element: `/v1` takes `/v1` and `/v1/chat`, not `/v10`. Without a trailing slash, but for `/` itself."""

    value: str


@dataclass(frozen=True, slots=True)
class RegexPath:
    """RE2, over the whole path without the query."""

    value: str


PathMatch = ExactPath | PrefixPath | RegexPath


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """How a header's or query parameter's value is compared; `regex` is RE2 over the whole value."""

    value: str
    kind: Literal["exact", "regex"] = "exact"


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """`name` is in lower case."""

    name: str
    value: ValueMatch


@dataclass(frozen=True, slots=True)
class QueryMatch:
    name: str
    value: ValueMatch


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """All of these must hold. `method` None takes every method; `grpc` takes only gRPC requests (by content type)."""

    path: PathMatch = PrefixPath("/")
    method: str | None = None
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes to headers, applied in this order: remove, set (replace), add (append)."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightedTarget:
    """A share of the traffic. `target` None stands for a backend that could not be resolved: its share answers 500.
    `picker` is asked for the endpoint of each request; `prefers_near` is what the backend itself says."""

    target: ClusterKey | None
    weight: int
    request_headers: HeaderEdits | None = None
    response_headers: HeaderEdits | None = None
    label: str = ""  # as the user names the backend, for explanations
    picker: Picker | None = None
    prefers_near: bool = False


@dataclass(frozen=True, slots=True)
class ReplaceFullPath:
    value: str


@dataclass(frozen=True, slots=True)
class ReplacePrefix:
    """Replaces the prefix that the rule matched; an empty result becomes `/`."""

    value: str


PathRewrite = ReplaceFullPath | ReplacePrefix


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of `numerator/denominator` of the requests; answers are thrown away."""

    target: ClusterKey
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True)
class Cors:
    """HTTPCORSFilter. An origin is `*`, an exact origin, or one with a `*` in its host."""

    allow_origins: tuple[str, ...]
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age: timedelta = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` retries beyond the first try, on these response codes and on connection errors."""

    attempts: int
    codes: tuple[int, ...] = ()
    backoff: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Send to backends by weight. Targets of weight 0 are left out; there is at least one target and a positive sum.

    `timeout` bounds the whole request, `backend_timeout` one attempt; None means no limit.
    """

    targets: tuple[WeightedTarget, ...]
    timeout: timedelta | None = None
    backend_timeout: timedelta | None = None
    retry: Retry | None = None
    mirrors: tuple[Mirror, ...] = ()
    rewrite_host: str | None = None
    rewrite_path: PathRewrite | None = None

    @property
    def holds_bodies(self) -> bool:
        """Whether a request waits for the end of its body: its picker may be done without (``xds.filters.wholebody``)."""
        return any(target.picker is not None and target.picker.fail_open for target in self.targets)


@dataclass(frozen=True, slots=True)
class Redirect:
    """None keeps what the request had. `port` None is the scheme's well-known port, which Location does not show;
    `listener` is the port on which the request came in, as clients see it."""

    status: int = 302
    scheme: str | None = None
    host: str | None = None
    path: PathRewrite | None = None
    port: int | Literal["listener"] | None = None


@dataclass(frozen=True, slots=True)
class Respond:
    """Answered by the gateway itself. `reason` says why, for explanations (a rule without backends answers 500)."""

    status: int
    reason: str = ""


Action = Forward | Redirect | Respond


@dataclass(frozen=True, slots=True)
class Rule:
    """One match of one rule of a route and what happens to a request that it takes.

    `inference` marks traffic of model APIs: errors of the gateway's own are then in OpenAI's shape, and streams are not
    cut by timeouts meant for short answers.
    """

    key: MatchKey
    match: HttpMatch
    action: Action
    name: str | None = None
    request_headers: HeaderEdits | None = None
    response_headers: HeaderEdits | None = None
    cors: Cors | None = None
    inference: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """All rules for one host, first match wins. `domain` is `*`, `*.example.com` or an exact host, in lower case."""

    domain: str
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class L4Rule:
    """Connections (or datagrams) to backends by weight; `hosts` are server names (SNI), empty where none are looked at."""

    key: RuleKey
    targets: tuple[WeightedTarget, ...]
    hosts: tuple[str, ...] = field(default=())
    name: str | None = None
