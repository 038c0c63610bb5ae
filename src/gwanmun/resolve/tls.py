"""TLS material: certificates with their keys, and the authorities that client certificates are checked against.

What a reference leads to is read here and judged: existence, permission, kind, type, whether the text is a certificate and
whether the key is the certificate's. Expiry is deliberately not judged (nothing here knows the time). Messages never quote
what a Secret or ConfigMap holds.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

from gwanmun import ir
from gwanmun.api import ConfigMap, Gateway, Secret
from gwanmun.api.gateway import FrontendTLSValidation, GatewayTLSConfig
from gwanmun.api.references import SecretObjectReference
from gwanmun.memo import Query
from gwanmun.names import CertificateKey, NamespacedName, ObjectKey
from gwanmun.resolve.grant import missing_grant, permitted
from gwanmun.resolve.world import read
from gwanmun.resources.snapshot import GATEWAY_GROUP

TLS_TYPE = "kubernetes.io/tls"
CERTIFICATE, PRIVATE_KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
CURVES = ("secp256r1", "secp384r1", "secp521r1")
SMALLEST_RSA_KEY = 2048  # bits
UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What reading a malformed PEM text may raise."""


# Object identifiers as DER writes them.
_RSA_PSS_DER = bytes.fromhex("06092a864886f70d01010a")
_PRIME_FIELD_DER = bytes.fromhex("06072a8648ce3d0101")
_PKCS8_BLOCK = re.compile(rb"-----BEGIN PRIVATE KEY-----(.+?)-----END PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a reference cannot be followed, as a condition's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FrontendValidation:
    """What is asked of client certificates on a port. `validation` None with problems: no connection can be let in."""

    validation: ir.ClientValidation | None = None
    problems: tuple[Unresolved, ...] = ()

    @property
    def impossible(self) -> bool:
        """Whether certificates are to be checked and there is no authority to check them against."""
        return self.validation is None and bool(self.problems)


def certificate(q: Query, key: CertificateKey) -> ir.Certificate | str:
    """The certificate that a Secret holds, or what is wrong with the Secret."""
    secret = read(q, ObjectKey("", "Secret", *key.secret), Secret)
    if secret is None:
        return f"{key} does not exist"
    if secret.type != TLS_TYPE:
        return f'{key} is of type "{secret.type}"; it has to be "{TLS_TYPE}"'
    for name in (CERTIFICATE, PRIVATE_KEY):
        if not secret.data.get(name):
            return f'{key} has no "{name}"'
    chain, private_key = secret.data[CERTIFICATE], secret.data[PRIVATE_KEY]
    problem = _pair_problem(chain, private_key)
    if problem is not None:
        return f"{key}: {problem}"
    return ir.Certificate(key, chain.decode(), private_key.decode())


def certificate_problem(q: Query, key: CertificateKey) -> str | None:
    """What is wrong with the Secret, None where nothing is. A renewed certificate changes nothing here."""
    found = q.get(certificate, key)
    return found if isinstance(found, str) else None


def certificate_ref(q: Query, owner: ObjectKey, ref: SecretObjectReference, *, invalid: str) -> CertificateKey | Unresolved:
    """What a reference of `owner` to a certificate leads to; `invalid` is the reason where it leads nowhere."""
    target = ObjectKey(ref.group, ref.kind, ref.namespace or owner.namespace, ref.name)
    if not permitted(q, owner.group, owner.kind, owner.namespace, target):
        return Unresolved("RefNotPermitted", _not_permitted(owner, target))
    if (ref.group, ref.kind) != ("", "Secret"):
        return Unresolved(invalid, f'{ref.kind} of group "{ref.group}" is not supported; Secret of group "" is')
    key = CertificateKey(target.namespaced_name)
    problem = q.get(certificate_problem, key)
    return key if problem is None else Unresolved(invalid, problem)


def client_certificate(q: Query, gateway: NamespacedName) -> CertificateKey | Unresolved | None:
    """The certificate that a Gateway shows to its backends (spec.tls.backend), None where it names none."""
    tls = q.get(gateway_tls, gateway)
    ref = tls.backend.client_certificate_ref if tls and tls.backend else None
    if ref is None:
        return None
    return certificate_ref(q, ObjectKey(GATEWAY_GROUP, "Gateway", *gateway), ref, invalid="InvalidClientCertificateRef")


def client_identity(q: Query, gateway: NamespacedName) -> CertificateKey | None:
    """The same where it is usable, else None."""
    found = q.get(client_certificate, gateway)
    return found if isinstance(found, CertificateKey) else None


def gateway_tls(q: Query, gateway: NamespacedName) -> GatewayTLSConfig | None:
    """spec.tls of a Gateway."""
    obj = read(q, ObjectKey(GATEWAY_GROUP, "Gateway", *gateway), Gateway)
    return obj.spec.tls if obj is not None else None


def frontend_validation(q: Query, gateway: NamespacedName, port: int) -> FrontendValidation:
    """What the HTTPS listeners of that port ask of client certificates (spec.tls.frontend)."""
    tls = q.get(gateway_tls, gateway)
    if tls is None or tls.frontend is None:
        return FrontendValidation()
    config = next((entry.tls for entry in tls.frontend.per_port if entry.port == port), None)
    place = "default" if config is None else f"perPort[{port}].tls"
    validation = (config or tls.frontend.default).validation
    if validation is None:
        return FrontendValidation()
    owner = ObjectKey(GATEWAY_GROUP, "Gateway", *gateway)
    return _validation(q, owner, validation, f"spec.tls.frontend.{place}.validation")


def insecure_ports(q: Query, gateway: NamespacedName) -> tuple[str, ...]:
    """Where a Gateway lets clients in whose certificate does not hold (AllowInsecureFallback), for a condition."""
    tls = q.get(gateway_tls, gateway)
    if tls is None or tls.frontend is None:
        return ()
    places = [("default", tls.frontend.default)] + [(f"port {entry.port}", entry.tls) for entry in tls.frontend.per_port]
    return tuple(place for place, config in places if config.validation and config.validation.mode == "AllowInsecureFallback")


def authorities(q: Query, source: ObjectKey) -> str | Unresolved:
    """The certificate authorities, as PEM text, that a ConfigMap or a Secret holds under `ca.crt`."""
    texts = _texts(q, source)
    if texts is None:
        return Unresolved("InvalidCACertificateRef", f"{source} does not exist")
    pem = texts.get(AUTHORITIES)
    if not pem:
        return Unresolved("InvalidCACertificateRef", f'{source} has no "{AUTHORITIES}"')
    try:
        x509.load_pem_x509_certificates(pem)
        return pem.decode()
    except UNREADABLE:
        return Unresolved("InvalidCACertificateRef", f'"{AUTHORITIES}" of {source} is not a list of PEM certificates')


def _validation(q: Query, owner: ObjectKey, spec: FrontendTLSValidation, path: str) -> FrontendValidation:
    if spec.mode not in ("AllowValidOnly", "AllowInsecureFallback"):
        wrong_mode = f'{path}.mode: "{spec.mode}" is not one of AllowValidOnly and AllowInsecureFallback'
        return FrontendValidation(None, (Unresolved("InvalidCACertificateRef", wrong_mode),))
    pems: list[str] = []
    problems: list[Unresolved] = []
    for i, ref in enumerate(spec.ca_certificate_refs):
        found = _authorities_ref(q, owner, ObjectKey(ref.group, ref.kind, ref.namespace or owner.namespace, ref.name))
        if isinstance(found, str):
            pems.append(found if found.endswith("\n") else f"{found}\n")
        else:
            problems.append(Unresolved(found.reason, f"{path}.caCertificateRefs[{i}]: {found.message}"))
    if not pems:
        none_named = Unresolved("InvalidCACertificateRef", f"{path}.caCertificateRefs: a reference is needed")
        return FrontendValidation(None, tuple(problems) or (none_named,))
    required = spec.mode == "AllowValidOnly"
    return FrontendValidation(ir.ClientValidation("".join(dict.fromkeys(pems)), required=required), tuple(problems))


def _authorities_ref(q: Query, owner: ObjectKey, target: ObjectKey) -> str | Unresolved:
    if not permitted(q, owner.group, owner.kind, owner.namespace, target):
        return Unresolved("RefNotPermitted", _not_permitted(owner, target))
    if target.group != "" or target.kind not in ("ConfigMap", "Secret"):
        return Unresolved(
            "InvalidCACertificateKind",
            f'{target.kind} of group "{target.group}" is not supported; ConfigMap and Secret of group "" are',
        )
    return q.get(authorities, target)


def _texts(q: Query, source: ObjectKey) -> Mapping[str, bytes] | None:
    if source.kind == "Secret":
        secret = read(q, source, Secret)
        return secret.data if secret is not None else None
    config_map = read(q, source, ConfigMap)
    if config_map is None:
        return None
    return {**config_map.binary_data, **{name: text.encode() for name, text in config_map.data.items()}}


def _not_permitted(owner: ObjectKey, target: ObjectKey) -> str:
    grant = missing_grant(owner.group, owner.kind, owner.namespace, target)
    return f"{target} is in another namespace and no ReferenceGrant there permits it; {grant}"


def _pair_problem(chain: bytes, private_key: bytes) -> str | None:
    """What keeps a chain and a key from serving TLS, by what the proxy accepts."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
        of_certificate = certificates[0].public_key()
        chain.decode()
    except UNREADABLE:
        return f'"{CERTIFICATE}" is not a PEM certificate chain'
    try:
        of_key = load_pem_private_key(private_key, password=None).public_key()
        private_key.decode()
        written = _pkcs8(private_key)
    except TypeError:
        return f'"{PRIVATE_KEY}" is encrypted; a key without a passphrase is needed'
    except UNREADABLE:
        return f'"{PRIVATE_KEY}" is not a PEM private key'
    if _spki(of_certificate) != _spki(of_key):
        return f'"{PRIVATE_KEY}" is not the key of the certificate in "{CERTIFICATE}"'
    return _weak_key(of_certificate) or _refused_form(certificates[0], written)


def _pkcs8(private_key: bytes) -> bytes:
    """The DER of a key in the one form that names its algorithm, empty where it has another. May raise ValueError."""
    block = _PKCS8_BLOCK.search(private_key)
    return b64decode(block[1]) if block else b""


def _refused_form(leaf: x509.Certificate, written_key: bytes) -> str | None:
    """What keeps BoringSSL, and so Envoy, from reading a good key: how it is written down.

    cryptography reads more and does not tell, so this looks at the bytes. An identifier cannot be there by chance.
    """
    if leaf.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS or _RSA_PSS_DER in written_key:
        return "an RSA key for PSS only is refused; make a plain one (openssl genpkey -algorithm RSA) with its certificate"
    if _PRIME_FIELD_DER in leaf.tbs_certificate_bytes:
        return (
            f'the certificate in "{CERTIFICATE}" spells its elliptic curve out, which is refused; '
            "make one of a key with the curve's name (openssl ec -param_enc named_curve)"
        )
    return None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _weak_key(key: PublicKeyTypes) -> str | None:
    match key:
        case RSAPublicKey() if key.key_size >= SMALLEST_RSA_KEY:
            return None
        case RSAPublicKey():
            return f"an RSA key of {key.key_size} bits is refused; {SMALLEST_RSA_KEY} bits or more are needed"
        case EllipticCurvePublicKey() if key.curve.name in CURVES:
            return None
        case Ed25519PublicKey():
            return None
        case _:
            return f"only RSA, Ed25519 and elliptic curve keys ({', '.join(CURVES)}) are supported"
