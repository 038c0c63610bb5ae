"""What is wrong in one rule of a route, and what becomes of the rule because of it."""

from dataclasses import dataclass
from typing import Literal

Effect = Literal["dropped", "answers 500", "partly served", "ignored"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A user's mistake in rule number `rule`, under the condition that tells it.

    `dropped`: no request can match the rule as it stands. `answers 500`: it matches, but cannot do what is asked. `partly
    served`: the share of one backend answers 500. `ignored`: the rule serves without.
    """

    rule: int
    condition: Literal["Accepted", "ResolvedRefs"]
    effect: Effect
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be used, as a condition's reason and message."""

    reason: str
    message: str
