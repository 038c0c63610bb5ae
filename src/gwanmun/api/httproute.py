"""HTTPRoute with every field of the experimental channel."""

from typing import ClassVar

from gwanmun.api.filters import HTTPHeaderFilter, HTTPRequestMirrorFilter, SessionPersistence
from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import (
    GATEWAY_GROUP,
    BackendObjectReference,
    BackendRef,
    LocalObjectReference,
    ParentReference,
    RouteStatus,
)


class HTTPPathMatch(ApiStruct, frozen=True):
    """`type` is Exact, PathPrefix (by path element) or RegularExpression (RE2)."""

    type: str = "PathPrefix"
    value: str = "/"


class HTTPHeaderMatch(ApiStruct, frozen=True):
    """`type` is Exact or RegularExpression; the name is compared without regard to case."""

    name: str
    value: str
    type: str = "Exact"


class HTTPQueryParamMatch(ApiStruct, frozen=True):
    """`type` is Exact or RegularExpression."""

    name: str
    value: str
    type: str = "Exact"


class HTTPRouteMatch(ApiStruct, frozen=True):
    """All the conditions of one match; a rule applies when any of its matches holds."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: tuple[HTTPHeaderMatch, ...] = ()
    query_params: tuple[HTTPQueryParamMatch, ...] = ()
    method: str | None = None


class HTTPPathModifier(ApiStruct, frozen=True):
    """`type` is ReplaceFullPath or ReplacePrefixMatch and says which of the two values counts."""

    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class HTTPRequestRedirectFilter(ApiStruct, frozen=True):
    """A redirect; what is not named is taken from the request."""

    scheme: str | None = None
    hostname: str | None = None
    path: HTTPPathModifier | None = None
    port: int | None = None
    status_code: int = 302


class HTTPURLRewriteFilter(ApiStruct, frozen=True):
    """Changes host and path on the way to the backend."""

    hostname: str | None = None
    path: HTTPPathModifier | None = None


class HTTPCORSFilter(ApiStruct, frozen=True):
    """CORS answers by the gateway; `max_age` in seconds."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool | None = None
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class GRPCAuthConfig(ApiStruct, frozen=True):
    """externalAuth over Envoy's gRPC protocol."""

    allowed_headers: tuple[str, ...] = ()


class HTTPAuthConfig(ApiStruct, frozen=True):
    """externalAuth over HTTP."""

    path: str | None = None
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class ForwardBodyConfig(ApiStruct, frozen=True):
    """How much of the request body the authorisation service sees; bytes, 0 for none."""

    max_size: int = 0


class HTTPExternalAuthFilter(ApiStruct, frozen=True):
    """Asks an authorisation service. `protocol` is HTTP or GRPC."""

    protocol: str
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBodyConfig | None = None


class HTTPRouteFilter(ApiStruct, frozen=True):
    """One filter; `type` names the field that is set."""

    type: str
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    cors: HTTPCORSFilter | None = None
    external_auth: HTTPExternalAuthFilter | None = None
    extension_ref: LocalObjectReference | None = None


class HTTPBackendRef(BackendRef, frozen=True):
    """A weighted backend with filters for its share of the requests only."""

    filters: tuple[HTTPRouteFilter, ...] = ()


class HTTPRouteTimeouts(ApiStruct, frozen=True):
    """Gateway API durations; "0s" disables a timeout, None leaves the implementation's default."""

    request: str | None = None
    backend_request: str | None = None


class HTTPRouteRetry(ApiStruct, frozen=True):
    """Which answers are tried again, how often, and the least pause between two attempts."""

    codes: tuple[int, ...] = ()
    attempts: int | None = None
    backoff: str | None = None


class HTTPRouteRule(ApiStruct, frozen=True):
    """One rule. No `matches` in the manifest means every request; no backends answers 500 (or the redirect)."""

    name: str | None = None
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(ApiStruct, frozen=True):
    """spec of an HTTPRoute. Empty `hostnames` takes the listener's."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: str | None = None
    hostnames: tuple[str, ...] = ()
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)


class HTTPRoute(ApiStruct, frozen=True):
    """gateway.networking.k8s.io HTTPRoute."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "HTTPRoute"

    metadata: ObjectMeta
    spec: HTTPRouteSpec
    status: RouteStatus = RouteStatus()
    api_version: str = ""
