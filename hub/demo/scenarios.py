"""The five scenarios. Each sends events, waits for the result, and compares the ledger with the services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.demo.environment import Environment, NotObserved
from hub.demo.target import DIRECTORY_RESTARTS, Received
from hub.models import Event

ATTEMPTS = 5  # HUB_MAX_ATTEMPTS


@dataclass
class Scenario:
    """One promise of the hub and its checks.

    Attributes:
        checks: (claim, whether it held).
        attempts: attempts of the scenario's task; None if it has no single task.
    """

    promise: str
    checks: list[tuple[str, bool]] = field(default_factory=list)
    attempts: int | None = None

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(held for _, held in self.checks)

    def check(self, claim: str, seen: object, wanted: object = True) -> None:
        """Record whether `seen` equals `wanted`. A failed claim names both."""
        held = seen == wanted
        self.checks.append((claim if held else f"{claim}: saw {seen!r} instead of {wanted!r}", held))


def run(env: Environment, scenario: Scenario, play: Callable[[Environment, Scenario], None]) -> Scenario:
    """Scenarios one scenario and show what came of it; what did not happen is a check that failed."""
    env.screen.title(scenario.promise)
    try:
        play(env, scenario)
    except NotObserved as e:
        scenario.checks.append((str(e), False))
    env.report()
    for claim, held in scenario.checks:
        env.screen.checked(claim, ok=held)
    return scenario


class Scenarios:
    """The scenarios in order. They share the events of the file."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._dead_task = 0

    def all(self) -> list[tuple[Scenario, Callable[[Environment, Scenario], None]]]:
        """All scenarios with their promises."""
        return [
            (Scenario("1. An event is delivered"), self.delivered),
            (Scenario("2. A service restarts: delivered on the third attempt"), self.third_attempt),
            (Scenario("3. A service refuses: five attempts, then the dead-letter queue"), self.dead_letter),
            (Scenario("4. A service is down: its circuit opens, parks, probes and closes"), self.circuit),
            (Scenario("5. The cause is repaired: the dead letter is replayed and delivered"), self.replayed),
        ]

    def delivered(self, env: Environment, scenario: Scenario) -> None:
        """A working service, one rule, one POST."""
        task = self._feed(env, "course_completed")[0]
        row = env.until(lambda: env.delivered(task), "waiting for the delivery")
        got = env.target.at("crm")
        scenario.attempts = row["attempt"]
        scenario.check("the ledger: one attempt, 201", (row["attempt"], row["tries"], row["status"]), (1, 1, 201))
        scenario.check("the service got it once, with its token", [r.authorized for r in got], [True])
        scenario.check(
            "the payload is the rendered template of the rule",
            _bodies(got),
            [{"course": 10, "learner": 5, "at": 1708258999}],
        )

    def third_attempt(self, env: Environment, scenario: Scenario) -> None:
        """Two tries per attempt; the service recovers during the third attempt."""
        env.screen.say("(attempts are a second or more apart here; 60, 120, 240, 480 s is the default)", style="dim")
        task = self._feed(env, "user_created")[0]
        row = env.until(lambda: env.delivered(task), "waiting for the third attempt")
        log = env.deliveries(task)
        got = env.target.at("directory")
        scenario.attempts = row["attempt"]
        scenario.check(
            "the ledger: two attempts failed, the third delivered", _course(log), [(1, False), (2, False), (3, True)]
        )
        scenario.check("network tries in each of them", [row["tries"] for row in log], [2, 2, 1])
        scenario.check("the service saw each try", [r.status for r in got], [503] * DIRECTORY_RESTARTS + [200])
        scenario.check("all with one idempotency key", len({r.key for r in got}), 1)

    def dead_letter(self, env: Environment, scenario: Scenario) -> None:
        """The service always responds with 422, which is not retried within an attempt."""
        task = self._dead_task = self._feed(env, "attempt_submitted")[0]
        letter = env.until(lambda: _letter(env, task), "waiting for the fifth attempt")
        env.report()
        env.screen.happened("☠", f"task {task} is a dead letter: {letter['error']}", style="bold red")
        log = env.deliveries(task)
        got = env.target.at("gradebook")
        scenario.attempts = letter["attempts"]
        scenario.check("the dead letter has five attempts", (letter["attempts"], letter["reason"]), (5, "attempts"))
        scenario.check(
            "it keeps the error and the payload", "422" in (letter["error"] or "") and bool(letter["payload"])
        )
        scenario.check("the log has exactly five", _course(log), [(n, False) for n in range(1, ATTEMPTS + 1)])
        scenario.check("the service got exactly five requests", [r.status for r in got], [422] * ATTEMPTS)
        scenario.check("the task has ended", env.hub.views.tasks.list(service="gradebook"), [])

    def circuit(self, env: Environment, scenario: Scenario) -> None:
        """Eight events for a service that is down and recovers while its circuit is open."""
        service, moves = "analytics", env.recorded.moves
        tasks = self._feed(env, "user_loggedin")

        def seen(*move: str) -> bool:
            return (service, *move) in moves

        env.until(lambda: seen("closed", "open"), "waiting for the circuit to open")
        failed = env.hub.views.overview.breaker(service)["failures"]
        scenario.check("three failures in a row opened the circuit", failed >= 3)
        parked = env.until(lambda: _parked(env, service), "waiting for tasks to be parked")
        spent = [task for task in parked if task["attempts"] != len(env.deliveries(task["id"]))]
        scenario.check("tasks that met the open circuit are parked, with no attempt counted", spent, [])
        env.target.repair(service)
        env.screen.happened("⚒", f"{service} has recovered; the hub probes it after the cooldown", style="cyan")
        env.until(lambda: seen("half_open", "closed"), "waiting for the probe")
        ends = env.until(
            lambda: rows if all(rows := [env.delivered(t) for t in tasks]) else None, "waiting for all of them"
        )
        got = env.target.at(service)
        succeeded = [r for r in got if r.status == 200]
        probe, *others = succeeded
        # The cooldown is 5 s. Requests that were admitted before the circuit opened may arrive a moment later.
        cooldown = probe.begun - max(r.begun for r in got if r.status != 200)
        scenario.check("nothing was sent while the circuit was open", cooldown > 3.0)
        scenario.check("exactly one probe went through", all(r.begun >= probe.ended for r in others))
        scenario.check("its success closed the circuit", env.hub.views.overview.breaker(service)["state"], "closed")
        scenario.check(
            "all eight are delivered, each once",
            (len(ends), sorted(r.key or "" for r in succeeded)),
            (8, sorted({r.key or "" for r in succeeded})),
        )
        scenario.check(
            "no name broke the JSON",
            _users(succeeded),
            _users_of(self._named("user_loggedin")),
        )

    def replayed(self, env: Environment, scenario: Scenario) -> None:
        """Replay after a repair, as with `hub dlq replay`."""
        letter = _letter(env, self._dead_task)
        if letter is None:
            raise NotObserved("there is no dead letter to replay")
        env.target.repair("gradebook")
        env.screen.happened("⚒", "gradebook is repaired", style="cyan")
        before = len(env.target.at("gradebook"))
        replay = env.hub.dead_letters.replay([letter["id"]])
        env.screen.happened("↻", f"dead letter {letter['id']} replayed", style="cyan")
        scenario.check("the replay created one task", len(replay.tasks), 1)
        row = env.until(lambda: env.delivered(replay.tasks[0]), "waiting for its delivery")
        got = env.target.at("gradebook")
        scenario.attempts = row["attempt"]
        scenario.check("delivered on the first attempt of the new task", (row["attempt"], row["status"]), (1, 201))
        scenario.check("the service got it once more, the same payload", _bodies(got[before:]), _bodies(got[:1]))
        scenario.check("the dead-letter queue is empty", env.hub.views.dead_letters.count(), 0)

    def _named(self, ending: str) -> list[Event]:
        return [event for event in self._events if event.name.endswith(f"\\{ending}")]

    def _feed(self, env: Environment, ending: str) -> list[int]:
        """Send the events of the file with one name; returns the ids of their tasks."""
        tasks = [task for accepted in env.feed(self._named(ending)) for task in accepted.tasks]
        if not tasks:
            raise NotObserved(f"no rule matched the events that end in {ending}")
        return tasks


def _course(log: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(row["attempt"], row["success"]) for row in log]


def _bodies(got: Sequence[Received]) -> list[object]:
    return [r.body for r in got]


def _users(got: Sequence[Received]) -> list[str]:
    return sorted(r.body["other"]["username"] for r in got if isinstance(r.body, dict))


def _users_of(events: Sequence[Event]) -> list[str]:
    return sorted(event.data["other"]["username"] for event in events)


def _letter(env: Environment, task: int) -> dict[str, Any] | None:
    return next((row for row in env.hub.views.dead_letters.list() if row["task_id"] == task), None)


def _parked(env: Environment, service: str) -> list[dict[str, Any]]:
    """Tasks that were parked by the open circuit."""
    rows = env.hub.views.tasks.list(service=service, limit=1000)
    return [row for row in rows if "circuit" in (row["last_error"] or "")]
