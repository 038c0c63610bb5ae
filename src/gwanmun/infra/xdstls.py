"""TLS of the xDS port: authorities kept in a Secret, a certificate of our own for each controller; or a Secret of
cert-manager's. Whatever is renewed is in force from the next handshake on, and whatever cannot be used changes nothing.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc

from gwanmun.infra.authority import (
    SERVER_NAME,
    Authority,
    ServerCertificate,
    bundle,
    renewed,
    server_certificate,
    signer,
)
from gwanmun.infra.given import Given, Standing, UnusableError, following, given
from gwanmun.kube import ApiError, KubeClient, manifest_path

SECRET: Final = "gwanmun-xds-ca"  # noqa: S105  its name
_PEM: Final = re.compile(rb"-----BEGIN [^-]+-----.*?-----END [^-]+-----\n?", re.DOTALL)
_ATTEMPTS: Final = 5


class XdsTlsError(Exception):
    """The Secret cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class XdsTlsOptions:
    """`secret`: name of a kubernetes.io/tls Secret with ca.crt, as cert-manager writes it; None manages our own authority.
    `names`: further DNS names of the server."""

    namespace: str
    secret: str | None = None
    names: tuple[str, ...] = ()


class XdsTls:
    """Owns what is in force. `refresh` has to be called now and then: what others have changed is found by nothing else."""

    def __init__(self, client: KubeClient, options: XdsTlsOptions, *, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._bundle = ""
        self._certificate: ServerCertificate | None = None
        self._authority: Authority | None = None
        self._found: Given | None = None
        self._standing: Standing | None = None

    @property
    def usable(self) -> bool:
        """Whether there is anything to serve with."""
        return self._certificate is not None

    @property
    def bundle(self) -> str:
        """What proxies have to trust, as PEM."""
        return self._bundle

    async def refresh(self) -> None:
        """Read the Secret (making and renewing it where it is our own). ApiError, UnreachableError, XdsTlsError: what was in
        force stays so."""
        if self._options.secret is None:
            await self._refresh_own()
        else:
            await self._refresh_given(self._options.secret)

    def credentials(self) -> grpc.ServerCredentials:
        """For the server; follows every `refresh`. Precondition: `usable`."""

        def fetch() -> Any:
            assert self._certificate is not None
            pair = (self._certificate.key, self._certificate.chain)
            return grpc.ssl_server_certificate_configuration([pair])

        return grpc.dynamic_ssl_server_credentials(fetch(), fetch)

    async def _refresh_own(self) -> None:
        authorities = await self._authorities()
        now = self._clock()
        signing = signer(authorities, now)
        self._bundle = bundle(authorities)
        if self._certificate is None or now >= self._certificate.renew_at or signing != self._authority:
            self._certificate, self._authority = server_certificate(signing, self._options.names, now), signing

    async def _authorities(self) -> tuple[Authority, ...]:
        """The authorities of the Secret; two controllers that both want to renew it agree on what one of them wrote."""
        for _ in range(_ATTEMPTS):
            before = await self._read(SECRET)
            known = self._decode(before) if before is not None else ()
            wanted = renewed(known, self._clock())
            if wanted == known:
                return known
            try:
                await self._write(wanted, before)
            except ApiError as error:
                if error.code != 409:
                    raise
                continue
            return wanted
        raise XdsTlsError(f"Secret {self._options.namespace}/{SECRET} is changed by others all the time")

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._client.get(manifest_path(self._manifest(name)))
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return found

    async def _write(self, authorities: Sequence[Authority], before: Mapping[str, Any] | None) -> None:
        manifest = self._manifest(SECRET)
        manifest["data"] = _encode(authorities)
        path = manifest_path(manifest)
        if before is None:
            await self._client.call("POST", path.rpartition("/")[0], body=manifest)
        else:
            manifest["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            await self._client.call("PUT", path, body=manifest)

    async def _refresh_given(self, name: str) -> None:
        try:
            self._found = await self._read_given(name)
        finally:
            # A successor's time comes also while the Secret cannot be read.
            if self._found is not None:
                self._standing = following(self._standing, self._found, self._clock())
                serving = self._standing.serving
                self._bundle = self._standing.bundle
                self._certificate = ServerCertificate(serving.chain, serving.key, serving.ends)

    async def _read_given(self, name: str) -> Given:
        found = await self._read(name)
        if found is None:
            raise XdsTlsError(
                f"Secret {self._options.namespace}/{name} does not exist; create it, or look why its Certificate is not ready"
            )
        try:
            return given(_data(found), SERVER_NAME, self._clock())
        except UnusableError as error:
            raise XdsTlsError(f"Secret {self._options.namespace}/{name}: {error}") from None

    def _decode(self, secret: Mapping[str, Any]) -> tuple[Authority, ...]:
        """The authorities of our own Secret."""
        data = _data(secret)
        certificates, keys = _PEM.findall(data.get("ca.crt", b"")), _PEM.findall(data.get("ca.key", b""))
        authorities = tuple(map(Authority, certificates, keys))
        if len(certificates) != len(keys):
            problem = f"has {len(certificates)} certificates but {len(keys)} keys"
        elif not all(one.sound for one in authorities):
            problem = "has a certificate or a key that cannot be read, or that is not the other's"
        else:
            return authorities
        raise XdsTlsError(f"Secret {self._options.namespace}/{SECRET} {problem}; delete it to begin anew")

    def _manifest(self, name: str) -> dict[str, Any]:
        metadata = {
            "name": name,
            "namespace": self._options.namespace,
            "labels": {"app.kubernetes.io/managed-by": "gwanmun"},
        }
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}


def _data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """A value that is not base64, which no API server takes, counts as not there."""
    found: dict[str, bytes] = {}
    for key, value in (secret.get("data") or {}).items():
        with suppress(binascii.Error):
            found[key] = base64.b64decode(value)
    return found


def _encode(authorities: Sequence[Authority]) -> dict[str, str]:
    """Certificates and keys in the same order, newest first."""
    return {
        "ca.crt": base64.b64encode(b"".join(one.certificate for one in authorities)).decode(),
        "ca.key": base64.b64encode(b"".join(one.key for one in authorities)).decode(),
    }
