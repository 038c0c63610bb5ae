"""TLS contexts, towards clients and towards backends.

Deliberately absent: certificates themselves (``secret``); they are named here and travel on their own, so that renewing one
touches no connection.
"""

from typing import Any, Final, assert_never

from gwanmun.ir import BackendTls, ClientValidation, NoTrust, SystemTrust, TrustAnchors
from gwanmun.names import CertificateKey
from gwanmun.xds import names
from gwanmun.xds.types import ADS, Fields, extension

_PARAMETERS: Final = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
_HTTP_PROTOCOLS: Final = ("h2", "http/1.1")
_BACKEND_PROTOCOLS: Final = {"http1": ("http/1.1",), "http2": ("h2",)}


def server_tls(certificates: tuple[CertificateKey, ...], validation: ClientValidation | None, *, http: bool) -> Fields:
    """The transport socket of a listener. `certificates` (RSA and ECDSA ones, say) are all offered."""
    common: Fields = {
        "tls_params": _PARAMETERS,
        "tls_certificate_sds_secret_configs": [_secret(key) for key in certificates],
        "alpn_protocols": _HTTP_PROTOCOLS if http else (),
    }
    context: Fields = {"common_tls_context": common}
    if validation is not None:
        common["validation_context"] = {
            "trusted_ca": {"inline_string": validation.pem},
            # Asks for a certificate and looks at it, but lets in whoever has another one or none.
            "trust_chain_verification": "VERIFY_TRUST_CHAIN" if validation.required else "ACCEPT_UNTRUSTED",
        }
        context["require_client_certificate"] = {"value": validation.required}
    return extension("envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", **context)


def backend_tls(tls: BackendTls, protocol: str, system_trust: str) -> Fields:
    """The transport socket of a cluster."""
    common: Fields = {"tls_params": _PARAMETERS, "alpn_protocols": _BACKEND_PROTOCOLS.get(protocol, ())}
    if not isinstance(tls.trust, NoTrust):
        common["validation_context"] = {
            "trusted_ca": _authorities(tls.trust, system_trust),
            "match_typed_subject_alt_names": _names(tls),
        }
    if tls.client_certificate is not None:
        common["tls_certificate_sds_secret_configs"] = [_secret(tls.client_certificate)]
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=tls.hostname,
        common_tls_context=common,
    )


def _authorities(trust: TrustAnchors | SystemTrust, system_trust: str) -> Fields:
    match trust:
        case TrustAnchors(pem):
            return {"inline_string": pem}
        case SystemTrust():
            return {"filename": system_trust}
        case _:
            assert_never(trust)


def _names(tls: BackendTls) -> list[Fields]:
    """Any one of them has to be in the certificate. An exact DNS name is also met by a certificate's wildcard."""
    if not tls.names:
        return [{"san_type": "DNS", "matcher": {"exact": tls.hostname}}]
    return [{"san_type": name.kind.upper(), "matcher": {"exact": name.value}} for name in tls.names]


def _secret(key: CertificateKey) -> dict[str, Any]:
    return {"name": names.certificate(key), "sds_config": ADS}
