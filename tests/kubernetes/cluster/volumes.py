"""A pod's volumes as folders. Secrets, ConfigMaps, tokens and fields are swapped in whole when they change, by the
`..data` link that kubelets use, so programs that watch their files see here what they will see there."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .environment import NotYet, World, field_value, resource_value
from .kube import Kube, Object


@dataclass(frozen=True)
class _Token:
    text: str
    renew_at: float


class Volumes:
    """The volumes of one pod under `folder`, one folder each. `refresh` makes them and keeps them current."""

    def __init__(self, pod: Object, folder: Path, kube: Kube, clock: Callable[[], float]) -> None:
        self._pod = pod
        self._folder = folder
        self._kube = kube
        self._clock = clock
        self._written: dict[str, dict[str, bytes]] = {}
        self._tokens: dict[tuple[str, str], _Token] = {}

    def path(self, name: str) -> Path:
        """Where the volume `name` is; for a hostPath that path itself."""
        volume = next(v for v in self._pod["spec"]["volumes"] if v["name"] == name)
        return Path(volume["hostPath"]["path"]) if "hostPath" in volume else self._folder / name

    async def refresh(self, pod: Object, world: World) -> None:
        """Writes what differs from what is there. NotYet where something that is referred to does not exist."""
        self._pod = pod
        for volume in pod["spec"].get("volumes") or []:
            name = volume["name"]
            if "hostPath" in volume:
                continue
            (self._folder / name).mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                continue
            contents = await self._contents(volume, world)
            if self._written.get(name) != contents:
                await asyncio.to_thread(_swap_in, self._folder / name, contents)
                self._written[name] = contents

    async def _contents(self, volume: Object, world: World) -> dict[str, bytes]:
        if "secret" in volume:
            return _selected(self._secret(volume["secret"], volume["secret"]["secretName"], world), volume["secret"])
        if "configMap" in volume:
            return _selected(self._config_map(volume["configMap"], world), volume["configMap"])
        if "downwardAPI" in volume:
            return self._fields(volume["downwardAPI"])
        if "projected" in volume:
            result: dict[str, bytes] = {}
            for source in volume["projected"].get("sources") or []:
                result |= await self._projected(volume["name"], source, world)
            return result
        kinds = ", ".join(sorted(volume.keys() - {"name"}))
        raise NotYet(
            f"volume {volume['name']!r} of kind {kinds}: this node agent has secret, configMap, projected, emptyDir, "
            "downwardAPI and hostPath"
        )

    async def _projected(self, volume: str, source: Object, world: World) -> dict[str, bytes]:
        if "secret" in source:
            return _selected(self._secret(source["secret"], source["secret"]["name"], world), source["secret"])
        if "configMap" in source:
            return _selected(self._config_map(source["configMap"], world), source["configMap"])
        if "downwardAPI" in source:
            return self._fields(source["downwardAPI"])
        if "serviceAccountToken" in source:
            request = source["serviceAccountToken"]
            return {request["path"]: (await self._token(volume, request)).encode()}
        raise NotYet(f"projected volume {volume!r}: source {', '.join(source)} is not known to this node agent")

    def _secret(self, reference: Object, name: str, world: World) -> dict[str, bytes]:
        return world.secret(self._pod["metadata"]["namespace"], name, optional=reference.get("optional", False))

    def _config_map(self, reference: Object, world: World) -> dict[str, bytes]:
        optional = reference.get("optional", False)
        return world.config_map(self._pod["metadata"]["namespace"], reference["name"], optional=optional)

    def _fields(self, source: Object) -> dict[str, bytes]:
        result = {}
        for item in source.get("items") or []:
            if "fieldRef" in item:
                value = field_value(self._pod, item["fieldRef"]["fieldPath"])
            else:
                wanted = item["resourceFieldRef"]
                container = next(c for c in self._pod["spec"]["containers"] if c["name"] == wanted["containerName"])
                value = resource_value(container, wanted)
            result[item["path"]] = value.encode()
        return result

    async def _token(self, volume: str, request: Object) -> str:
        """A token bound to this pod, renewed after four fifths of its life, as kubelets do."""
        held = self._tokens.get((volume, request["path"]))
        if held is None or self._clock() >= held.renew_at:
            held = await self._request_token(request)
            self._tokens[volume, request["path"]] = held
        return held.text

    async def _request_token(self, request: Object) -> _Token:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        life = request.get("expirationSeconds", 3600)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        audiences = [request["audience"]] if request.get("audience") else []
        account = spec.get("serviceAccountName", "default")
        answer = await self._kube.call(
            "POST",
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": audiences, "expirationSeconds": life, "boundObjectRef": bound},
            },
        )
        expires = datetime.fromisoformat(answer["status"]["expirationTimestamp"]).timestamp()
        now = self._clock()
        return _Token(answer["status"]["token"], now + 0.8 * (expires - now))


def _selected(data: dict[str, bytes], reference: Object) -> dict[str, bytes]:
    """All keys, or those of `items` under their paths."""
    if not reference.get("items"):
        return data
    missing = [item["key"] for item in reference["items"] if item["key"] not in data]
    if missing and not reference.get("optional"):
        raise NotYet(f"references non-existent secret or configmap key: {', '.join(missing)}")
    return {item["path"]: data[item["key"]] for item in reference["items"] if item["key"] in data}


def _swap_in(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes a new version beside the old one and moves the `..data` link over in one step."""
    link = folder / "..data"
    old = os.readlink(link) if link.is_symlink() else None
    number = int(old.rpartition("_")[2]) + 1 if old else 1
    version = folder / f"..version_{number}"
    for name, content in contents.items():
        path = version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    version.mkdir(exist_ok=True)
    new_link = folder / "..data_new"
    new_link.symlink_to(version.name)
    new_link.rename(link)
    tops = {Path(name).parts[0] for name in contents}
    for name in tops:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in tops:
            entry.unlink()
    if old:
        shutil.rmtree(folder / old, ignore_errors=True)
