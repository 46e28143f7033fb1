"""What happened in one run: faults, what targets saw, what the source was told, and what the ledger says of it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.monitoring.value_files import read
from tests.faults.plan import event_name, services_for
from tests.faults.rig import OUT_QUEUE, Rig
from tests.faults.targets import Sighting

_TICKS = "SELECT extract(epoch FROM minute)::float8 AS at FROM ticks ORDER BY minute"
Counts = dict[str, dict[tuple[str, ...], float]]


@dataclass
class History:
    """One run, at rest: nothing is under way any more."""

    seed: int
    faults: list[dict[str, Any]]
    sightings: list[Sighting]
    falls: list[tuple[float, float]]  # when `tide` was down
    answered: set[int]  # events whose acceptance was confirmed
    unsure: set[int]  # events that the source gave up on, or was killed over
    events: dict[int, int]  # number -> event id in the ledger
    repeated: list[int]  # numbers that the ledger has more than once
    tasks: dict[int, dict[str, Any]]  # task id -> event, service, key, delivered, dead, deliveries
    answers: dict[int, list[dict[str, Any]]]  # number of an answer -> its rows in the log
    confirmed: set[int]  # answers that RabbitMQ took for certain
    queue: list[tuple[str, int]]  # (idempotency key, number) of what arrived in the AMQP service's queue
    counters: Counts
    logs: list[dict[str, Any]]
    ends: list[dict[str, Any]]
    ticks: list[float]  # minutes that schedulers claimed, those to come too
    rest: dict[str, Any] = field(default_factory=dict)  # what must be empty or equal at rest

    def dump(self, path: Path) -> None:
        """Everything as JSON, for whoever has to find out."""
        data = {
            "seed": self.seed,
            "faults": self.faults,
            "sightings": [s.row() for s in self.sightings],
            "falls": self.falls,
            "unsure": sorted(self.unsure),
            "tasks": self.tasks,
            "answers": self.answers,
            "unanswered": sorted(self.confirmed - set(self.answers)),
            "queue": self.queue,
            "counters": {name: {"/".join(k): v for k, v in values.items()} for name, values in self.counters.items()},
            "ends": self.ends,
            "ticks": self.ticks,
            "rest": self.rest,
            "logs": self.logs,
        }
        path.write_text(json.dumps(data, default=str, indent=1))


def collect(rig: Rig, faults: list[dict[str, Any]]) -> History:
    """Read it all, when nothing moves."""
    answered: set[int] = set()
    tried: set[int] = set()
    for line in rig.journal_lines():
        tried.update(line["n"])
        assert line["result"] != "refused", f"the API refused good events: {line}"
        if line["result"] == "accepted":
            answered.update(line["n"])
    events: dict[int, int] = {}
    repeated: list[int] = []
    for row in rig.rows("SELECT id, uid, name, data FROM events WHERE starts_with(name, 'e.') ORDER BY id"):
        n = int(json.loads(row["data"])["n"])
        if n in events:
            repeated.append(n)
        events[n] = row["id"]
        assert row["name"] == event_name(rig.seed, n)
    return History(
        seed=rig.seed,
        faults=faults,
        sightings=[s for t in rig.targets.values() for s in t.seen],
        falls=rig.tide.falls,
        answered=answered,
        unsure=(tried | set(events)) - answered,
        events=events,
        repeated=repeated,
        tasks=_tasks(rig, events),
        answers=_answers(rig),
        confirmed=rig.answers.confirmed,
        queue=_queue(rig),
        counters=_counters(rig),
        logs=_logs(rig),
        ends=rig.ends,
        ticks=[row["at"] for row in rig.rows(_TICKS)],
        rest=_rest(rig),
    )


def _tasks(rig: Rig, events: dict[int, int]) -> dict[int, dict[str, Any]]:
    numbers = {event_id: n for n, event_id in events.items()}
    names = {row["id"]: row["name"] for row in rig.rows("SELECT id, name FROM services")}
    tasks: dict[int, dict[str, Any]] = {}

    def task(row: dict[str, Any]) -> dict[str, Any]:
        new = {"n": numbers.get(row["event_id"]), "service": names[row["service_id"]], "rows": [], "dead": None}
        return tasks.setdefault(row["task_id"], new)

    for row in rig.rows(
        "SELECT task_id, event_id, service_id, attempt, tries, success, outcome, status, error,"
        " extract(epoch FROM created_at)::float8 AS at FROM deliveries WHERE direction = 'outbound' ORDER BY id"
    ):
        task(row)["rows"].append({k: row[k] for k in ("attempt", "tries", "success", "outcome", "error", "at")})
    for row in rig.rows(
        "SELECT task_id, event_id, service_id, attempts, reason, error,"
        " extract(epoch FROM created_at)::float8 AS at FROM dead_letters"
    ):
        task(row)["dead"] = {k: row[k] for k in ("attempts", "reason", "error", "at")}
    return tasks


def _answers(rig: Rig) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rig.rows(
        "SELECT success, response_body, raw, error, extract(epoch FROM created_at)::float8 AS at"
        " FROM deliveries WHERE direction = 'inbound' ORDER BY id"
    ):
        n = json.loads(row["response_body"])["answer"] if row["success"] else int(bytes(row["raw"]).split()[-1])
        raw = bytes(row["raw"]) if row["raw"] is not None else None
        found[n].append({"success": row["success"], "raw": raw, "error": row["error"], "at": row["at"]})
    return found


def _queue(rig: Rig) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    with rig.channel() as channel:
        channel.queue_declare(OUT_QUEUE, passive=True)
        while True:
            method, properties, body = channel.basic_get(OUT_QUEUE, auto_ack=False)
            if method is None:
                return found
            found.append((properties.message_id, int(json.loads(body)["n"])))


def _counters(rig: Rig) -> Counts:
    totals: Counts = defaultdict(dict)
    for metric, samples in read(rig.settings.metrics_folder).items():
        for (sample, labels), value in samples.items():
            if sample.endswith(("_total", "_count")):
                totals[metric][tuple(v for _, v in labels)] = value  # label names in the order of the alphabet
    return totals


def _logs(rig: Rig) -> list[dict[str, Any]]:
    """Lines of workers that say something is wrong, or that a circuit moved."""
    found = []
    for process in [*rig.workers, rig.producer, rig.web]:
        for at, line in process.lines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"level": "raw", "message": line}
            if entry.get("message") == "circuit changed" or entry.get("level") in ("error", "critical", "raw"):
                found.append({**entry, "process": process.name, "at": at})
    return found


def _rest(rig: Rig) -> dict[str, Any]:
    """What must be empty when all is done; run after the workers have stopped."""
    wrong = rig.rows(
        "SELECT service_id, rule_id, state, sum(n)::int AS off FROM ("
        " SELECT service_id, rule_id, state, n FROM task_counts UNION ALL"
        " SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -1 FROM tasks"
        ") x GROUP BY 1, 2, 3 HAVING sum(n) <> 0"
    )
    with rig.channel() as channel:
        ready = {
            name: channel.queue_declare(name, passive=True).method.message_count
            for name in ("hub.dispatch", "hub.consume", "hub.tick")
        }
    return {
        "tasks": rig.rows("SELECT id, state, attempts, worker, last_error FROM tasks LIMIT 20"),
        "task_counts off": wrong,
        "live workers": rig.rows("SELECT id FROM workers WHERE lease_until > now()"),
        "probes": rig.rows("SELECT service_id FROM breakers WHERE state = 'half_open' AND probe_until > now()"),
        "advisory locks": rig.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory'"),
        "connections": rig.rows(
            "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = 'hub' AND pid <> pg_backend_pid()"
        ),
        "set aside": {name: n for name, n in ready.items() if n and name == "hub.dispatch"},
    }


def expected(seed: int, n: int) -> tuple[str, ...]:
    """The services that event `n` must have a task for."""
    return services_for(event_name(seed, n))
