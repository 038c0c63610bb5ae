"""A certificate of the xDS port that others make (cert-manager): whether it can be used, and how one follows another. Pure;
time is an argument.

Such a Secret changes all at once, the authority with the certificate. Trust comes before use here too: what a new authority
has signed is served when proxies have had that authority for a while, and the old one stays trusted for a while after that.
Deliberately absent: where the Secret is kept (``xdstls``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"

TRUSTED_BEFORE_USE: Final = timedelta(minutes=10)
"""Kubelets bring a changed ConfigMap within two minutes; the rest is for a ConfigMap that could not be written at once."""
TRUSTED_AFTER_USE: Final = timedelta(hours=1)
"""Another controller may have seen the new Secret later than we did. Not for as long as our own authorities: an authority
may have been exchanged because its key is known to others."""
_CURVES: Final = ("secp256r1", "secp384r1")
_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
_ANEW: Final = "have the certificate issued anew"


class UnusableError(Exception):
    """The text says which field, what is wrong with it and what to do."""


@dataclass(frozen=True, slots=True)
class Given:
    """A certificate with its chain and key, and the authorities to trust, all PEM; `ends` is when it counts no more."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: tuple[bytes, ...]
    ends: datetime


@dataclass(frozen=True, slots=True)
class Trusted:
    """An authority. What it has signed is served from `usable_at` on; it is trusted until `until` at least."""

    certificate: bytes
    usable_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in force: what is served and what proxies have to trust."""

    serving: Given
    trusted: tuple[Trusted, ...]

    @property
    def bundle(self) -> str:
        return b"".join(one.certificate for one in self.trusted).decode()


def given(data: Mapping[str, bytes], name: str, now: datetime) -> Given:
    """What a kubernetes.io/tls Secret with ca.crt holds, if proxies that ask for `name` accept it now. UnusableError."""
    _all_there(data)
    chain = _certificates(data, CERTIFICATE)
    key = _key(data[KEY])
    authorities = _certificates(data, AUTHORITIES)
    leaf = chain[0]
    if _spki(leaf.public_key()) != _spki(key.public_key()):
        raise UnusableError(f'"{KEY}" is not the key of the certificate in "{CERTIFICATE}"; {_ANEW}')
    _check_key(leaf.public_key())
    try:
        _check_names(leaf, name)
        _check_usage(leaf)
    except _UNREADABLE as error:  # extensions are only read when they are asked for
        raise UnusableError(f'"{CERTIFICATE}" has an extension that cannot be read ({error}); {_ANEW}') from None
    _check_time(leaf, now)
    if not _leads_to(leaf, chain[1:], authorities, now):
        signed = f'the certificate in "{CERTIFICATE}" is signed by "{leaf.issuer.rfc4514_string()}"'
        raise UnusableError(f'{signed}, which no valid certificate in "{AUTHORITIES}" answers for; put that authority there')
    # Written anew: what stands between the certificates is nobody's business, and need not be text.
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pems = tuple(dict.fromkeys(map(_pem, authorities)))
    return Given(b"".join(map(_pem, chain)), key_pem, pems, leaf.not_valid_after_utc)


def following(before: Standing | None, found: Given, now: datetime) -> Standing:
    """What is in force when the Secret holds `found`. To be called now and then with the same, as time goes on."""
    if before is None:
        # What proxies trust from an earlier life is not known; nothing else could be served anyway.
        return Standing(found, tuple(Trusted(one, now, now + TRUSTED_AFTER_USE) for one in found.authorities))
    known = {one.certificate: one for one in before.trusted}
    for one in found.authorities:
        known.setdefault(one, Trusted(one, now + TRUSTED_BEFORE_USE, now))
    usable = [one.certificate for one in known.values() if one.usable_at <= now]
    serving = found if before.serving.ends <= now or _is_signed_by(found, usable, now) else before.serving
    needed = dict.fromkeys((*found.authorities, *serving.authorities))
    kept = [Trusted(one, known[one].usable_at, now + TRUSTED_AFTER_USE) for one in needed]
    return Standing(serving, (*kept, *(one for one in known.values() if one.certificate not in needed and one.until > now)))


def _all_there(data: Mapping[str, bytes]) -> None:
    missing = [f'"{field}"' for field in (CERTIFICATE, KEY, AUTHORITIES) if not data.get(field)]
    if missing:
        kept = f'the authority that signed "{CERTIFICATE}" in "{AUTHORITIES}"'
        raise UnusableError(f"{', '.join(missing)} missing; a certificate with its key is needed, and {kept}")


def _certificates(data: Mapping[str, bytes], field: str) -> Sequence[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(data[field])
        for one in found:
            _spki(one.public_key())
    except _UNREADABLE:
        raise UnusableError(f'"{field}" is not a list of PEM certificates; put there what the issuer gave, as PEM') from None
    return found


def _key(pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise UnusableError(f'"{KEY}" is encrypted; put the key there without a passphrase') from None
    except _UNREADABLE:  # whose text could show some of it
        raise UnusableError(f'"{KEY}" is not a PEM private key; put the key of "{CERTIFICATE}" there') from None


def _check_key(key: PublicKeyTypes) -> None:
    """What Envoy takes from a server: no Ed25519 and no secp521r1 are among the signatures that it offers."""
    match key:
        case RSAPublicKey():
            return
        case EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return
        case EllipticCurvePublicKey():
            what = f"on the curve {key.curve.name}"
        case _:
            what = "neither RSA nor ECDSA"
    wanted = f"RSA, or ECDSA on {' or '.join(_CURVES)}"
    raise UnusableError(f'"{KEY}" is {what}, which proxies do not accept; {_ANEW} with {wanted}')


def _check_names(leaf: x509.Certificate, name: str) -> None:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    if not any(_covers(one.lower(), name) for one in names):
        said = ", ".join(names) or "no DNS name"
        raise UnusableError(f'the certificate in "{CERTIFICATE}" is for {said}; {_ANEW} with the DNS name {name}')


def _covers(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2])


def _check_usage(leaf: x509.Certificate) -> None:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # for everything
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:  # "any" does not do for Envoy
        raise UnusableError(f'the certificate in "{CERTIFICATE}" is not for servers; {_ANEW} with the usage "server auth"')


def _check_time(leaf: x509.Certificate, now: datetime) -> None:
    if leaf.not_valid_after_utc <= now:
        raise UnusableError(
            f'the certificate in "{CERTIFICATE}" ended at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}; {_ANEW}'
        )
    if leaf.not_valid_before_utc > now:
        begins = f"{leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        raise UnusableError(f'the certificate in "{CERTIFICATE}" counts from {begins} on only; wait, or {_ANEW}')


def _is_signed_by(found: Given, authorities: Iterable[bytes], now: datetime) -> bool:
    leaf, *between = x509.load_pem_x509_certificates(found.chain)
    return _leads_to(leaf, between, [x509.load_pem_x509_certificate(one) for one in authorities], now)


def _leads_to(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime
) -> bool:
    """Whether an authority answers for a certificate, if need be by way of some of `between`."""
    reached, left = [leaf], list(between)
    for certificate in reached:  # which grows
        if certificate in authorities or any(_signed(certificate, one, now) for one in authorities):
            return True
        signers = [one for one in left if _signed(certificate, one, now)]
        left = [one for one in left if one not in signers]
        reached += signers
    return False


def _signed(certificate: x509.Certificate, by: x509.Certificate, now: datetime) -> bool:
    if not by.not_valid_before_utc <= now < by.not_valid_after_utc:
        return False
    try:
        certificate.verify_directly_issued_by(by)
        return by.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return by.version is x509.Version.v1  # has no extensions that could say it
    except (*_UNREADABLE, TypeError, InvalidSignature):
        return False


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
