"""`Applier`: keeps at the API server what every Gateway's fleet is to be. Only the leader applies.

Objects are applied when they differ from what is there, and when somebody else has deleted them or changed them back; all of
them again now and then, should that have gone unseen.
What may be touched at all is for `infra.fleet.apply` to say.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from gwanmun.api import Made, Object
from gwanmun.infra.fleet.apply import Fleet, FleetClient, Hindrance, Objects, Owner, Problem
from gwanmun.kube import UnreachableError
from gwanmun.names import NamespacedName, ObjectKey

_RETRY_S: Final = (2.0, 60.0)
"""After the first failure in a row, and at most."""
_AGAIN_S: Final = 600.0
_PAUSES_S: Final = (0.0, 1.0, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Before an object that others undo is applied anew, for each time in a row; the longest again and again."""
_CONTESTED: Final = 3
"""So many times in a row may be a person."""
_PEACE_S: Final = 60.0
"""After so long, and twice the last pause, it is no longer in a row: whoever undoes it may wait as long as we do."""
_CONCURRENCY: Final = 4

log = structlog.get_logger()


@dataclass(slots=True)
class ApplyStats:
    """Counted since the start, for metrics."""

    applied: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Quarrel:
    """How often in a row somebody has undone an object, and when (of the loop's clock) it was applied anew last."""

    times: int = 0
    last: float = -math.inf

    @property
    def pause(self) -> float:
        return _PAUSES_S[min(self.times, len(_PAUSES_S) - 1)]

    @property
    def over(self) -> float:
        return self.last + _PEACE_S + 2 * self.pause


class Applier:
    """Owns what is to be done. `objects_of` says what a Gateway is to have; None: it is not ours any more. `hindrance` says why
    that is not all that it should have; what there is already stays as it is then. `troubled` hears of Gateways whose problems
    are others now. `given_up` asks the API server whether an owner does not want its objects any more (a problem: nobody can
    tell): that nobody here knows of a Gateway is no reason to take its proxies away.
    """

    def __init__(
        self,
        client: FleetClient,
        objects_of: Callable[[NamespacedName], Objects | None],
        *,
        instance: str,
        hindrance: Callable[[NamespacedName], Hindrance | None],
        troubled: Callable[[NamespacedName], None],
        given_up: Callable[[Owner], Awaitable[bool | Problem]],
        namespaces: Collection[str] = (),
    ) -> None:
        """`namespaces` are those that are served; none: all of them."""
        self.stats = ApplyStats()
        self._given_up = given_up
        self._hindrance = hindrance
        self._fleet = Fleet(client, instance, namespaces)
        self._objects_of = objects_of
        self._troubled = troubled
        self._owners: dict[NamespacedName, frozenset[Owner]] = {}
        self._problems: dict[NamespacedName, tuple[Problem, ...]] = {}
        self._failures: Counter[NamespacedName] = Counter()
        self._known: set[NamespacedName] = set()
        self._due: dict[NamespacedName, None] = {}
        self._news = asyncio.Event()
        self._leading = False
        self._current = False
        self._sweep_at = 0.0
        self._sweeps_failed = 0
        self._quarrels: dict[ObjectKey, _Quarrel] = {}
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._complained: dict[str, set[str]] = {}

    def lead(self, leading: bool) -> None:
        """Whether we are the one that applies. Precondition: `touch` has been told of every Gateway that there is."""
        self._leading = leading
        if leading:
            self._current, self._sweep_at = False, 0.0
            self.touch(*self._known)
        self._news.set()

    def touch(self, *gateways: NamespacedName) -> None:
        """The Gateways' objects may have to be others now."""
        self._known.update(gateways)
        self._due.update(dict.fromkeys(gateways))
        self._news.set()

    def notice(self, changes: Mapping[ObjectKey, Object | None]) -> None:
        """What there is now (None: gone) of what was made. What somebody else has deleted or changed back is applied anew."""
        if not self._leading:
            return
        for key, found in changes.items():
            assert found is None or isinstance(found, Made)
            if owners := frozenset(self._fleet.undone(key, found)):
                self._again(key, [one for one in self._known if not owners.isdisjoint(self._owners_of(one))])

    def _owners_of(self, gateway: NamespacedName) -> frozenset[Owner]:
        return self._owners.get(gateway, frozenset((Owner("Gateway", *gateway),)))

    def _again(self, undone: ObjectKey, gateways: Sequence[NamespacedName]) -> None:
        """At once, unless this happens again and again: who undoes it will not stop then, so we go slow."""
        if undone in self._timers:
            return
        now = asyncio.get_running_loop().time()
        self._quarrels = {key: one for key, one in self._quarrels.items() if now < one.over}
        quarrel = self._quarrels.get(undone, _Quarrel())
        when = max(now, quarrel.last + quarrel.pause)
        self._quarrels[undone] = _Quarrel(quarrel.times + 1, when)
        self._after(when - now, undone, partial(self.touch, *gateways))
        if quarrel.times == _CONTESTED:
            log.error(
                "fleet_contested",
                object=str(undone),
                problem="somebody else deletes it or changes it back again and again; it is applied less and less often now",
                remedy="managedFields of the object name who; what is to be otherwise belongs into a GatewayClassConfig",
            )

    def problems(self, gateway: NamespacedName) -> tuple[Problem, ...]:
        """Why the Gateway does not have everything that it needs."""
        return self._problems.get(gateway, ())

    async def run(self) -> None:
        """Apply until cancelled."""
        again = asyncio.get_running_loop().time() + _AGAIN_S
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 forgets that it was cancelled where there is news at the same moment.
                async with asyncio.timeout_at(again):
                    await self._news.wait()
            if asyncio.get_running_loop().time() >= again:  # however much news there was meanwhile
                again = asyncio.get_running_loop().time() + _AGAIN_S
                self._sweep_at = 0.0  # what was kept then may have been given up
                self._current = False
                self.touch(*self._known)
            self._news.clear()
            if self._leading:
                await self._work()

    async def _work(self) -> None:
        if not self._current and not await self._look():
            self._after(_retry_after(1), "look", self._news.set)
            return
        while self._leading and self._due:
            batch = list(self._due)[:_CONCURRENCY]
            for gateway in batch:
                del self._due[gateway]
            await asyncio.gather(*(self._apply(gateway) for gateway in batch))
        if self._leading and asyncio.get_running_loop().time() >= self._sweep_at:
            await self._sweep()

    async def _sweep(self) -> None:
        """Delete what is of owners that nobody here knows, once they have given it up. What fails is tried again later."""
        problems = await self._sweep_now()
        self._complain("objects of former Gateways", problems)
        self._sweeps_failed = self._sweeps_failed + 1 if problems else 0
        if problems:
            wait = _retry_after(self._sweeps_failed)
            self._sweep_at = asyncio.get_running_loop().time() + wait
            self._after(wait, "sweep", self._news.set)
        else:
            self._sweep_at = math.inf

    async def _sweep_now(self) -> tuple[Problem, ...]:
        known = {Owner("Gateway", *gateway) for gateway in self._known}.union(*self._owners.values())
        kept: set[Owner] = set()
        problems: list[Problem] = []
        for owner in sorted(self._fleet.owners - known):
            answer = await self._given_up(owner)
            if answer is True:
                continue
            kept.add(owner)
            if isinstance(answer, Problem):
                problems.append(replace(answer, message=f"cannot tell whether {owner} is still there: {answer.message}"))
        return (*problems, *await self._fleet.sweep(known | kept))

    async def _look(self) -> bool:
        """See what is there. False where nobody answers."""
        try:
            problems = await self._fleet.relist()
        except UnreachableError as error:
            self._complain("all fleets", (Problem(str(error)),))
            return False
        self._complain("all fleets", problems)
        self._fleet.forget()
        self._current = True
        return True

    async def _apply(self, gateway: NamespacedName) -> None:
        try:
            objects, hindrance = self._objects_of(gateway), self._hindrance(gateway)
        except Exception as error:  # a defect of ours: it harms this Gateway, and what is there stays as it is
            log.exception("fleet_not_worked_out", gateway=str(gateway))
            self._troubled_by(gateway, [Problem(f"the proxies could not be worked out: {error!r}", serving=False)])
            return
        # Its own come first: those of its ListenerSets are no use without them.
        main = Owner("Gateway", *gateway)
        if objects is None and (kept := await self._kept(main)):
            self._troubled_by(gateway, kept)
            return
        wanted = objects or {}
        owners = [main, *sorted((wanted.keys() | self._owners.get(gateway, frozenset())) - {main})]
        problems, held = ([], frozenset()) if hindrance is None else ([hindrance.problem], hindrance.held)
        for owner in owners:
            problems += await self._fleet.apply(owner, wanted.get(owner, ()), held=held)
        self.stats.applied = self._fleet.writes
        self._troubled_by(gateway, problems)
        if objects is None and not problems:
            self._known.discard(gateway)
            self._owners.pop(gateway, None)
            return
        self._owners[gateway] = frozenset(owners)

    async def _kept(self, owner: Owner) -> list[Problem]:
        """Why the owner's objects stay although nothing is wanted for it; nothing where it has given them up."""
        if owner not in self._fleet.owners:
            return []
        answer = await self._given_up(owner)
        if answer is True:
            return []
        if isinstance(answer, Problem):
            return [replace(answer, message=f"kept, as it cannot be told whether {owner} is still there: {answer.message}")]
        why = f"{owner} is there, and its class does not exist, or is ours and one of the two cannot be read here"
        return [Problem(f"kept, as {why}", serving=False)]

    def _troubled_by(self, gateway: NamespacedName, problems: Sequence[Problem]) -> None:
        """What is in the way of a Gateway, if anything: told, and tried again later."""
        self.stats.failed += len(problems)
        self._note(gateway, tuple(problems))
        self._complain(str(gateway), problems)
        if problems:
            self._failures[gateway] += 1
            self._after(_retry_after(self._failures[gateway]), gateway, partial(self.touch, gateway))
        else:
            del self._failures[gateway]
            if (timer := self._timers.pop(gateway, None)) is not None:
                timer.cancel()

    def _note(self, gateway: NamespacedName, problems: tuple[Problem, ...]) -> None:
        if problems == self.problems(gateway):
            return
        if problems:
            self._problems[gateway] = problems
        else:
            del self._problems[gateway]
        self._troubled(gateway)

    def _after(self, wait: float, what: Hashable, act: Callable[[], None]) -> None:
        """Once, however often it fails meanwhile: each failure may be followed by another of its own."""
        if (timer := self._timers.get(what)) is not None:
            timer.cancel()
        self._timers[what] = asyncio.get_running_loop().call_later(wait, self._act, what, act)

    def _act(self, what: Hashable, act: Callable[[], None]) -> None:
        del self._timers[what]
        act()

    def _complain(self, subject: str, problems: Collection[Problem]) -> None:
        """Once for each problem, as it is tried again every other second; anew once there was none in between."""
        if not problems:
            self._complained.pop(subject, None)
            return
        complained = self._complained.setdefault(subject, set())
        for problem in problems:
            if str(problem) not in complained:
                complained.add(str(problem))
                grant = {} if problem.grant is None else {"grant": problem.grant}
                log.error("fleet_not_applied", subject=subject, problem=problem.message, **grant)


def _retry_after(failures: int) -> float:
    shortest, longest = _RETRY_S
    return min(longest, shortest * 2.0 ** min(failures - 1, 10))
