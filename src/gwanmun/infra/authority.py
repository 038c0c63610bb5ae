"""The certificate authority of the xDS port: made by ourselves, renewed without a proxy noticing. Pure; time is an argument.

Trust comes before use: a new authority is first only trusted, for a week, and signs when every proxy has had its certificate
for long. Several may be trusted at a time; only one signs. Deliberately absent: where authorities are kept (``xdstls``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME: Final = "xds.gwanmun.dev"
"""What the server is called in its certificate, whatever its Service is called. Proxies ask for this name and trust nobody
but our authority, so nobody else can have it."""

AUTHORITY_LIFE: Final = timedelta(days=365)
SERVER_LIFE: Final = timedelta(days=7)
_SUCCESSOR_AFTER: Final = timedelta(days=240)
_TRUSTED_BEFORE_USE: Final = timedelta(days=7)
_CLOCK_SKEW: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Authority({self.made:%Y-%m-%d})"

    @property
    def sound(self) -> bool:
        """Whether others have left both readable and fitting. Everything else here takes that for granted."""
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate)
            key = serialization.load_pem_private_key(self.key, password=None)
            return isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            return False

    @property
    def made(self) -> datetime:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_before_utc

    @property
    def ends(self) -> datetime:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A chain with its key, as PEM, and when it is to be exchanged for a new one."""

    chain: bytes
    key: bytes
    renew_at: datetime

    def __repr__(self) -> str:
        return f"ServerCertificate(renew_at={self.renew_at:%Y-%m-%d})"


def renewed(authorities: Iterable[Authority], now: datetime) -> tuple[Authority, ...]:
    """The authorities to trust from now on, newest first: without those that have ended, with a successor when one is due."""
    alive = sorted((one for one in authorities if one.ends > now), key=lambda one: one.made, reverse=True)
    if not alive or now - alive[0].made > _SUCCESSOR_AFTER:
        alive.insert(0, _made(now))
    return tuple(alive)


def signer(authorities: Iterable[Authority], now: datetime) -> Authority:
    """The one that signs: the newest that has been trusted for long, else the oldest. Precondition: there is one."""
    newest_first = sorted(authorities, key=lambda one: one.made, reverse=True)
    return next((one for one in newest_first if now - one.made >= _TRUSTED_BEFORE_USE), newest_first[-1])


def bundle(authorities: Iterable[Authority]) -> str:
    """What proxies have to trust, as PEM."""
    return b"".join(one.certificate for one in authorities).decode()


def server_certificate(authority: Authority, names: Iterable[str], now: datetime) -> ServerCertificate:
    """A certificate for the xDS port, for SERVER_NAME and these DNS names."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    ends = min(now + SERVER_LIFE, issuer.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(SERVER_NAME))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in dict.fromkeys([SERVER_NAME, *names])]), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(issuer_key, hashes.SHA256())
    )
    return ServerCertificate(_pem(certificate) + authority.certificate, _key_pem(key), now + (ends - now) * 2 / 3)


def _made(now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"gwanmun xDS {now:%Y-%m-%d}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_pem(certificate), _key_pem(key))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
