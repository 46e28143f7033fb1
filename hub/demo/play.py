"""The demo from curtain to curtain: put up the stage, play the scenes, add up, say whether all of it is true."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from importlib.resources import files
from typing import Any

from hub.demo.install import install
from hub.demo.roundtrip import NoBroker, responder, round_trip
from hub.demo.scenes import Play, Scene, run
from hub.demo.screen import Screen
from hub.demo.stage import (
    Interrupted,
    Stage,
    open_stage,
    sample_events,
)
from hub.programs.supervisor import stop_signals
from hub.settings import from_environment

INTERRUPTED = 130


def main(as_json: bool, *, broker: str | None = None) -> int:
    """Run the demo.

    Args:
        as_json: one JSON document on stdout, the story on stderr.
        broker: an AMQP URI: one scene more, a request and its answer; default: `HUB_BROKER_URL`.

    Returns:
        0: everything was seen to be true; 1: something was not; 130: interrupted.
    """
    screen = Screen(stderr=as_json)
    screen.title("Integration Hub: what happens to events, in about half a minute")
    try:
        with stop_signals() as stop, open_stage(screen, stop) as stage:
            document = _perform(stage, broker)
            if not document["ok"]:
                screen.raw("".join(stage.last_words()))
    except Interrupted:
        screen.say("interrupted; everything that ran is stopped and removed")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    return 0 if document["ok"] else 1


def _perform(stage: Stage, broker: str | None) -> dict[str, Any]:
    """Everything between curtain and curtain; the summary as JSON has it."""
    screen = stage.screen
    _introduce(stage)
    scenes = [run(stage, scene, play) for scene, play in Play(sample_events()).all()]
    if url := broker or from_environment("HUB_BROKER_URL"):
        scenes += _with_rabbitmq(stage, url, asked_for=broker is not None)
    document = _document(stage)
    scenes.append(run(stage, Scene("In the end it all adds up"), partial(_adds_up, document)))
    document["ok"] = all(scene.ok for scene in scenes)
    document["scenes"] = [{"promise": s.promise, "ok": s.ok, "attempts": s.attempts} for s in scenes]
    _summary(screen, scenes, document)
    return document


def _introduce(stage: Stage) -> None:
    services, rules = install(stage.hub, {"DEMO_TARGET": stage.target.url, "DEMO_TOKEN": "demo-token"})
    screen = stage.screen
    screen.say(f"A private PostgreSQL, workers and web server run under {stage.hub.settings.home}: removed at the end.")
    screen.say(f"The services at the other end are played by one small server on {stage.target.url}.")
    screen.say(f"{files('hub.demo').joinpath('example.yaml')}: {services} services and {rules} rules are applied.")


def _with_rabbitmq(stage: Stage, url: str, *, asked_for: bool) -> list[Scene]:
    """The scene that needs a RabbitMQ. One that only the environment names, and that cannot be used, costs no more."""
    scene = Scene("6. A request by AMQP, and its answer from the response queue")
    try:
        with responder(url) as service:
            return [run(stage, scene, lambda stage, scene: round_trip(stage, scene, url, service))]
    except NoBroker as e:
        stage.screen.title(scene.promise)
        if asked_for:
            scene.checks.append((f"the RabbitMQ cannot be used: {e}", False))
            stage.screen.checked(scene.checks[0][0], ok=False)
            return [scene]
        stage.screen.say(f"left out: the RabbitMQ of HUB_BROKER_URL cannot be used ({e})", style="yellow")
        return []


def _document(stage: Stage) -> dict[str, Any]:
    """What the log and the circuits say, in numbers."""
    attempts: dict[int, int] = {}
    delivered: set[int] = set()
    for row in stage.deliveries():
        if row["direction"] == "outbound":
            attempts[row["task_id"]] = max(row["attempt"], attempts.get(row["task_id"], 0))
            if row["success"]:
                delivered.add(row["task_id"])
    return {
        "events": len(stage.accepted),
        "delivered": len(delivered),
        "dead": len(stage.witness.dead),
        "attempts": {str(n): count for n, count in sorted(Counter(attempts.values()).items())},
        "breaker": _course(stage.witness.moves),
        "replayed": stage.witness.replays,
        "ok": False,
    }


def _course(moves: list[tuple[str, str, str]]) -> list[str]:
    """The states that the circuit went through."""
    return [moves[0][1], *(after for _, _, after in moves)] if moves else []


def _sound(course: list[str]) -> bool:
    """Whether it opened, and closed by a probe; on a slow machine one comes before the repair, and opens it again."""
    too_early = (len(course) - 4) // 2
    return course == ["closed", "open", *["half_open", "open"] * too_early, "half_open", "closed"]


def _adds_up(document: dict[str, Any], stage: Stage, scene: Scene) -> None:
    """The ledger is empty, and the log, the metrics and the services agree."""
    live = sum(row["n"] for row in stage.hub.views.tasks.counts())
    got = {r.key for r in stage.target.received if r.status < 300}
    by_http = document["delivered"] - sum(row["method"] == "AMQP" for row in stage.deliveries() if row["success"])
    scene.check("no task is left in the ledger", live, 0)
    scene.check("every event is delivered in the end", document["delivered"], document["events"])
    scene.check("the services answered 2xx to as many different tasks", len(got), by_http)
    scene.check("one was dead, and was replayed", (document["dead"], document["replayed"]), (1, 1))
    scene.check("the circuit opened, let a probe through and closed", _sound(document["breaker"]))
    metrics = stage.metrics()
    for outcome, wanted in (("delivered", document["delivered"]), ("dead", document["dead"])):
        scene.check(f"/metrics says the same: {wanted} {outcome}", _finished(metrics, outcome), wanted)


def _finished(metrics: str, outcome: str) -> int:
    lines = (line for line in metrics.splitlines() if line.startswith("hub_tasks_finished_total{"))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if f'outcome="{outcome}"' in line))


def _summary(screen: Screen, scenes: list[Scene], document: dict[str, Any]) -> None:
    rows = [(s.promise, "-" if s.attempts is None else str(s.attempts), "yes" if s.ok else "NO") for s in scenes]
    screen.table(("What was promised", "attempts", "seen in ledger and services"), rows)
    screen.say("")
    numbers = {key: value for key, value in document.items() if key in ("events", "delivered", "dead", "replayed")}
    screen.say(", ".join(f"{value} {key}" for key, value in numbers.items()) + f"; took {screen.seconds:.0f} s")
    if document["ok"]:
        screen.say("All of it held. Your own hub with its console: make up", style="bold green")
    else:
        screen.say("Something did not hold: the hub's own log follows.", style="bold red")
