"""Which Gateway has what is called NAME-CLASS, where several would be called the same. Pure.

`web-internal` of class `gwanmun` and `web` of class `internal-gwanmun` are both `web-internal-gwanmun`. Whoever has the service
account of that name is given the Gateway's listeners and keys, so that it must not change hands because a Gateway is made.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gwanmun.api import Gateway
from gwanmun.api.kinds import MADE_KINDS
from gwanmun.infra.fleet.apply import Owner, Problem
from gwanmun.infra.fleet.naming import fleet_name
from gwanmun.names import NamespacedName, ObjectKey

PROXY_KINDS: Final = tuple(kind for kind in MADE_KINDS if kind.kind != "Certificate")
"""Kinds of what is called so; the account comes first, as its owner is whose proxies run. Certificates have Secrets' names."""


def account_of(gateway: Gateway) -> NamespacedName:
    """The service account of the Gateway's proxies, if it has it."""
    return NamespacedName(gateway.metadata.namespace, fleet_name(gateway))


def holders(
    gateways: Iterable[Gateway], made: Mapping[ObjectKey, frozenset[Owner]]
) -> dict[NamespacedName, NamespacedName | None]:
    """By account the Gateway that has it: the owner of what is there, whoever that is; of nothing yet, the oldest that would
    have it. None where what is there has no owner. `made` are the objects that there are, with their owners."""
    oldest: dict[NamespacedName, Gateway] = {}
    for gateway in gateways:
        account = account_of(gateway)
        oldest[account] = min(oldest.get(account, gateway), gateway, key=_seniority)
    return {account: _holder(account, gateway, made) for account, gateway in oldest.items()}


def clash(gateway: Gateway, holder: NamespacedName | None) -> Problem | None:
    """Why the Gateway cannot have proxies, where another one has what its own would be called."""
    key, account = NamespacedName(gateway.metadata.namespace, gateway.metadata.name), account_of(gateway)
    if holder == key:
        return None
    if holder is None:
        return Problem(
            f"what is called {account} is there already and belongs to no Gateway; delete it or rename Gateway {key}"
        )
    both = "name and class of both make the same"
    return Problem(f"service account {account} is that of the proxies of Gateway {holder}: {both}; rename one of the two")


def _seniority(gateway: Gateway) -> tuple[str, str]:
    return gateway.metadata.creation_timestamp or "", gateway.metadata.name


def _holder(account: NamespacedName, oldest: Gateway, made: Mapping[ObjectKey, frozenset[Owner]]) -> NamespacedName | None:
    for kind in PROXY_KINDS:
        owners = made.get(ObjectKey(kind.group, kind.kind, *account))
        if owners is not None:
            return min((NamespacedName(one.namespace, one.name) for one in owners if one.kind == "Gateway"), default=None)
    return NamespacedName(oldest.metadata.namespace, oldest.metadata.name)
