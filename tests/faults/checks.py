"""The promises, each checked against a history. A check returns what breaks its promise, in words; empty: kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from tests.faults.answers import body_of
from tests.faults.history import History, expected
from tests.faults.nemesis import FAULTS, LOSES_WORK
from tests.faults.plan import BY_NAME, LANES, MAX_ATTEMPTS, ORDERED, PROFILES
from tests.faults.rig import LEASE
from tests.faults.targets import Sighting

_SLACK = 1.5  # seconds between what a clock here and a clock there say happened together
_LOSES_ACKS = ("restart_rabbit", "disturb_broker", "stop_worker", "memory_alarm", "disk_alarm")
_ENDS_PROCESSES = tuple(kind for kind in FAULTS if kind != "move_clock")  # a moved clock is no excuse for anything
_NOTICED = 1.0  # seconds until a target on a busy machine notices that its caller has hung up
_HTTP = tuple(p.name for p in PROFILES if p.name not in ("queue", "gone"))
Check = Callable[[History], Iterable[str]]


def every_accepted_event_ended(h: History) -> Iterable[str]:
    """Each has its tasks; each task was delivered or is dead with a reason; an unsure event is whole or not there."""
    by_event: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for task in h.tasks.values():
        by_event[task["n"]].append(task)
    for n in sorted(h.answered | set(h.events)):
        if n not in h.events:
            yield f"event {n} was accepted and is not in the ledger"
            continue
        found = Counter(task["service"] for task in by_event[n])
        if found != Counter(expected(h.seed, n)):
            yield f"event {n}: tasks that ended {dict(found)}, expected {expected(h.seed, n)}"
    for task_id, task in h.tasks.items():
        delivered = any(row["success"] for row in task["rows"])
        if not delivered and task["dead"] is None:
            yield f"task {task_id}: gone, neither delivered nor dead: {task}"
        if task["dead"] is not None and not (task["dead"]["reason"] and task["dead"]["error"]):
            yield f"task {task_id}: dead without a reason"
    for n in h.repeated:
        yield f"event {n} was accepted twice"


def delivered_means_seen(h: History) -> Iterable[str]:
    """What the ledger calls delivered, the service has."""
    good = {(s.service, s.n) for s in h.sightings if s.success} | {("queue", n) for _, n in h.queue}
    for task_id, task in h.tasks.items():
        if any(row["success"] for row in task["rows"]) and (task["service"], task["n"]) not in good:
            yield f"task {task_id} is delivered, says the ledger; {task['service']} has never seen event {task['n']}"


def five_attempts(h: History) -> Iterable[str]:
    """No sixth attempt anywhere; exactly five are on record for who died of failures."""
    sends = Counter((s.service, s.key) for s in h.sightings)
    for (service, key), count in sends.items():
        if count > MAX_ATTEMPTS * BY_NAME[service].tries:
            yield f"{service} got {key} {count} times"
    for task_id, task in h.tasks.items():
        counted = {row["attempt"] for row in task["rows"]}
        if counted != set(range(1, len(counted) + 1)) or len(counted) > MAX_ATTEMPTS:
            yield f"task {task_id}: attempts on record {sorted(counted)}"
        dead = task["dead"]
        if dead and (dead["attempts"] != MAX_ATTEMPTS or len(counted) != MAX_ATTEMPTS):
            yield f"task {task_id} died of {dead['reason']} after {dead['attempts']}, on record {sorted(counted)}"
        if dead and dead["reason"] not in ("attempts", "worker_lost"):
            yield f"task {task_id} died of {dead['reason']}"


def never_two_at_once(h: History) -> Iterable[str]:
    """No two sends of one task overlap; a worker that was paused in mid-send cannot end it, and is excused."""
    for sends in _by_key(h).values():
        for one, two in pairwise(sends):
            late = 0.05 if one.status is not None else _NOTICED
            if two.start < one.end - late and not _during(h, ("pause_worker",), one.start - 1, two.start + 1):
                yield f"{one.service} {one.key}: {one.start:.3f}-{one.end:.3f} and {two.start:.3f}-{two.end:.3f}"


def duplicates_have_a_cause(h: History) -> Iterable[str]:
    """A success is repeated only where a worker was lost or cut off between; and always with the same key."""
    keys: dict[tuple[str, int], set[str]] = defaultdict(set)
    for s in h.sightings:
        keys[(s.service, s.n)].add(s.key)
    for key, n in h.queue:
        keys[("queue", n)].add(key)
    for (service, n), found in keys.items():
        if len(found) > 1:
            yield f"{service}: event {n} came with {len(found)} idempotency keys"
    for sends in _by_key(h).values():
        done = [s for s in sends if s.success]
        for one, two in pairwise(done):
            if not _during(h, LOSES_WORK, one.start - _SLACK - LEASE, two.start):
                yield f"{one.service} {one.key}: succeeded at {one.end:.3f} and again at {two.end:.3f}, without cause"


def order_is_kept(h: History) -> Iterable[str]:
    """For each ordering key a task is sent for the first time when those of earlier events have ended.

    An event whose acceptance is not sure may have been accepted after later ones.
    """
    sends: dict[int, list[Sighting]] = defaultdict(list)
    for s in h.sightings:
        if s.service == ORDERED:
            sends[s.n].append(s)
    for lane in range(LANES):
        last: Sighting | None = None
        for n in sorted(n for n in sends if n % LANES == lane and n not in h.unsure):
            first = min(sends[n], key=lambda s: s.start)
            overtaken = last is not None and first.start < last.start
            if last and overtaken and not _during(h, ("pause_worker",), first.start - 1, last.start + 1):
                yield f"event {n} was sent at {first.start:.3f}, event {last.n} of its key at {last.start:.3f}"
            latest = max(sends[n], key=lambda s: s.start)
            last = latest if last is None or latest.start > last.start else last


def nothing_inbound_dropped(h: History) -> Iterable[str]:
    """Every answer that RabbitMQ took is in the log; what is no JSON with its bytes; twice only after a loss."""
    for n in sorted(h.confirmed - set(h.answers)):
        yield f"answer {n} was taken by RabbitMQ and is not in the log"
    for n, rows in h.answers.items():
        if n % 7 == 0 and any(row["success"] or row["raw"] != body_of(n) or not row["error"] for row in rows):
            yield f"answer {n} is no JSON, and not kept as it came: {rows}"
        for one, two in pairwise(rows):
            if not _during(h, (*LOSES_WORK, *_LOSES_ACKS), one["at"] - _SLACK, two["at"]):
                yield f"answer {n} was stored at {one['at']:.3f} and again at {two['at']:.3f}, without cause"


def one_probe(h: History) -> Iterable[str]:
    """While `tide` is down and its circuit open for longer than a cooldown, requests come one at a time."""
    opened = sorted(
        line["at"]
        for line in h.logs
        if line["message"] == "circuit changed" and line["service"] == "tide" and line["now"] == "open"
    )
    sends = sorted((s for s in h.sightings if s.service == "tide"), key=lambda s: s.start)
    for begin, end in h.falls:
        since = next((at for at in opened if begin <= at <= end), None)
        if since is None:
            continue
        probes = [s for s in sends if since + 1.0 <= s.start <= end]
        for one, two in pairwise(probes):
            if two.start < one.end - 0.02 and not _during(h, ("pause_worker",), one.start - 1, two.start + 1):
                yield f"two probes at once: {one.start:.3f}-{one.end:.3f} and {two.start:.3f}-{two.end:.3f}"


def counters_agree(h: History) -> Iterable[str]:
    """Counters are what the ledger says, but for attempts under way when a worker or a connection was lost."""
    rows: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()  # successes that were written while something broke: perhaps not told of
    for task in h.tasks.values():
        service = task["service"]
        for row in task["rows"]:
            (lost if row["outcome"] == "worker_lost" else rows)[service] += 1
        ends = [row["at"] for row in task["rows"] if row["success"]] + ([task["dead"]["at"]] if task["dead"] else [])
        if ends and _during(h, (*LOSES_WORK, "stop_worker"), ends[0] - _SLACK, ends[0] + _SLACK):
            doubtful[service] += 1
        succeeded[service] += any(row["success"] for row in task["rows"]) and task["dead"] is None
    attempts = _sum(h, "hub_dispatch_attempts", 1)
    finished = h.counters.get("hub_tasks_finished", {})
    tries = _sum(h, "hub_network_tries", 1)
    seen = Counter(s.service for s in h.sightings)
    stored = sum(len(rows) for rows in h.answers.values())
    consumed = sum(h.counters.get("hub_consumer_messages", {}).values())
    unsure = sum(500 for f in h.faults if f["kind"] in LOSES_WORK)  # a batch whose commit was not heard of
    if not stored - unsure <= consumed <= stored:
        yield f"{consumed:g} answers counted, {stored} are in the log"
    for service in BY_NAME:
        counted = attempts.get(service, 0)
        if not rows[service] <= counted <= rows[service] + lost[service]:
            yield f"{service}: {counted:g} attempts counted, {rows[service]} on record and {lost[service]} lost"
        delivered = finished.get(("delivered", service), 0)
        if not succeeded[service] - doubtful[service] <= delivered <= succeeded[service]:
            yield f"{service}: {delivered:g} counted delivered, {succeeded[service]} are, {doubtful[service]} in doubt"
        if service in _HTTP and not tries.get(service, 0) >= seen[service] - lost[service]:
            yield f"{service}: {tries.get(service, 0):g} tries counted, {seen[service]} seen, {lost[service]} lost"
    dead = sum(1 for task in h.tasks.values() if task["dead"])
    told = sum(h.counters.get("hub_dead_letters", {}).values())
    if not dead - sum(doubtful.values()) <= told <= dead:
        yield f"{told:g} dead letters counted, there are {dead}"
    accepted = h.counters.get("hub_events_accepted", {}).get(("accepted",), 0)
    if not len(h.events) - _doubted(h) <= accepted <= len(h.events):
        yield f"{accepted:g} events counted as accepted, the ledger has {len(h.events)}"


def nothing_left(h: History) -> Iterable[str]:
    """No claim, no lock, no probe, no message; counts are exact; no process ended by itself."""
    for what, found in h.rest.items():
        if found:
            yield f"{what}: {found}"
    for end in h.ends:
        if not _during(h, _ENDS_PROCESSES, end["t"] - 15, end["t"]):
            yield f"a process ended by itself: {end}"


def nothing_unforeseen(h: History) -> Iterable[str]:
    """No log line tells of the hub's own fault, and none is a bare traceback."""
    for line in h.logs:
        if line["level"] in ("error", "critical") and not _foreseen(h, line):
            yield f"logged: {line}"
    raw = [line["message"] for line in h.logs if line.get("level") == "raw"]
    if any("Traceback" in text for text in raw):
        yield f"a traceback that is no log line: {raw[:40]}"


def no_minute_before_its_time(h: History) -> Iterable[str]:
    """The schedule goes by PostgreSQL's clock, whatever the machine of a scheduler or worker believes."""
    if h.ticks and h.faults:
        begin, end = h.faults[0]["start"] - 600, h.faults[-1]["end"] + 600
        for minute in h.ticks:
            if not begin <= minute <= end:
                yield f"the minute {minute:.0f} was claimed, faults were from {begin + 600:.0f} to {end - 600:.0f}"


def _foreseen(h: History, line: dict[str, Any]) -> bool:
    """Dramatiq says of every lost connection that it was lost; the hub of every dead letter that it died.

    A worker that is started while the database is away says so, and is started again.
    """
    if line["logger"] == "hub.worker":
        begin, end = line["at"] - 15, line["at"]
        return line["message"] == "not started" and _during(h, ("restart_postgres", "disturb_db"), begin, end)
    if line["logger"] == "hub.pipeline.attempts":
        return bool(line["message"] == "dead letter")
    return str(line["logger"]).startswith(("dramatiq.worker.ConsumerThread", "dramatiq.broker"))


CHECKS: tuple[Check, ...] = (
    every_accepted_event_ended,
    delivered_means_seen,
    five_attempts,
    never_two_at_once,
    duplicates_have_a_cause,
    order_is_kept,
    nothing_inbound_dropped,
    one_probe,
    counters_agree,
    nothing_left,
    nothing_unforeseen,
    no_minute_before_its_time,
)


def broken_promises(h: History) -> list[str]:
    """All of them, by check, at most 20 of each."""
    found: list[str] = []
    for check in CHECKS:
        wrong = list(check(h))
        found += [f"{check.__name__}: {text}" for text in wrong[:20]]
        if len(wrong) > 20:
            found.append(f"{check.__name__}: and {len(wrong) - 20} more")
    return found


def summary(h: History) -> str:
    """One line of numbers."""
    repeated = sum(max(0, sum(s.success for s in sends) - 1) for sends in _by_key(h).values())
    lost = sum(row["outcome"] == "worker_lost" for task in h.tasks.values() for row in task["rows"])
    return (
        f"seed {h.seed}: {len(h.events)} events, {len(h.tasks)} tasks, {len(h.sightings)} requests seen, "
        f"{len(h.answers)} answers of {len(h.confirmed)} confirmed, "
        f"{sum(1 for t in h.tasks.values() if t['dead'])} dead, {lost} attempts lost with their worker, "
        f"{repeated + len(h.queue) - len(set(h.queue))} duplicates, {len(h.faults)} faults, "
        f"{len(h.falls)} falls of tide"
    )


def _by_key(h: History) -> dict[tuple[str, str], list[Sighting]]:
    found: dict[tuple[str, str], list[Sighting]] = defaultdict(list)
    for s in sorted(h.sightings, key=lambda s: s.start):
        found[(s.service, s.key)].append(s)
    return found


def _during(h: History, kinds: tuple[str, ...], begin: float, end: float) -> bool:
    """Whether a fault of these kinds was on between the two times."""
    return any(f["kind"] in kinds and f["start"] <= end + _SLACK and f["end"] >= begin - _SLACK for f in h.faults)


def _sum(h: History, metric: str, position: int) -> Counter[str]:
    totals: Counter[str] = Counter()
    for labels, value in h.counters.get(metric, {}).items():
        totals[labels[position]] += int(value)
    return totals


def _doubted(h: History) -> int:
    """Events that were taken in by a call whose answer never came."""
    return len(h.unsure) + sum(
        12 for f in h.faults if f["kind"] in ("kill_producer", "kill_web", "restart_postgres", "disturb_db")
    )
