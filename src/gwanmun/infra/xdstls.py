"""TLS of the xDS port: authorities kept in a Secret, a certificate of our own for each controller; or a Secret of
cert-manager's. Whatever is renewed is in force from the next handshake on.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc

from gwanmun.infra.authority import Authority, ServerCertificate, bundle, renewed, server_certificate, signer
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
    """Owns what is in force. `refresh` has to be called now and then (an hour is often enough)."""

    def __init__(self, client: KubeClient, options: XdsTlsOptions, *, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._bundle = ""
        self._certificate: ServerCertificate | None = None
        self._authority: Authority | None = None

    @property
    def bundle(self) -> str:
        """What proxies have to trust, as PEM."""
        return self._bundle

    async def refresh(self) -> None:
        """Read the Secret (making and renewing it where it is our own). ApiError, UnreachableError, XdsTlsError."""
        if self._options.secret is None:
            await self._refresh_own()
        else:
            await self._refresh_given(self._options.secret)

    def credentials(self) -> grpc.ServerCredentials:
        """For the server; follows every `refresh`. Precondition: one has succeeded."""

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
            known = _decode(_data(before)) if before is not None else ()
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
        found = await self._read(name)
        if found is None:
            raise XdsTlsError(f"Secret {self._options.namespace}/{name} does not exist (is its Certificate ready?)")
        data = _data(found)
        missing = [key for key in ("tls.crt", "tls.key", "ca.crt") if not data.get(key)]
        if missing:
            raise XdsTlsError(f"Secret {self._options.namespace}/{name} lacks {', '.join(missing)}")
        self._bundle = data["ca.crt"].decode()
        self._certificate = ServerCertificate(data["tls.crt"], data["tls.key"], self._clock())

    def _manifest(self, name: str) -> dict[str, Any]:
        metadata = {
            "name": name,
            "namespace": self._options.namespace,
            "labels": {"app.kubernetes.io/managed-by": "gwanmun"},
        }
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}


def _data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _encode(authorities: Sequence[Authority]) -> dict[str, str]:
    """Certificates and keys in the same order, newest first."""
    return {
        "ca.crt": base64.b64encode(b"".join(one.certificate for one in authorities)).decode(),
        "ca.key": base64.b64encode(b"".join(one.key for one in authorities)).decode(),
    }


def _decode(data: Mapping[str, bytes]) -> tuple[Authority, ...]:
    certificates, keys = _PEM.findall(data.get("ca.crt", b"")), _PEM.findall(data.get("ca.key", b""))
    if len(certificates) != len(keys):
        raise XdsTlsError(f"Secret {SECRET} has {len(certificates)} certificates but {len(keys)} keys; delete it to begin anew")
    return tuple(Authority(certificate, key) for certificate, key in zip(certificates, keys, strict=True))
