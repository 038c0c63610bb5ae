"""What the words of a refusal mean."""

import pytest

from gwanmun.kube.refusal import missing_right, namespace_ends, namespace_is_gone

RBAC = 'services is forbidden: User "gwanmun" cannot list resource "services" in API group "" at the cluster scope'
ENDING = 'services "gw" is forbidden: unable to create new content in namespace ai because it is being terminated'
QUOTA = 'services "gw" is forbidden: exceeded quota: few, requested: count/services=1, used: count/services=3, limited: 3'
ADMISSION = 'admission webhook "policy.example.com" denied the request: a label cannot be missing'


@pytest.mark.parametrize(
    ("message", "right", "ends"),
    [(RBAC, True, False), (ENDING, False, True), (QUOTA, False, False), (ADMISSION, False, False), ("", False, False)],
)
def test_only_a_role_mends_a_missing_right(message: str, right: bool, ends: bool) -> None:
    assert (missing_right(message), namespace_ends(message)) == (right, ends)


@pytest.mark.parametrize(
    ("message", "gone"), [('namespaces "ai" not found', True), ('deployments.apps "gw" not found', False), (ENDING, False)]
)
def test_a_namespace_that_is_gone_is_not_an_object_that_is_missing_in_it(message: str, gone: bool) -> None:
    assert namespace_is_gone(message) == gone
