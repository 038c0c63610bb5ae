"""Certificates and keys for manifests of tests, by name, so that neither inputs nor outputs hold any PEM text.

In an input `certificate(a.example.com)`, `key(a.example.com)` and `ca(team)` stand for PEM texts that are made when the test
runs; `named` puts the names back. `certificate(a rsa1024)` asks for another kind of key than the usual one.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

TOKEN = re.compile(r"\b(certificate|key|ca)\(([^()\s]+)(?: ([a-z0-9]+))?\)")
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_texts: dict[str, str] = {}


def with_material(text: str) -> str:
    """The manifests with PEM texts in place of names, as quoted YAML scalars."""
    return TOKEN.sub(lambda found: json.dumps(_text(found[0], found[1], found[2], found[3] or "ecdsa")), text)


def named(text: str) -> str:
    """The text with names in place of all PEM texts that were made so far."""
    for name, pem in _texts.items():
        text = text.replace(pem, name)
    return text


def _text(token: str, what: str, name: str, algorithm: str) -> str:
    pem = _pair(name, algorithm, what == "ca")[1 if what == "key" else 0]
    _texts[token] = pem
    return pem


@cache
def _pair(name: str, algorithm: str, is_ca: bool) -> tuple[str, str]:
    key = _private_key(algorithm)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


def _private_key(algorithm: str) -> PrivateKey:
    match algorithm:
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(algorithm.removeprefix("rsa")))
