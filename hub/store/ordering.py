"""Ordering keys: which task of a key may run next.

At most one live task of a rule and key holds the key (a unique index). The others are `blocked`. A trigger passes the
key on when its holder ends or, for a rule that continues after failures, fails. This store opens keys that nobody
holds: of events accepted a moment ago, of retries that are due, and those that a crash left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from hub.codec import loads
from hub.domain.rules import ordering_key
from hub.errors import HubError, PayloadError
from hub.models import Event, Rule
from hub.store.database import Connection, Database

BATCH = 1000  # keys looked at in one sweep
_TRIES = 3

# `key` is compared with the index, so a key with 100,000 blocked tasks costs what one with a single task costs.
_OPEN = """
UPDATE tasks t SET holds_key = true, next_run_at = clock_timestamp(),
    state = CASE WHEN f.admitted THEN 'queued' ELSE 'pending' END,
    handed_at = CASE WHEN f.admitted THEN now() END
FROM (
    SELECT b.id, r.enabled AND s.enabled AND b.expires_at > now() AND NOT b.bulk
           AND s.id = ANY(%(services)s::bigint[]) AS admitted
    FROM unnest(%(rules)s::bigint[], %(keys)s::text[]) AS k(rule_id, key)
    CROSS JOIN LATERAL (
        SELECT b.* FROM tasks b WHERE b.rule_id = k.rule_id AND b.ordering_key = k.key AND b.state = 'blocked'
        ORDER BY b.position, b.id LIMIT 1
    ) b
    JOIN rules r ON r.id = b.rule_id JOIN services s ON s.id = b.service_id
    WHERE NOT EXISTS (SELECT FROM tasks h WHERE h.rule_id = k.rule_id AND h.ordering_key = k.key AND h.holds_key)
    ORDER BY b.id
) f
WHERE t.id = f.id AND t.state = 'blocked'
RETURNING t.service_id, t.id, t.state
"""
# A live task must not wait behind the bulk lane.
_LEAVE_BULK = """
UPDATE tasks t SET bulk = false FROM unnest(%(rules)s::bigint[], %(keys)s::text[]) AS k(rule_id, key)
WHERE t.rule_id = k.rule_id AND t.ordering_key = k.key AND t.holds_key AND t.bulk AND t.state = 'pending'
"""
# Distinct keys by a loose index scan: one look-up for each key, however many tasks it has.
_SWEEP = """
WITH RECURSIVE k AS (
    (SELECT rule_id, ordering_key, 1 AS n FROM tasks
     WHERE state = 'blocked' AND (rule_id, ordering_key) > (%(rule)s, %(key)s)
     ORDER BY rule_id, ordering_key LIMIT 1)
    UNION ALL
    SELECT next.rule_id, next.ordering_key, k.n + 1 FROM k CROSS JOIN LATERAL (
        SELECT rule_id, ordering_key FROM tasks
        WHERE state = 'blocked' AND (rule_id, ordering_key) > (k.rule_id, k.ordering_key)
        ORDER BY rule_id, ordering_key LIMIT 1
    ) next WHERE k.n < %(limit)s
)
SELECT rule_id, ordering_key,
       EXISTS (SELECT FROM tasks h WHERE h.rule_id = k.rule_id AND h.ordering_key = k.ordering_key AND h.holds_key)
FROM k
"""


# Tasks of rules with an ordering key, made of stored events: their keys are rendered from the events.
_WITHOUT_KEY = """
SELECT t.id, r.ordering_key, e.name, e.data FROM tasks t
JOIN rules r ON r.id = t.rule_id AND r.ordering_key IS NOT NULL JOIN events e ON e.id = t.event_id
WHERE t.id = ANY(%s) AND t.ordering_key IS NULL AND t.state = 'pending' ORDER BY t.id
"""
_ASSIGN = """
UPDATE tasks t SET state = 'blocked', ordering_key = a.key, position = a.position FROM (
    SELECT g.id, g.key, CASE WHEN %(behind)s THEN nextval('events_id_seq') ELSE x.event_id END AS position
    FROM unnest(%(ids)s::bigint[], %(keys)s::text[]) WITH ORDINALITY AS g(id, key, ord) JOIN tasks x ON x.id = g.id
    ORDER BY g.ord
) a WHERE t.id = a.id
"""


class Key(NamedTuple):
    """An ordering key of a rule. `service_id`: of the rule, as it was when the task was made."""

    rule_id: int
    service_id: int
    key: str


def assign_keys(conn: Connection, task_ids: Sequence[int], *, behind: bool) -> None:
    """Give tasks that were made of stored events the ordering keys of their rules, in the transaction of `conn`.

    Args:
        behind: they come after the tasks that wait; False: in the order in which their events were accepted.
    """
    ids, keys = [], []
    for task_id, template, name, data in conn.execute(_WITHOUT_KEY, [list(task_ids)]).fetchall():
        try:
            event = Event(name, loads(data))
        except PayloadError:
            continue  # the attempt fails for the same reason
        if (key := ordering_key(Rule(0, "", name, 0, "", ordering_key=template), event)) is not None:
            ids.append(task_id)
            keys.append(key)
    if ids:
        conn.execute(_ASSIGN, {"ids": ids, "keys": keys, "behind": behind})


@dataclass(slots=True)
class _Cursor:
    rule: int = 0
    key: str = ""


class OrderingKeys:
    """Opens ordering keys that no task holds."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cursor = _Cursor()

    def open(self, keys: Collection[tuple[int, str]], services: Sequence[int] = ()) -> list[tuple[int, int]]:
        """Let the first task of each (rule id, key) run, unless another task holds the key.

        Two processes may do this at once: the database lets one of them.

        Args:
            services: tasks of these services are marked as queued, and returned.

        Returns:
            (service id, task id) of the tasks that are to be published.
        """
        ordered = sorted(set(keys))
        params = {
            "rules": [rule_id for rule_id, _ in ordered],
            "keys": [key for _, key in ordered],
            "services": list(services),
        }
        for attempt in range(1, _TRIES + 1):
            try:
                with self._db.autocommit() as conn:
                    rows = conn.execute(_OPEN, params).fetchall()
            except (psycopg.errors.UniqueViolation, HubError):
                if attempt == _TRIES:
                    return []  # the sweep opens them
                continue
            if len(rows) < len(ordered):
                self._db.run(_LEAVE_BULK, params)
            return [(service_id, task_id) for service_id, task_id, state in rows if state == "queued"]
        return []

    def sweep(self) -> int:
        """Open the keys that a crash left, at most `BATCH` of them at a time. Returns how many were found."""
        params = {"rule": self._cursor.rule, "key": self._cursor.key, "limit": BATCH}
        with self._db.autocommit() as conn:
            rows = conn.execute(_SWEEP, params).fetchall()
        self._cursor = _Cursor(rows[-1][0], rows[-1][1]) if len(rows) == BATCH else _Cursor()
        left = [(rule_id, key) for rule_id, key, held in rows if not held]
        if left:
            self.open(left)
        return len(left)
