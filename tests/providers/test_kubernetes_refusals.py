"""What the provider makes of an API server that refuses: for a moment, as one that starts does, or for good."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gwanmun.api.kinds import KINDS
from gwanmun.kube import ApiError, KubeClient
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes import KubernetesOptions, KubernetesProvider
from gwanmun.providers.kubernetes import provider as provider_module

KIND = KINDS["", "Service"]
SERVICE = {
    "metadata": {"name": "vllm", "namespace": "ai", "resourceVersion": "1", "uid": "u"},
    "spec": {"ports": [{"port": 80}]},
}


class Refusing:
    """An API server that refuses the first `refusals` requests, and then has one Service."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    async def call(self, _method: str, _path: str, **_: Any) -> bytes:
        self._refuse()
        return json.dumps({"metadata": {"resourceVersion": "1"}, "items": [SERVICE]}).encode()

    @asynccontextmanager
    async def stream(self, _path: str, _parameters: Mapping[str, str], *, accept: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self._refuse()
        yield self._silence()

    async def _silence(self) -> AsyncIterator[bytes]:
        await asyncio.get_running_loop().create_future()
        yield b""

    def _refuse(self) -> None:
        self.asked += 1
        if self.asked <= self.refusals:
            raise ApiError(403, "Forbidden", "services is forbidden")


def provider(server: Refusing) -> KubernetesProvider:
    options = KubernetesOptions(kinds=(KIND,), aliases={})
    return KubernetesProvider(cast(KubeClient, server), options, draw=lambda: 0.0)


async def test_an_api_server_that_starts_is_not_taken_at_its_word() -> None:
    followed = provider(Refusing(3))
    async with asyncio.timeout(5):
        async for batch in followed.watch():
            assert set(batch.objects) == {ObjectKey("", "Service", "ai", "vllm")}  # and there was no batch of nothing before
            break
    assert followed.refused == ()
    assert followed.stats.refused == 3


async def test_what_stays_refused_counts_as_empty_and_is_named() -> None:
    followed = provider(Refusing(1000))
    with capture_logs() as logs:
        async with asyncio.timeout(5):
            async for batch in followed.watch():
                assert batch.objects == {}
                break
    assert followed.refused != ()
    assert any('resources: ["services"]' in str(entry) for entry in logs)


async def test_a_wait_that_is_asked_for_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(provider_module, "asyncio", _Sleepless(slept))
    overloaded = Holding(ApiError(503, "ServiceUnavailable", "busy", retry_after=86_400))
    batches = KubernetesProvider(
        cast(KubeClient, overloaded), KubernetesOptions(kinds=(KIND,), aliases={}), draw=lambda: 0.0
    ).watch()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), aclosing(batches):
            await anext(batches)
    assert slept
    assert max(slept) <= 60


class _Sleepless:
    """asyncio, whose sleeps are written down and end at once."""

    def __init__(self, slept: list[float]) -> None:
        self.slept = slept

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


CONFIG = KINDS["gwanmun.dev", "GatewayClassConfig"]


class Holding:
    """An API server that gives what it is told to for a list of GatewayClassConfigs."""

    def __init__(self, answer: ApiError | list[dict[str, Any]]) -> None:
        self.answer = answer

    async def call(self, _method: str, _path: str, **_: Any) -> bytes:
        if isinstance(self.answer, ApiError):
            raise self.answer
        return json.dumps({"metadata": {"resourceVersion": "1"}, "items": self.answer}).encode()

    @asynccontextmanager
    async def stream(self, _path: str, _parameters: Mapping[str, str], *, accept: str) -> AsyncIterator[AsyncIterator[bytes]]:
        await asyncio.get_running_loop().create_future()
        yield Refusing(0)._silence()


def config(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "edge", "resourceVersion": "1", "uid": "u"}, "spec": spec}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param([], None, id="not there"),
        pytest.param([config()], None, id="there"),
        pytest.param([config(proxy="many")], "Expected `object`", id="does not fit"),
        pytest.param(ApiError(403, "Forbidden", "no"), "may not be listed", id="refused"),
        pytest.param(ApiError(404, "", "404 page not found"), "is not installed", id="no CRD"),
    ],
)
async def test_why_an_object_cannot_be_read(answer: ApiError | list[dict[str, Any]], said: str | None) -> None:
    options = KubernetesOptions(kinds=(CONFIG,), aliases={})
    followed = KubernetesProvider(cast(KubeClient, Holding(answer)), options, draw=lambda: 0.0)
    async with asyncio.timeout(5):
        async for _ in followed.watch():
            break
    found = followed.unread("gwanmun.dev", "GatewayClassConfig", "edge")
    assert (found is None) is (said is None)
    if found is not None:
        assert str(said) in found.problem
        assert (found.grant is not None) is ("listed" in found.problem)
    assert followed.unread("gwanmun.dev", "Unheard", "edge") is None


async def test_what_is_in_a_namespace_that_is_not_watched_may_be_there() -> None:
    group, kind = "gateway.networking.k8s.io", "Gateway"
    options = KubernetesOptions(kinds=(KINDS[group, kind],), aliases={}, namespaces=("ai",))
    followed = KubernetesProvider(cast(KubeClient, Holding([])), options, draw=lambda: 0.0)
    async with asyncio.timeout(5):
        async for _ in followed.watch():
            break
    assert followed.unread(group, kind, "gw", "ai") is None
    assert followed.unread(group, kind, "gw", "elsewhere") is not None
