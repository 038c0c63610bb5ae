"""What a refusal of an API server means: RBAC, quotas, admission and the end of a namespace are told in words alone."""

import re

_NO_NAMESPACE = re.compile(r'\bnamespaces "[^"]+" not found')
_RBAC = re.compile(r"\bcannot [a-z]+ resource\b")


def missing_right(message: str) -> bool:
    """Whether a Role would help: RBAC says `User "x" cannot list resource "services" ...`, and nobody else says that."""
    return _RBAC.search(message) is not None


def namespace_ends(message: str) -> bool:
    """Whether the namespace is on its way out: nothing is to be made in it any more, and that is nobody's mistake."""
    return "because it is being terminated" in message


def namespace_is_gone(message: str) -> bool:
    """Whether it is the namespace that is not there, and not only something in it."""
    return _NO_NAMESPACE.search(message) is not None
