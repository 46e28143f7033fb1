"""The five scenes. Each feeds its events, waits for what must become of them, and checks the hub's ledger
against what the services really got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.demo.stage import DidNotHappen, Stage
from hub.demo.target import DIRECTORY_RESTARTS, Received
from hub.models import Event

ATTEMPTS = 5  # HUB_MAX_ATTEMPTS


@dataclass
class Scene:
    """One promise, and what was seen of it.

    Attributes:
        checks: claims, with whether they held.
        attempts: how many attempts the scene's task took, where it has one.
    """

    promise: str
    checks: list[tuple[str, bool]] = field(default_factory=list)
    attempts: int | None = None

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(held for _, held in self.checks)

    def check(self, claim: str, seen: object, wanted: object = True) -> None:
        """Note whether what was seen is what was wanted; the claim tells both when it is not."""
        held = seen == wanted
        self.checks.append((claim if held else f"{claim}: saw {seen!r} instead of {wanted!r}", held))


def run(stage: Stage, scene: Scene, play: Callable[[Stage, Scene], None]) -> Scene:
    """Play one scene and show what came of it; what did not happen is a check that failed."""
    stage.screen.title(scene.promise)
    try:
        play(stage, scene)
    except DidNotHappen as e:
        scene.checks.append((str(e), False))
    stage.tell()
    for claim, held in scene.checks:
        stage.screen.checked(claim, ok=held)
    return scene


class Play:
    """The scenes in their order; they share the events of the file."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._dead_task = 0

    def all(self) -> list[tuple[Scene, Callable[[Stage, Scene], None]]]:
        """Every scene with its promise."""
        return [
            (Scene("1. An event is delivered"), self.delivered),
            (Scene("2. A service restarts: delivered on the third attempt"), self.third_attempt),
            (Scene("3. A service refuses: five attempts, then the dead-letter queue"), self.dead_letter),
            (Scene("4. A service is down: its circuit opens, parks, probes and closes"), self.circuit),
            (Scene("5. The cause is repaired: the dead letter is replayed and delivered"), self.replayed),
        ]

    def delivered(self, stage: Stage, scene: Scene) -> None:
        """A healthy service, one rule, one POST."""
        task = self._feed(stage, "course_completed")[0]
        row = stage.until(lambda: stage.delivered(task), "waiting for the delivery")
        got = stage.target.at("crm")
        scene.attempts = row["attempt"]
        scene.check("the ledger: one attempt, 201", (row["attempt"], row["tries"], row["status"]), (1, 1, 201))
        scene.check("the service got it once, with its token", [r.authorized for r in got], [True])
        scene.check(
            "the payload is the rule's template, filled", _bodies(got), [{"course": 10, "learner": 5, "at": 1708258999}]
        )

    def third_attempt(self, stage: Stage, scene: Scene) -> None:
        """Two network tries in each attempt; the service is back in the middle of the third."""
        stage.screen.say("(attempts are a second or more apart here; 60, 120, 240, 480 s is the default)", style="dim")
        task = self._feed(stage, "user_created")[0]
        row = stage.until(lambda: stage.delivered(task), "waiting for the third attempt")
        log = stage.deliveries(task)
        got = stage.target.at("directory")
        scene.attempts = row["attempt"]
        scene.check(
            "the ledger: two attempts failed, the third delivered", _course(log), [(1, False), (2, False), (3, True)]
        )
        scene.check("network tries in each of them", [row["tries"] for row in log], [2, 2, 1])
        scene.check("the service saw each try", [r.status for r in got], [503] * DIRECTORY_RESTARTS + [200])
        scene.check("all with one idempotency key", len({r.key for r in got}), 1)

    def dead_letter(self, stage: Stage, scene: Scene) -> None:
        """The service says 422 each time: no use to ask it twice within an attempt."""
        task = self._dead_task = self._feed(stage, "attempt_submitted")[0]
        letter = stage.until(lambda: _letter(stage, task), "waiting for the fifth attempt")
        stage.tell()
        stage.screen.happened("☠", f"task {task} is a dead letter: {letter['error']}", style="bold red")
        log = stage.deliveries(task)
        got = stage.target.at("gradebook")
        scene.attempts = letter["attempts"]
        scene.check("the dead letter tells of five attempts", (letter["attempts"], letter["reason"]), (5, "attempts"))
        scene.check("it keeps the error and the payload", "422" in (letter["error"] or "") and bool(letter["payload"]))
        scene.check("the log has exactly five", _course(log), [(n, False) for n in range(1, ATTEMPTS + 1)])
        scene.check("the service got exactly five requests", [r.status for r in got], [422] * ATTEMPTS)
        scene.check("the task is no longer live", stage.hub.views.tasks.list(service="gradebook"), [])

    def circuit(self, stage: Stage, scene: Scene) -> None:
        """Eight events at a service that is down, and comes back while its circuit is open."""
        service, moves = "analytics", stage.witness.moves
        tasks = self._feed(stage, "user_loggedin")

        def seen(*move: str) -> bool:
            return (service, *move) in moves

        stage.until(lambda: seen("closed", "open"), "waiting for the circuit to open")
        failed = stage.hub.views.overview.breaker(service)["failures"]
        scene.check("three failures in a row opened the circuit", failed >= 3)
        parked = stage.until(lambda: _parked(stage, service), "waiting for tasks to be parked")
        spent = [task for task in parked if task["attempts"] != len(stage.deliveries(task["id"]))]
        scene.check("those that met it are parked with no attempt spent", spent, [])
        stage.target.repair(service)
        stage.screen.happened("⚒", f"{service} is back; the hub asks it when the cooldown is over", style="cyan")
        stage.until(lambda: seen("half_open", "closed"), "waiting for the probe")
        ends = stage.until(
            lambda: rows if all(rows := [stage.delivered(t) for t in tasks]) else None, "waiting for all of them"
        )
        got = stage.target.at(service)
        answered = [r for r in got if r.status == 200]
        probe, *others = answered
        # The cooldown is 5 s. Requests that were admitted before the circuit opened may arrive a moment later.
        cooldown = probe.begun - max(r.begun for r in got if r.status != 200)
        scene.check("nothing was sent while the circuit was open", cooldown > 3.0)
        scene.check("exactly one probe went through", all(r.begun >= probe.ended for r in others))
        scene.check("its success closed the circuit", stage.hub.views.overview.breaker(service)["state"], "closed")
        scene.check(
            "all eight are delivered, each once",
            (len(ends), sorted(r.key or "" for r in answered)),
            (8, sorted({r.key or "" for r in answered})),
        )
        scene.check("no name in them broke the JSON", _users(answered), _users_of(self._named("user_loggedin")))

    def replayed(self, stage: Stage, scene: Scene) -> None:
        """What a person does after a repair: `hub dlq replay`."""
        letter = _letter(stage, self._dead_task)
        if letter is None:
            raise DidNotHappen("there is no dead letter to replay")
        stage.target.repair("gradebook")
        stage.screen.happened("⚒", "gradebook knows the quiz now", style="cyan")
        before = len(stage.target.at("gradebook"))
        replay = stage.hub.dead_letters.replay([letter["id"]])
        stage.screen.happened("↻", f"dead letter {letter['id']} replayed", style="cyan")
        scene.check("the replay made one task", len(replay.tasks), 1)
        row = stage.until(lambda: stage.delivered(replay.tasks[0]), "waiting for its delivery")
        got = stage.target.at("gradebook")
        scene.attempts = row["attempt"]
        scene.check("delivered on the first attempt of its new life", (row["attempt"], row["status"]), (1, 201))
        scene.check("the service got it once more, the same payload", _bodies(got[before:]), _bodies(got[:1]))
        scene.check("the dead-letter queue is empty", stage.hub.views.dead_letters.count(), 0)

    def _named(self, ending: str) -> list[Event]:
        return [event for event in self._events if event.name.endswith(f"\\{ending}")]

    def _feed(self, stage: Stage, ending: str) -> list[int]:
        """Hand in the file's events of one name; the ids of their tasks."""
        tasks = [task for accepted in stage.feed(self._named(ending)) for task in accepted.tasks]
        if not tasks:
            raise DidNotHappen(f"no rule took the events that end in {ending}")
        return tasks


def _course(log: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(row["attempt"], row["success"]) for row in log]


def _bodies(got: Sequence[Received]) -> list[object]:
    return [r.body for r in got]


def _users(got: Sequence[Received]) -> list[str]:
    return sorted(r.body["other"]["username"] for r in got if isinstance(r.body, dict))


def _users_of(events: Sequence[Event]) -> list[str]:
    return sorted(event.data["other"]["username"] for event in events)


def _letter(stage: Stage, task: int) -> dict[str, Any] | None:
    return next((row for row in stage.hub.views.dead_letters.list() if row["task_id"] == task), None)


def _parked(stage: Stage, service: str) -> list[dict[str, Any]]:
    """Tasks that met the open circuit."""
    rows = stage.hub.views.tasks.list(service=service, limit=1000)
    return [row for row in rows if "circuit" in (row["last_error"] or "")]
