"""Erases a person's data: finds where it is, a window of ids at a time, and blanks it, a transaction for each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import LiteralString

from hub.store.audit import record
from hub.store.database import Connection, Database, Row

WINDOW = 5000  # ids read by one statement
ERASED = "(erased)"
_BLANK = '{"erased":true}'
_REASON = "personal data erased"
# A text that every row with the value holds. It saves reading the others; NULL: there is no such text.
_HOLDS: LiteralString = (
    "(%(needles)s::text[] IS NULL OR EXISTS (SELECT FROM unnest(%(needles)s::text[]) n WHERE strpos({column}, n) > 0))"
)
_EVENTS: LiteralString = """
SELECT id, name, data FROM events WHERE id > %(after)s AND id <= %(up_to)s AND erased_at IS NULL AND {holds}
""".replace("{holds}", _HOLDS.format(column="data"))
_DEAD_LETTERS: LiteralString = """
SELECT id, event AS name, event_data AS data FROM dead_letters
WHERE id > %(after)s AND id <= %(up_to)s AND {holds}
""".replace("{holds}", _HOLDS.format(column="event_data"))
_INBOUND: LiteralString = """
SELECT id, event AS name, coalesce(request_body, response_body) AS data FROM deliveries
WHERE direction = 'inbound' AND id > %(after)s AND id <= %(up_to)s AND {holds}
""".replace("{holds}", _HOLDS.format(column="coalesce(request_body, response_body)"))
_TABLES: dict[str, tuple[LiteralString, LiteralString]] = {
    "events": ("SELECT coalesce(max(id), 0) AS n FROM events", _EVENTS),
    "dead_letters": ("SELECT coalesce(max(id), 0) AS n FROM dead_letters", _DEAD_LETTERS),
    "inbound": ("SELECT coalesce(max(id), 0) AS n FROM deliveries", _INBOUND),
}
_SAMPLES = "SELECT name, sample AS data FROM event_names WHERE sample IS NOT NULL"
_TASKS = """
SELECT id FROM tasks WHERE event_id = ANY(%(events)s)
UNION SELECT task_id FROM deliveries WHERE event_id = ANY(%(events)s) AND task_id IS NOT NULL
UNION SELECT task_id FROM dead_letters WHERE event_id = ANY(%(events)s)
UNION SELECT task_id FROM cancellations WHERE event_id = ANY(%(events)s) AND task_id IS NOT NULL
"""
_CAUSED = "SELECT id FROM events WHERE cause_task_id = ANY(%(tasks)s) AND erased_at IS NULL"
_LIVE = "SELECT id, event_id, state FROM tasks WHERE event_id = ANY(%(events)s)"
_DELIVERIES = """
SELECT id FROM deliveries WHERE event_id = ANY(%(events)s)
UNION SELECT id FROM deliveries WHERE task_id = ANY(%(tasks)s)
"""
_OF_EVENTS = "SELECT id FROM dead_letters WHERE event_id = ANY(%(events)s)"
# Locked in order, and before tasks are looked for: whoever makes a task of an event locks it, too.
_LOCK = "SELECT id FROM events WHERE id = ANY(%(events)s) ORDER BY id FOR UPDATE"
_CANCEL = """
WITH gone AS (
    DELETE FROM tasks WHERE event_id = ANY(%(events)s) AND state <> 'running'
    RETURNING id, event_id, rule_id, service_id
), noted AS (
    INSERT INTO cancellations (task_id, event_id, rule_id, service_id, event, reason, who)
    SELECT g.id, g.event_id, g.rule_id, g.service_id, e.name, %(reason)s, %(who)s
    FROM gone g LEFT JOIN events e ON e.id = g.event_id
)
SELECT count(*) FROM gone
"""
_DELETE_LETTERS = """
WITH gone AS (
    DELETE FROM dead_letters WHERE id = ANY(%(letters)s) OR event_id = ANY(%(events)s)
    RETURNING id, task_id, event_id, rule_id, service_id, event
), noted AS (
    INSERT INTO cancellations (dead_letter_id, task_id, event_id, rule_id, service_id, event, reason, who)
    SELECT id, task_id, event_id, rule_id, service_id, event, %(reason)s, %(who)s FROM gone
)
SELECT count(*) FROM gone
"""
_BLANK_DELIVERIES = f"""
UPDATE deliveries SET request_body = NULL, response_body = NULL, properties = NULL, raw = NULL,
    endpoint = CASE WHEN endpoint IS NOT NULL THEN '{ERASED}' END,
    error = CASE WHEN error IS NOT NULL THEN '{ERASED}' END
WHERE id = ANY(%(deliveries)s)
"""  # noqa: S608 - constants
_BLANK_ORIGINS = f"""
UPDATE task_origins SET payload = CASE WHEN payload IS NOT NULL THEN '"{ERASED}"' END,
    endpoint = CASE WHEN endpoint IS NOT NULL THEN '{ERASED}' END
WHERE event_id = ANY(%(events)s) AND (payload IS NOT NULL OR endpoint IS NOT NULL)
"""  # noqa: S608
_BLANK_EVENTS = "UPDATE events SET data = %(blank)s, search_keys = NULL, erased_at = now() WHERE id = ANY(%(events)s)"
_BLANK_SAMPLES = """
UPDATE event_names n SET sample = NULL WHERE sample IS NOT NULL AND (name = ANY(%(names)s)
    OR EXISTS (SELECT FROM events e WHERE e.id = ANY(%(events)s) AND e.name = n.name AND e.data = n.sample))
"""


@dataclass(slots=True)
class Erased:
    """What was erased, or would be.

    `tasks`: live ones that were deleted. `running`: events that stay because a worker runs a task of them.
    """

    events: int = 0
    deliveries: int = 0
    dead_letters: int = 0
    tasks: int = 0
    samples: int = 0
    running: int = 0

    def add(self, other: Erased) -> None:
        """Add the numbers of another one."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to erase in one transaction, by id; samples by the name of their event."""

    events: Sequence[int] = ()
    dead_letters: Sequence[int] = ()
    deliveries: Sequence[int] = ()
    samples: Sequence[str] = ()


class ErasureStore:
    """Finds and erases rows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def windows(self, table: str, needles: Sequence[str] | None) -> Iterator[tuple[float, list[Row]]]:
        """Rows that may hold the value, a window at a time: (part that was read, `id name data`).

        Args:
            table: events, dead_letters, or inbound (the messages and webhook calls of the delivery log).
            needles: texts of which such a row holds at least one; None: unknown.
        """
        highest, sql = _TABLES[table]
        row = self._db.one(highest)
        last, after = int(row["n"]) if row else 0, 0
        while after < last:
            up_to = min(after + WINDOW, last)
            params = {"after": after, "up_to": up_to, "needles": None if needles is None else list(needles)}
            yield up_to / last, self._db.all(sql, params)
            after = up_to

    def samples(self) -> list[Row]:
        """`name data` of the samples that are kept for each event name."""
        return self._db.all(_SAMPLES)

    def count(self, batch: Batch) -> Erased:
        """What `erase` would do with the batch; `tasks` are all live ones, and `running` how many run now."""
        with self._db.transaction() as conn:
            events, tasks = _related(conn, batch.events)
            params = {"events": events, "tasks": tasks}
            live = conn.execute(_LIVE, params).fetchall()
            return Erased(
                events=len(events),
                deliveries=len(_ids(conn, _DELIVERIES, params) | set(batch.deliveries)),
                dead_letters=len(_ids(conn, _OF_EVENTS, params) | set(batch.dead_letters)),
                tasks=len(live),
                samples=len(batch.samples),
                running=sum(state == "running" for _, _, state in live),
            )

    def erase(self, batch: Batch, *, include_live: bool, who: str, where: Sequence[str]) -> Erased:
        """Erase a batch in one transaction, with what belongs to its events: deliveries, responses, dead letters.

        An event with a live task that may not be deleted, or that a worker runs, stays as it is.

        Args:
            include_live: delete live tasks.
            where: what was looked for, with the values masked, for the audit trail.
        """
        with self._db.transaction() as conn:
            found, _ = _related(conn, batch.events)
            params: dict[str, object] = {"events": found, "reason": _REASON, "who": who}
            conn.execute(_LOCK, params)
            cancelled = _count(conn, _CANCEL, params) if include_live else 0
            busy = {event_id for _, event_id, _ in conn.execute(_LIVE, params).fetchall()}
            events = [event_id for event_id in found if event_id not in busy]
            params |= {"events": events, "tasks": sorted(_ids(conn, _TASKS, {"events": events}))}
            deliveries = sorted(_ids(conn, _DELIVERIES, params) | set(batch.deliveries))
            params |= {"deliveries": deliveries, "letters": list(batch.dead_letters), "names": list(batch.samples)}
            erased = Erased(
                events=len(events),
                deliveries=conn.execute(_BLANK_DELIVERIES.encode(), params).rowcount,
                dead_letters=_count(conn, _DELETE_LETTERS, params),
                tasks=cancelled,
                samples=conn.execute(_BLANK_SAMPLES, params).rowcount,
                running=len(busy),
            )
            conn.execute(_BLANK_ORIGINS.encode(), params)
            conn.execute(_BLANK_EVENTS, params | {"blank": _BLANK})
            numbers = {each.name: getattr(erased, each.name) for each in fields(erased)}
            record(conn, "data.erase", "event", after={"where": list(where), **numbers})
        return erased


def _related(conn: Connection, events: Sequence[int]) -> tuple[list[int], list[int]]:
    """(the events and all that were caused by their tasks, the tasks of all of them)."""
    found, new = set(events), set(events)
    tasks: set[int] = set()
    while new:
        more = _ids(conn, _TASKS, {"events": sorted(new)}) - tasks
        tasks |= more
        new = _ids(conn, _CAUSED, {"tasks": sorted(more)}) - found
        found |= new
    return sorted(found), sorted(tasks)


def _ids(conn: Connection, sql: LiteralString, params: Mapping[str, object]) -> set[int]:
    return {row[0] for row in conn.execute(sql, params).fetchall()}


def _count(conn: Connection, sql: LiteralString, params: Mapping[str, object]) -> int:
    row = conn.execute(sql, params).fetchone()
    return int(row[0]) if row else 0
