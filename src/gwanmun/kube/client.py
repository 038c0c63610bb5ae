"""`KubeClient`: requests to one API server, as bytes or plain data; lightkube knows how to find it and who we are.

Deliberately absent: types of objects, retries (who asks knows when it is worth asking again) and caches.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from gwanmun.kube.kubeconfig import merged_kubeconfig
from gwanmun.kube.paths import manifest_path

JSON = "application/json"
_PARTLY = "g=meta.k8s.io;v=v1"
METADATA = f"{JSON};as=PartialObjectMetadata;{_PARTLY},{JSON}"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;{_PARTLY},{JSON}"
"""What is accepted where only the metadata of objects is of interest, which is the small part of most."""
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MANAGER = "gwanmun"
"""Field manager of everything that is applied."""

_TIMEOUT_S = 15.0
_SILENCE_S = 330.0  # longer than any watch lasts (providers.kubernetes): only a dead connection is as quiet
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""A watch only listens: without probes it would never notice that the API server's machine has gone."""


class KubeConfigError(Exception):
    """There is no API server to be found, or no way to log in; the text says where was looked."""


class UnreachableError(Exception):
    """The API server did not answer, or something else did in its place, or we have no way to say who we are just now."""


class ApiError(Exception):
    """The API server refused. `code` is the HTTP status, `reason` its word for it (Conflict, Expired, ...)."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message or reason or f"HTTP status {code}")
        self.code = code
        self.reason = reason
        self.retry_after = retry_after


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What reading an answer as JSON may raise; the second where a text in it is none."""
_UNREACHABLE: Final = (httpx2.RequestError, ConfigError, OSError)
"""The last but one: a token's file that is away while it is renewed, a plugin for logging in that fails."""


class _Failure(msgspec.Struct, rename="camel"):
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """Which API server, and as whom. `namespace` is the one of the context, or of the pod we run in."""

    config: SingleConfig
    namespace: str


def connection(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    environment: Mapping[str, str],
    hint: str = "set KUBECONFIG",
) -> Connection:
    """The named kubeconfig; else those of $KUBECONFIG; else the service account of the pod we run in; else ~/.kube/config.

    Raises KubeConfigError, which ends with the hint where there is none of these.
    """
    try:
        if kubeconfig is not None:
            found = KubeConfig.from_file(kubeconfig)
        elif paths := environment.get("KUBECONFIG"):
            found = merged_kubeconfig([Path(path).expanduser() for path in paths.split(os.pathsep) if path])
        elif "KUBERNETES_SERVICE_HOST" in environment:
            found = KubeConfig.from_service_account()
        else:
            found = KubeConfig.from_file(DEFAULT_KUBECONFIG)
        config = found.get(context)
        assert config is not None  # without a default it raises instead
    except (ConfigError, OSError, KeyError, TypeError, AttributeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise KubeConfigError(f"no cluster to talk to: {error}; {hint}") from None
    return Connection(config, config.namespace)


class KubeClient:
    """Owns the connections. Every method raises ApiError or UnreachableError."""

    def __init__(self, to: Connection, *, user_agent: str = "gwanmun") -> None:
        user = to.config.user or User()
        try:
            trust: ssl.SSLContext = verify_cluster(to.config.cluster, user, to.config.abs_file, trust_env=False)
        except (ConfigError, OSError) as error:
            raise KubeConfigError(f"certificates of {to.config.cluster.server} cannot be used: {error}") from None
        self.namespace = to.namespace
        self.server = to.config.cluster.server
        self._http = httpx2.AsyncClient(
            base_url=to.config.cluster.server,
            auth=user_auth(user),
            headers={"user-agent": user_agent},
            timeout=httpx2.Timeout(_TIMEOUT_S, pool=None),
            transport=httpx2.AsyncHTTPTransport(
                verify=trust,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=16),
                socket_options=_KEEPALIVE,
            ),
        )

    async def __aenter__(self) -> "KubeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = JSON,
        parameters: Mapping[str, str] | None = None,
        accept: str = JSON,
    ) -> bytes:
        """One request; the body of the answer as it came. `body` is plain data, sent as JSON."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"accept": accept} if body is None else {"accept": accept, "content-type": content_type}
        try:
            answer = await self._http.request(method, path, content=content, headers=headers, params=parameters)
        except _UNREACHABLE as error:
            raise UnreachableError(f"{self.server} does not answer ({type(error).__name__}: {error})") from None
        if answer.is_error:
            raise _refusal(answer, answer.content)
        if not answer.is_success or not answer.content.lstrip().startswith(b"{"):
            # A proxy or load balancer in front of it: a login page, a redirect, an empty 200 while it starts.
            raise UnreachableError(f"{self.server} answered {answer.status_code} with something that is no object")
        return bytes(answer.content)

    async def get(self, path: str, **parameters: str) -> Any:
        """An object (or list) as plain data."""
        return self.decoded(await self.call("GET", path, parameters=parameters))

    async def get_metadata(self, path: str) -> Any:
        """Of one object only what all kinds have: a CRD is half a megabyte."""
        return self.decoded(await self.call("GET", path, accept=METADATA))

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = MANAGER) -> Any:
        """Server-side apply: what the manifest says is ours from now on, all else stays as it is. Returns the object."""
        parameters = {"fieldManager": manager, "force": "true"}
        path = manifest_path(manifest)
        answer = await self.call("PATCH", path, body=manifest, content_type=APPLY_PATCH, parameters=parameters)
        return self.decoded(answer)

    def decoded(self, answer: bytes) -> Any:
        """Plain data of what `call` returned."""
        try:
            return msgspec.json.decode(answer)
        except UNREADABLE as error:  # cut off on its way, or no JSON in spite of its beginning
            raise UnreachableError(f"{self.server} gave an answer that cannot be read: {error}") from None

    async def delete(self, manifest: Mapping[str, Any], *, uid: str | None = None) -> None:
        """Delete the object of that kind and name (only the one with that uid, if given); all is well if it has gone."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.call("DELETE", manifest_path(manifest), body=options)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    @asynccontextmanager
    async def stream(
        self, path: str, parameters: Mapping[str, str], *, accept: str = JSON
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """A long answer, in pieces that begin and end anywhere. That it begins takes no longer than a short one."""
        timeout = httpx2.Timeout(_TIMEOUT_S, read=_SILENCE_S, pool=None)
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S) as patience,
                self._http.stream("GET", path, params=parameters, headers={"accept": accept}, timeout=timeout) as answer,
            ):
                if answer.is_error:
                    raise _refusal(answer, await answer.aread())
                if not answer.is_success:  # a redirect: no API server does that
                    raise UnreachableError(f"{self.server} answered {answer.status_code} with something that is no object")
                patience.reschedule(None)
                yield answer.aiter_bytes()
        except _UNREACHABLE as error:
            raise UnreachableError(f"{self.server} ended the answer ({type(error).__name__}: {error})") from None


def _refusal(answer: httpx2.Response, content: bytes) -> ApiError:
    try:
        failure = msgspec.json.decode(content, type=_Failure)
    except UNREADABLE:
        failure = _Failure(message=content[:300].decode(errors="replace"))
    wait = answer.headers.get("retry-after", "")
    return ApiError(answer.status_code, failure.reason, failure.message, retry_after=float(wait) if wait.isdecimal() else None)
