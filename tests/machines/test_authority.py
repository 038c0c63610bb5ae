"""The authorities of the xDS port over the years: trusted before they sign, never gone while something of theirs counts."""

from datetime import UTC, datetime, timedelta

from cryptography import x509

from gwanmun.infra.authority import AUTHORITY_LIFE, SERVER_NAME, Authority, bundle, renewed, server_certificate, signer

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_first_one_signs_at_once() -> None:
    authorities = renewed((), START)
    assert signer(authorities, START) == authorities[0]
    assert renewed(authorities, START + timedelta(days=200)) == authorities


def test_proxies_always_trust_who_signs() -> None:
    """A proxy gets the authorities of the moment within a day; whoever signs a day later must be among them."""
    authorities: tuple[Authority, ...] = ()
    known = ""
    for day in range(3 * 365):
        now = START + timedelta(days=day)
        authorities = renewed(authorities, now)
        signing = signer(authorities, now)
        assert not known or signing.certificate.decode() in known, f"day {day}"
        assert signing.ends > now
        known = bundle(authorities)
        assert len(authorities) <= 2
    assert authorities[-1].made > START + AUTHORITY_LIFE


def test_a_server_certificate_is_for_its_names_and_short_lived() -> None:
    (authority,) = renewed((), START)
    made = server_certificate(authority, ["gwanmun.sys.svc"], START)
    leaf, root = x509.load_pem_x509_certificates(made.chain)
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == [SERVER_NAME, "gwanmun.sys.svc"]
    assert START < made.renew_at < leaf.not_valid_after_utc <= START + timedelta(days=7)


def test_keys_do_not_show() -> None:
    (authority,) = renewed((), START)
    assert "KEY" not in repr(authority)
    assert "KEY" not in repr(server_certificate(authority, [], START))
