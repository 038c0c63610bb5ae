"""A small Kubernetes client: requests, and tables that a list and a watch keep up to date.

Deliberately absent: types (objects are plain dicts, as the API server sends them) and any cache on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from .pki import API_SERVER

Object = dict[str, Any]
Key = tuple[str, str]
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused: `code` is the HTTP status, the text its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Kube:
    """A connection to the API server as `user`, one of the parties of `pki`. `async with` closes it."""

    def __init__(self, pki: Path, user: str) -> None:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(base_url=API_SERVER, verify=context, timeout=30, limits=limits, trust_env=False)

    async def __aenter__(self) -> Kube:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json") -> Object:
        """One request, its answer decoded. ApiError for a refusal, httpx.TransportError where the server is away."""
        content = None if body is None else json.dumps(body)
        answer = await self._http.request(method, path, content=content, headers={"Content-Type": kind})
        if answer.is_error:
            raise ApiError(answer.status_code, _message(answer.text))
        decoded: Object = answer.json()
        return decoded

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) from `version` on. ApiError 410 when that is too long ago."""
        parameters = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(30, read=None)
        async with self._http.stream("GET", path, params=parameters, timeout=timeout) as answer:
            if answer.is_error:
                raise ApiError(answer.status_code, _message((await answer.aread()).decode()))
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 500), event["object"].get("message", line))
                yield event["type"], event["object"]


class Table:
    """All objects of one kind, by (namespace, name), kept current by `run`. `changed(old, new)` sees every difference."""

    def __init__(self, kube: Kube, path: str, changed: Callable[[Object | None, Object | None], None]) -> None:
        self.objects: dict[Key, Object] = {}
        self.filled = asyncio.Event()
        self._kube = kube
        self._path = path
        self._changed = changed

    async def run(self) -> None:
        """Lists, then watches, for ever; an absent server or a lost version means listing again."""
        while True:
            with contextlib.suppress(ApiError, httpx.HTTPError):
                version = await self._list()
                self.filled.set()
                async for kind, item in self._kube.watch(self._path, version):
                    self._receive(kind, item)
                continue
            await asyncio.sleep(0.2)

    async def _list(self) -> str:
        answer = await self._kube.call("GET", self._path)
        found = {key_of(item): item for item in answer.get("items") or []}
        for key in self.objects.keys() - found.keys():
            self._put(key, None)
        for key, item in found.items():
            self._put(key, item)
        version: str = answer["metadata"]["resourceVersion"]
        return version

    def _receive(self, kind: str, item: Object) -> None:
        if kind != "BOOKMARK":
            self._put(key_of(item), None if kind == "DELETED" else item)

    def _put(self, key: Key, new: Object | None) -> None:
        old = self.objects.pop(key, None)
        if new is not None:
            self.objects[key] = new
        if old != new:
            self._changed(old, new)


def key_of(item: Object) -> Key:
    """(namespace, name); the namespace of a cluster-wide object is ""."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _message(text: str) -> str:
    try:
        message: str = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text[:500]
    return message
