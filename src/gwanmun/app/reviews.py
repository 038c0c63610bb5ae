"""Asking the API server whose token a proxy shows (TokenReview)."""

import asyncio
from typing import Final

import msgspec
import structlog

from gwanmun.kube import UNREADABLE, ApiError, KubeClient, UnreachableError
from gwanmun.kube.refusal import missing_right
from gwanmun.names import NamespacedName
from gwanmun.xds_server.identity import Holder, Review
from gwanmun.xds_server.server import Cause, Refusal

_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCOUNT: Final = "system:serviceaccount:"
_NODE: Final = "node:"
_POD: Final = "pod:"
_TIMEOUT_S: Final = 5.0
_GRANT: Final = 'apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] in a ClusterRole'

log = structlog.get_logger()


class _User(msgspec.Struct):
    username: str = ""
    extra: dict[str, list[str]] | None = None


class _Status(msgspec.Struct):
    authenticated: bool = False
    audiences: list[str] | None = None
    error: str = ""
    user: _User | None = None


class _Review(msgspec.Struct):
    status: _Status | None = None


def token_review(client: KubeClient, audience: str) -> Review:
    """A `Review` for tokens that were made for this audience."""
    refused = False  # as it was the last time: what a Role lacks is said once, and again if it was right in between

    async def review(token: str) -> Holder | Refusal:
        nonlocal refused
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = reviewed(await client.call("POST", _PATH, body=body), audience)
        except (ApiError, UnreachableError, TimeoutError, *UNREADABLE) as error:
            if isinstance(error, ApiError) and error.code == 403 and not refused:
                refused = True
                log.error(
                    "token_reviews_refused", problem=str(error), **({"grant": _GRANT} if missing_right(str(error)) else {})
                )
            raise TimeoutError(f"the token cannot be checked at the moment: {error}") from None
        if refused:
            refused = False
            log.info("token_reviews_restored")
        return found

    return review


def reviewed(answer: bytes, audience: str) -> Holder | Refusal:
    """What a TokenReview says. Pure. One of UNREADABLE where it is none."""
    status = msgspec.json.decode(answer, type=_Review).status or _Status()
    user = status.user or _User()
    name = user.username
    if not status.authenticated or audience not in (status.audiences or ()):
        return Refusal(f'the token is not valid for "{audience}": {status.error or "not authenticated"}', Cause.BAD_TOKEN)
    if not name.startswith(_ACCOUNT):
        return Refusal(f"{name} is not a service account", Cause.NO_ACCOUNT)
    extra = user.extra or {}
    found = [name]
    for prefix, key in ((_POD, "pod-name"), (_NODE, "node-name")):
        found += [prefix + value for value in extra.get(f"authentication.kubernetes.io/{key}") or ()]
    return Holder(tuple(found))


def account_of(names: tuple[str, ...]) -> NamespacedName | None:
    """The service account among the proven names of a peer."""
    for name in names:
        if name.startswith(_ACCOUNT):
            namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
            return NamespacedName(namespace, account)
    return None


def node_of(names: tuple[str, ...]) -> str:
    """The node that the peer's pod runs on; empty where the token does not say (Kubernetes before 1.30)."""
    return next((name.removeprefix(_NODE) for name in names if name.startswith(_NODE)), "")
