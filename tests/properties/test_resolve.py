"""Does resolving give an answer to anything, the same in any order, and the same step by step as from scratch?"""

import random
from collections.abc import Iterator, Mapping, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gwanmun import ir
from gwanmun.api import Object
from gwanmun.names import ObjectKey
from gwanmun.resolve.model import Resolution, Resolver, resolve
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot
from properties.worlds import World, edits, worlds

SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(worlds())
def test_any_world_has_an_answer_that_holds_together(world: World) -> None:
    check_whole(resolve(snapshot_of(world)), world)


@SLOW
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(world: World, order: random.Random) -> None:
    keys = list(world)
    order.shuffle(keys)
    one_by_one = Snapshot()
    for key in keys:
        one_by_one, _ = one_by_one.apply({key: world[key]})
    assert written(resolve(one_by_one)) == written(resolve(snapshot_of(world)))


@SLOW
@given(worlds(), st.lists(edits, max_size=6))
def test_step_by_step_is_as_from_scratch(world: World, steps: Sequence[Mapping[ObjectKey, Object | None]]) -> None:
    resolver = Resolver(Settings())
    snapshot, changed = Snapshot().apply(world)
    before = resolver.update(snapshot, changed)
    for step in steps:
        snapshot, changed = snapshot.apply(step)
        after = resolver.update(snapshot, changed)
        assert written(after) == written(resolve(snapshot))
        check_identity(before, after)
        before = after


def snapshot_of(world: World) -> Snapshot:
    return Snapshot().apply(world)[0]


def written(resolution: Resolution) -> tuple[object, ...]:
    """Everything, in its order; what a Gateway reaches is sets, which have none."""
    return repr(resolution.model), repr(resolution.statuses), list(resolution.reach.items())


def check_whole(resolution: Resolution, world: World) -> None:
    """What is referred to is there, certificates no more than that, and statuses are about objects that exist."""
    model = resolution.model
    assert set(resolution.statuses) <= set(world)
    targets = {target for rule in rules(model) for target in named_by(rule)}
    assert targets <= set(model.backends) == set(model.endpoints)  # attached routes may be shadowed by others
    presented = {
        key
        for gateway in model.gateways.values()
        for port in gateway.ports
        for listener in port.listeners
        if isinstance(listener, ir.HttpListener | ir.TlsListener) and listener.tls is not None
        for key in listener.tls.certificates
    }
    shown = {backend.tls.client_certificate for backend in model.backends.values() if backend.tls is not None} - {None}
    assert presented | shown == set(model.certificates)
    for gateway in model.gateways.values():
        for port in gateway.ports:
            http = [listener for listener in port.listeners if isinstance(listener, ir.HttpListener)]
            domains = [domain for listener in http for domain in listener.hosts]
            assert len(domains) == len(set(domains)), "a host belongs to one listener"
            assert all(listener.hostname in listener.hosts for listener in http)
            assert not any(domain in listener.hosts for listener in http for domain in listener.misdirected)


def check_identity(before: Resolution, after: Resolution) -> None:
    """What is equal to before is the very object that it was."""
    for old, new in (
        (hosts(before.model), hosts(after.model)),
        (before.model.gateways, after.model.gateways),
        (before.model.backends, after.model.backends),
        (before.model.endpoints, after.model.endpoints),
        (before.statuses, after.statuses),
    ):
        for key in set(old) & set(new):
            assert new[key] is old[key] or new[key] != old[key]


def hosts(model: ir.Model) -> Mapping[object, object]:
    return {
        (listener.key, domain): host
        for gateway in model.gateways.values()
        for port in gateway.ports
        for listener in port.listeners
        if isinstance(listener, ir.HttpListener)
        for domain, host in listener.hosts.items()
    }


def rules(model: ir.Model) -> Iterator[ir.Rule | ir.L4Rule]:
    for gateway in model.gateways.values():
        for port in gateway.ports:
            for listener in port.listeners:
                match listener:
                    case ir.HttpListener():
                        for host in listener.hosts.values():
                            yield from host.rules
                    case ir.TlsListener():
                        yield from listener.rules
                    case ir.TcpListener() | ir.UdpListener():
                        yield from [listener.rule] if listener.rule is not None else []


def named_by(rule: ir.Rule | ir.L4Rule) -> Iterator[object]:
    if isinstance(rule, ir.L4Rule):
        yield from (target.target for target in rule.targets if target.target is not None)
    elif isinstance(rule.action, ir.Forward):
        yield from (target.target for target in rule.action.targets if target.target is not None)
        yield from (target.picker.target for target in rule.action.targets if target.picker is not None)
        yield from (mirror.target for mirror in rule.action.mirrors)
