"""A certificate of the xDS port that others make: what is refused, in which words, and how one follows another."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gwanmun.infra.authority import SERVER_NAME
from gwanmun.infra.given import TRUSTED_AFTER_USE, TRUSTED_BEFORE_USE, Given, Standing, UnusableError, following, given

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CA = trustme.CA()

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def key_pem(key: Key, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def secret(
    *,
    ca: trustme.CA = CA,
    names: Sequence[str] = (SERVER_NAME,),
    key: Key | None = None,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> dict[str, bytes]:
    """As cert-manager writes it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signing = load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.ExtendedKeyUsage([usage]), False)
    )
    if names:
        certificate = certificate.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    chain = certificate.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM)
    return {"tls.crt": chain, "tls.key": key_pem(key), "ca.crt": ca.cert_pem.bytes()}


def read(data: dict[str, bytes]) -> Given:
    return given(data, SERVER_NAME, NOW)


@pytest.mark.parametrize(
    "data",
    [
        secret(),
        secret(names=["*.gwanmun.dev"]),
        secret(names=["other", SERVER_NAME.upper()]),
        secret(key=rsa.generate_private_key(65537, 2048)),
        secret(key=ec.generate_private_key(ec.SECP384R1())),
        secret() | {"ca.crt": trustme.CA().cert_pem.bytes() + CA.cert_pem.bytes()},
    ],
    ids=["plain", "wildcard", "several-names", "rsa", "p384", "several-authorities"],
)
def test_what_proxies_accept_is_usable(data: dict[str, bytes]) -> None:
    read(data)


def test_a_chain_leads_to_its_authority() -> None:
    middle = CA.create_child_ca()
    data = secret(ca=middle) | {"ca.crt": CA.cert_pem.bytes()}
    with pytest.raises(UnusableError, match="answers for"):
        read(data)
    read(data | {"tls.crt": data["tls.crt"] + middle.cert_pem.bytes()})


def test_what_stands_between_certificates_goes_to_nobody() -> None:
    found = read(secret() | {"ca.crt": b"# caf\xe9\n" + CA.cert_pem.bytes() + b"\xff\n"})
    assert following(None, found, NOW).bundle.count("BEGIN CERTIFICATE") == 1


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "empty": ({}, r'^"tls.crt", "tls.key", "ca.crt" missing; '),
    "no-authority": (secret() | {"ca.crt": b""}, r'^"ca.crt" missing; .*authority'),
    "garbage-certificate": (secret() | {"tls.crt": b"hello"}, r'^"tls.crt" is not a list of PEM certificates; put'),
    "garbage-key": (secret() | {"tls.key": b"hello"}, r'^"tls.key" is not a PEM private key; put'),
    "garbage-authority": (secret() | {"ca.crt": b"\xff\xfe"}, r'^"ca.crt" is not a list of PEM certificates; put'),
    "cut-authority": (secret() | {"ca.crt": CA.cert_pem.bytes()[:300]}, r'^"ca.crt" is not a list of PEM'),
    "encrypted": (
        secret() | {"tls.key": key_pem(ec.generate_private_key(ec.SECP256R1()), b"x")},
        r'^"tls.key" is encrypted; .*without',
    ),
    "another-key": (
        secret() | {"tls.key": secret()["tls.key"]},
        r'^"tls.key" is not the key of the certificate in "tls.crt"; have',
    ),
    "another-name": (secret(names=["a.example", "b"]), rf"is for a\.example, b; .*the DNS name {SERVER_NAME}"),
    "deep-wildcard": (secret(names=["*.dev"]), r"is for \*\.dev; "),
    "no-name": (secret(names=[]), "is for no DNS name; "),
    "clients-only": (secret(usage=ExtendedKeyUsageOID.CLIENT_AUTH), 'not for servers; .*"server auth"'),
    "any-usage": (secret(usage=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), "not for servers; "),
    "ended": (secret(ends=NOW), "ended at 2026-01-01T00:00:00Z; have"),
    "not-yet": (secret(begins=NOW + timedelta(hours=1)), "counts from 2026-01-01T01:00:00Z on only; wait"),
    "another-authority": (secret() | {"ca.crt": trustme.CA().cert_pem.bytes()}, 'no valid certificate in "ca.crt"'),
    "p521": (secret(key=ec.generate_private_key(ec.SECP521R1())), '"tls.key" is on the curve secp521r1, '),
    "ed25519": (secret(key=ed25519.Ed25519PrivateKey.generate()), '"tls.key" is neither RSA nor ECDSA, '),
}


@pytest.mark.parametrize(("data", "problem"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_named_with_what_to_do(data: dict[str, bytes], problem: str) -> None:
    with pytest.raises(UnusableError, match=problem):
        read(data)


def test_a_certificate_of_a_trusted_authority_is_served_at_once() -> None:
    first, second = read(secret()), read(secret())
    before = following(None, first, NOW)
    assert before.serving == first
    after = following(before, second, NOW)
    assert after.serving == second
    assert after.bundle == before.bundle


def test_an_authority_is_trusted_before_what_it_signs_is_served_and_after() -> None:
    old, new = read(secret()), read(secret(ca=trustme.CA()))
    standing, served, trusted = following(None, old, NOW), [], []
    for minute in range(120):
        standing = following(standing, new, NOW + timedelta(minutes=minute))
        served.append(standing.serving)
        trusted.append({one.certificate for one in standing.trusted})
    turn, forgotten = served.index(new), trusted.index(set(new.authorities))
    assert served == [old] * turn + [new] * (120 - turn)
    assert timedelta(minutes=turn) == TRUSTED_BEFORE_USE
    assert trusted == [{*old.authorities, *new.authorities}] * forgotten + [set(new.authorities)] * (120 - forgotten)
    assert timedelta(minutes=forgotten - turn + 1) >= TRUSTED_AFTER_USE


def test_what_has_ended_is_served_no_longer_for_the_sake_of_trust() -> None:
    old, new = read(secret(ends=NOW + timedelta(minutes=2))), read(secret(ca=trustme.CA()))
    standing = following(following(None, old, NOW), new, NOW + timedelta(minutes=1))
    assert standing.serving == old
    standing = following(standing, new, NOW + timedelta(minutes=2))
    assert standing.serving == new
    assert {*old.authorities, *new.authorities} == {one.certificate for one in standing.trusted}


def test_a_change_that_is_taken_back_changes_nothing_that_is_served() -> None:
    old, new = read(secret()), read(secret(ca=trustme.CA()))
    standing: Standing | None = None
    for minute, found in enumerate([old, new, old]):
        standing = following(standing, found, NOW + timedelta(minutes=minute))
        assert standing.serving == old


def test_an_authority_of_a_third_kind_is_waited_for_anew() -> None:
    old, second, third = read(secret()), read(secret(ca=trustme.CA())), read(secret(ca=trustme.CA()))
    standing = following(following(None, old, NOW), second, NOW)
    standing = following(standing, third, NOW + timedelta(minutes=9))
    standing = following(standing, third, NOW + timedelta(minutes=11))
    assert standing.serving == old
    assert len(standing.trusted) == 3
    standing = following(standing, third, NOW + timedelta(minutes=19))
    assert standing.serving == third


def test_keys_do_not_show() -> None:
    found = read(secret())
    assert "PRIVATE" not in repr(following(None, found, NOW))
