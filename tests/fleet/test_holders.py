"""Two Gateways whose names and classes make the same name: only one may have the proxies that are called so."""

from typing import Any

import pytest

from fleet.test_objects import OPTIONS
from fleet.test_parameters import looked_at, snapshot_of
from gwanmun.api.kinds import MADE_KINDS
from gwanmun.api.made import Made, MadeMeta
from gwanmun.api.meta import OwnerReference
from gwanmun.app.controller import Controller, ControllerOptions
from gwanmun.app.fleets import Fleets
from gwanmun.infra.fleet.apply import Owner
from gwanmun.infra.fleet.certificates import Issuer
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import key_of

WEB, INTERNAL = NamespacedName("ai", "web"), NamespacedName("ai", "web-internal")
ACCOUNT = NamespacedName("ai", "web-internal-gwanmun")
CLASH = "service account ai/web-internal-gwanmun is that of the proxies of Gateway {}: name and class of both make the same"


def gateway(name: str, of_class: str, created: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {of_class}}}
spec: {{controllerName: gwanmun.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: ai, uid: {name}, creationTimestamp: "{created}"}}
spec:
  gatewayClassName: {of_class}
  listeners:
    - {{name: http, protocol: HTTP, port: 8080}}
    - name: https
      protocol: HTTPS
      hostname: {name}.example
      port: 8443
      tls: {{certificateRefs: [{{name: {name}}}]}}
"""


def both(*, web: str, internal: str) -> tuple[str, str]:
    """Which was made when."""
    return gateway("web", "internal-gwanmun", web), gateway("web-internal", "gwanmun", internal)


ServiceAccount, Deployment = (
    next(one.type for one in MADE_KINDS if one.kind == kind) for kind in ("ServiceAccount", "Deployment")
)
SOONER, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def made(kind: type[Made], *owners: str) -> Made:
    references = tuple(OwnerReference("gateway.networking.k8s.io/v1", "Gateway", name, uid=name) for name in owners)
    return kind(metadata=MadeMeta(name=ACCOUNT.name, namespace="ai", owner_references=references))


def fleets_of(documents: tuple[str, ...], *there: tuple[type[Made], str]) -> Fleets:
    fleets = Fleets(lambda: OPTIONS, lambda _: None, Issuer("acme"))
    live = {
        ObjectKey(kind.GROUP, kind.KIND, *ACCOUNT): frozenset({Owner("Gateway", "ai", owner)} if owner else ())
        for kind, owner in there
    }
    looked_at(fleets, snapshot_of(*documents), live)
    return fleets


def kinds_for(fleets: Fleets, key: NamespacedName) -> set[str]:
    found = fleets.objects(key)
    assert found is not None
    return {one["kind"] for objects in found.values() for one in objects}


@pytest.mark.parametrize("there", [ServiceAccount, Deployment], ids=["account", "proxies alone"])
@pytest.mark.parametrize(("has", "lacks"), [(WEB, INTERNAL), (INTERNAL, WEB)], ids=str)
@pytest.mark.parametrize(("web", "internal"), [(SOONER, LATER), (LATER, SOONER)], ids=["web first", "web last"])
def test_what_is_there_belongs_to_its_owner(
    there: type[Made], has: NamespacedName, lacks: NamespacedName, web: str, internal: str
) -> None:
    fleets = fleets_of(both(web=web, internal=internal), (there, has.name))
    assert fleets.accounts() == {ACCOUNT: has}
    assert fleets.hindrance(has) is None
    assert {"ServiceAccount", "Deployment", "Service", "Certificate"} <= kinds_for(fleets, has)
    hindrance = fleets.hindrance(lacks)
    assert hindrance is not None
    assert hindrance.problem.message == f"{CLASH.format(has)}; rename one of the two"
    assert {"ServiceAccount", "Deployment", "Service"} <= hindrance.held, "what it may still have of another name stays"
    assert kinds_for(fleets, lacks) == {"Certificate"}
    assert fleets.placement(lacks).problem == ("Invalid", hindrance.problem.message)
    assert fleets.placement(lacks).addresses == ()


def test_of_nothing_yet_the_older_one_has_it() -> None:
    assert fleets_of(both(web=SOONER, internal=LATER)).accounts() == {ACCOUNT: WEB}
    assert fleets_of(both(web=LATER, internal=SOONER)).accounts() == {ACCOUNT: INTERNAL}
    assert fleets_of(both(web=SOONER, internal=SOONER)).accounts() == {ACCOUNT: WEB}


def test_what_is_left_of_another_gateway_is_nobody_elses() -> None:
    """It is being deleted, or it has another class now: until its proxies are gone they are given nothing of a namesake."""
    fleets = fleets_of((gateway("web", "internal-gwanmun", SOONER),), (Deployment, "web-internal"))
    assert fleets.accounts() == {}
    assert fleets.placement(WEB).problem == ("Invalid", f"{CLASH.format(INTERNAL)}; rename one of the two")


def test_what_has_no_owner_is_nobodys() -> None:
    fleets = fleets_of((gateway("web", "internal-gwanmun", SOONER),), (ServiceAccount, ""))
    assert fleets.accounts() == {}
    hindrance = fleets.hindrance(WEB)
    assert hindrance is not None
    assert "belongs to no Gateway; delete it or rename Gateway ai/web" in str(hindrance.problem)


class Told:
    """Stands for the applier and the writer of statuses."""

    def __init__(self) -> None:
        self.touched: set[Any] = set()

    def touch(self, *keys: Any) -> None:
        self.touched.update(keys)

    def notice(self, _: Any) -> None: ...


def test_when_the_owners_proxies_are_gone_the_other_has_the_name() -> None:
    controller, told = Controller(ControllerOptions(OPTIONS)), Told()
    controller._applier = controller.writer = told  # type: ignore[assignment]  # stand-ins
    account = made(ServiceAccount, "web-internal")
    controller._notice({key_of(account): account})
    controller._snapshot = snapshot_of(gateway("web", "internal-gwanmun", SOONER))
    controller._resolution = Resolver(Settings()).update(controller._snapshot, frozenset())
    controller._update_fleets(controller._resolution)
    assert controller.proxies.accounts == {}
    told.touched.clear()
    controller._notice({key_of(account): None})
    assert controller.proxies.accounts == {ACCOUNT: WEB}
    assert told.touched == {WEB, ObjectKey("gateway.networking.k8s.io", "Gateway", *WEB)}
