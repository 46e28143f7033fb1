"""The demo: start the environment, run the scenarios, compare the totals, print a summary."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from importlib.resources import files
from typing import Any

from hub.demo.environment import (
    Environment,
    Interrupted,
    open_environment,
    sample_events,
)
from hub.demo.install import install
from hub.demo.moodle import from_moodle
from hub.demo.roundtrip import NoBroker, responder, round_trip
from hub.demo.scenarios import Scenario, Scenarios, run
from hub.demo.screen import Screen
from hub.programs.supervisor import stop_signals
from hub.settings import from_environment

INTERRUPTED = 130


def main(as_json: bool, *, broker: str | None = None) -> int:
    """Run the demo.

    Args:
        as_json: print one JSON document on stdout, and what happens on stderr.
        broker: an AMQP URI, which adds a scenario with a request and its response. Default: `HUB_BROKER_URL`.

    Returns:
        0: all checks passed; 1: a check failed; 130: interrupted.
    """
    screen = Screen(stderr=as_json)
    screen.title("Integration Hub: what happens to events, in about half a minute")
    try:
        with stop_signals() as stop, open_environment(screen, stop) as env:
            document = _run_all(env, broker)
            if not document["ok"]:
                screen.raw("".join(env.log_lines()))
    except Interrupted:
        screen.say("interrupted; everything is stopped and removed")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    return 0 if document["ok"] else 1


def _run_all(env: Environment, broker: str | None) -> dict[str, Any]:
    """Run all scenarios; returns the summary for JSON."""
    screen = env.screen
    _introduce(env)
    scenarios = [run(env, scenario, play) for scenario, play in Scenarios(sample_events()).all()]
    moodle = Scenario("6. A Moodle site is read without a plugin, with names for its ids")
    scenarios.append(run(env, moodle, from_moodle))
    if url := broker or from_environment("HUB_BROKER_URL"):
        scenarios += _with_rabbitmq(env, url, asked_for=broker is not None)
    document = _document(env)
    scenarios.append(run(env, Scenario("The totals agree"), partial(_check_totals, document)))
    document["ok"] = all(scenario.ok for scenario in scenarios)
    document["scenarios"] = [{"promise": s.promise, "ok": s.ok, "attempts": s.attempts} for s in scenarios]
    _summary(screen, scenarios, document)
    return document


def _introduce(env: Environment) -> None:
    services, rules = install(env.hub, {"DEMO_TARGET": env.target.url, "DEMO_TOKEN": "demo-token"})
    screen = env.screen
    screen.say(f"A private PostgreSQL, workers and web server run under {env.hub.settings.home}: removed at the end.")
    screen.say(f"One small server on {env.target.url} plays the services.")
    screen.say(f"{files('hub.demo').joinpath('example.yaml')}: {services} services and {rules} rules are applied.")


def _with_rabbitmq(env: Environment, url: str, *, asked_for: bool) -> list[Scenario]:
    """The scenario that needs RabbitMQ. Left out if the broker of `HUB_BROKER_URL` cannot be used."""
    scenario = Scenario("7. A request by AMQP, and its response from the response queue")
    try:
        with responder(url) as service:
            return [run(env, scenario, lambda env, scenario: round_trip(env, scenario, url, service))]
    except NoBroker as e:
        env.screen.title(scenario.promise)
        if asked_for:
            scenario.checks.append((f"RabbitMQ cannot be used: {e}", False))
            env.screen.checked(scenario.checks[0][0], ok=False)
            return [scenario]
        env.screen.say(f"left out: the RabbitMQ of HUB_BROKER_URL cannot be used ({e})", style="yellow")
        return []


def _document(env: Environment) -> dict[str, Any]:
    """Totals of the delivery log and the circuits."""
    attempts: dict[int, int] = {}
    delivered: set[int] = set()
    for row in env.deliveries():
        if row["direction"] == "outbound":
            attempts[row["task_id"]] = max(row["attempt"], attempts.get(row["task_id"], 0))
            if row["success"]:
                delivered.add(row["task_id"])
    return {
        "events": len(env.accepted),
        "delivered": len(delivered),
        "dead": len(env.recorded.dead),
        "attempts": {str(n): count for n, count in sorted(Counter(attempts.values()).items())},
        "breaker": _course(env.recorded.moves),
        "replayed": env.recorded.replays,
        "ok": False,
    }


def _course(moves: list[tuple[str, str, str]]) -> list[str]:
    """The states of the circuit, in order."""
    return [moves[0][1], *(after for _, _, after in moves)] if moves else []


def _recovered(course: list[str]) -> bool:
    """Whether it opened and a probe closed it. On a slow machine, probes before the repair open it again."""
    too_early = (len(course) - 4) // 2
    return course == ["closed", "open", *["half_open", "open"] * too_early, "half_open", "closed"]


def _check_totals(document: dict[str, Any], env: Environment, scenario: Scenario) -> None:
    """The ledger is empty; log, metrics and services agree."""
    live = sum(row["n"] for row in env.hub.views.tasks.counts())
    got = {r.key for r in env.target.received if r.status < 300}
    by_http = document["delivered"] - sum(row["method"] == "AMQP" for row in env.deliveries() if row["success"])
    scenario.check("no task is left in the ledger", live, 0)
    scenario.check("every event is delivered in the end", document["delivered"], document["events"])
    scenario.check("the services responded 2xx to as many different tasks", len(got), by_http)
    scenario.check("one became a dead letter and was replayed", (document["dead"], document["replayed"]), (1, 1))
    scenario.check("the circuit opened, let a probe through and closed", _recovered(document["breaker"]))
    metrics = env.metrics()
    for outcome, wanted in (("delivered", document["delivered"]), ("dead", document["dead"])):
        scenario.check(f"/metrics shows {wanted} {outcome}", _finished(metrics, outcome), wanted)


def _finished(metrics: str, outcome: str) -> int:
    lines = (line for line in metrics.splitlines() if line.startswith("hub_tasks_finished_total{"))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if f'outcome="{outcome}"' in line))


def _summary(screen: Screen, scenarios: list[Scenario], document: dict[str, Any]) -> None:
    rows = [(s.promise, "-" if s.attempts is None else str(s.attempts), "yes" if s.ok else "NO") for s in scenarios]
    screen.table(("Scenario", "attempts", "seen in ledger and services"), rows)
    screen.say("")
    numbers = {key: value for key, value in document.items() if key in ("events", "delivered", "dead", "replayed")}
    screen.say(", ".join(f"{value} {key}" for key, value in numbers.items()) + f"; took {screen.seconds:.0f} s")
    if document["ok"]:
        screen.say("All checks passed. Your own hub with its console: make up", style="bold green")
    else:
        screen.say("A check failed. The log of the hub follows.", style="bold red")
