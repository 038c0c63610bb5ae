"""Certificates with their private keys."""

from gwanmun.ir import Certificate
from gwanmun.protos import pb, serialize
from gwanmun.xds import names


def secret(certificate: Certificate) -> bytes:
    """A Secret resource, named by `names.certificate`."""
    return serialize(
        pb("envoy.extensions.transport_sockets.tls.v3.Secret")(
            name=names.certificate(certificate.key),
            tls_certificate={
                "certificate_chain": {"inline_string": certificate.chain},
                "private_key": {"inline_string": certificate.private_key},
            },
        )
    )
