"""What is sent where: services, their rules, and which event goes to whom. Pure, and the same for a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.faults import targets
from tests.faults.answers import QUEUE

THREADS = 4
MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Profile:
    """One service: its fields over the defaults, how its target behaves (None: it has no HTTP target), its share."""

    name: str
    weight: float
    behave: targets.Behaviour | None
    fields: dict[str, Any] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)

    @property
    def tries(self) -> int:
        return max(1, int(self.fields.get("max_retries", 1)))


_NO_BREAKER = {"cb_failure_threshold": 0}
PROFILES = (
    Profile("good", 40, targets.well),
    Profile("slow", 8, targets.slowly, {"timeout": 3}),
    Profile("bad", 14, targets.badly, {"timeout": 0.8, "max_retries": 2, "retry_backoff": 0.05}),
    Profile("tide", 12, None, {"cb_failure_threshold": 3}),
    Profile("wrong", 3, targets.refusing),
    Profile("broken", 3, targets.broken, _NO_BREAKER),
    Profile("never", 1.5, targets.never, _NO_BREAKER | {"timeout": 0.5}),
    Profile("gone", 1, None, _NO_BREAKER),
    Profile("void", 1, targets.well, rule={"payload": '{"n": "{{missing}}"}', "strict": True}),
    Profile("ordered", 10, targets.badly, _NO_BREAKER | {"timeout": 0.8}, rule={"ordering_key": "{{lane}}"}),
    Profile("queue", 8, None, {"type": "amqp", "timeout": 3, "response_queue": QUEUE}),
)
BY_NAME = {profile.name: profile for profile in PROFILES}
LANES = 8  # ordering keys of the events
ORDERED = "ordered"
"""The service whose tasks are sent one at a time, in order, for each lane."""
FAN_OUT = ("good", "slow", "bad", "tide")
ALL = "e.all"
_NAMES = [*(f"e.{p.name}" for p in PROFILES), ALL]
_WEIGHTS = [*(p.weight for p in PROFILES), 6]


def event_name(seed: int, n: int) -> str:
    """The name of event number `n`."""
    return random.Random(f"{seed}/event/{n}").choices(_NAMES, _WEIGHTS)[0]


def data(n: int) -> dict[str, int]:
    """The data of event number `n`."""
    return {"n": n, "lane": n % LANES}


def services_for(name: str) -> tuple[str, ...]:
    """Which services an event of that name is delivered to."""
    return FAN_OUT if name == ALL else (name.removeprefix("e."),)
