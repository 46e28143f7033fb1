"""The audit trail: who changed what, when and from where, written in the transaction of the change.

`acting(actor)` sets who works in this thread or request, `record(conn, ...)` writes an entry. An entry holds the values
before and after, as JSON objects; callers leave secrets out or mask them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from hub.store.database import Connection, Database

ActorKind = Literal["user", "token", "cli", "link", "system"]
Values = Mapping[str, Any]
Change = tuple[int | None, str | None, Values | None, Values | None]  # id, name, before, after

_INSERT = """
INSERT INTO audit_log (actor, actor_kind, origin, action, subject_kind, subject_id, subject_name, before, after)
VALUES (%(actor)s, %(actor_kind)s, %(origin)s, %(action)s, %(kind)s, %(id)s, %(name)s, %(before)s, %(after)s)
"""
_LIST = """
SELECT id, at, actor, actor_kind, origin, action, subject_kind, subject_id, subject_name, before, after
FROM audit_log
WHERE (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (%(actor)s::text IS NULL OR actor = %(actor)s)
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(kind)s::text IS NULL OR subject_kind = %(kind)s)
  AND (%(name)s::text IS NULL OR subject_name = %(name)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes changes.

    Attributes:
        name: of the user, of the API token, or of the operating system's user.
        kind: user (console), token (API), cli, link (a login link), system (the hub itself).
        origin: client address, or host name of a command; None when there is none.
    """

    name: str
    kind: ActorKind
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit trail."""

    id: int
    at: datetime
    actor: str
    actor_kind: ActorKind
    origin: str | None
    action: str
    subject_kind: str
    subject_id: int | None
    subject_name: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


_HUB = Actor("hub", "system")
_actor: ContextVar[Actor] = ContextVar("actor", default=_HUB)


def actor() -> Actor:
    """The actor of this context."""
    return _actor.get()


def act_as(who: Actor) -> None:
    """Set the actor of this context from now on, for a request, whose context ends with it."""
    _actor.set(who)


@contextmanager
def acting(who: Actor) -> Iterator[None]:
    """Set the actor inside the block."""
    token = _actor.set(who)
    try:
        yield
    finally:
        _actor.reset(token)


def record(
    conn: Connection,
    action: str,
    kind: str,
    *,
    id: int | None = None,
    name: str | None = None,
    before: Values | None = None,
    after: Values | None = None,
) -> bool:
    """Write an entry in the transaction of `conn`; False, and nothing written, when nothing changed.

    Args:
        action: such as `user.add`.
        kind: what was changed: user, token, link, session, service, rule, schedule, task, dead_letter, secrets.
        before: values before the change; None where there was nothing.
        after: values after it. Where both are given, only what differs is kept.
    """
    return record_many(conn, action, kind, [(id, name, before, after)]) == 1


def record_many(conn: Connection, action: str, kind: str, changes: Iterable[Change]) -> int:
    """Write entries of one action, pipelined; returns how many. A change that changes nothing is left out."""
    who = actor()
    common = {"actor": who.name, "actor_kind": who.kind, "origin": who.origin, "action": action, "kind": kind}
    rows = []
    for id, name, before, after in changes:
        if before is not None and after is not None:
            changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
            if not changed:
                continue
            before = {key: before.get(key) for key in changed}
            after = {key: after.get(key) for key in changed}
        rows.append({**common, "id": id, "name": name, "before": _json(before), "after": _json(after)})
    if rows:
        with conn.cursor() as cur:
            cur.executemany(_INSERT, rows)
    return len(rows)


def record_batch(conn: Connection, action: str, kind: str, ids: Sequence[int], **after: Any) -> None:
    """Write one entry for rows that were changed together; nothing when there are none.

    The entry of one row has its id; that of several lists them: `after` gets `count` and `ids`.
    """
    if len(ids) == 1:
        record(conn, action, kind, id=ids[0], after=after or None)
    elif ids:
        record(conn, action, kind, after={"count": len(ids), "ids": sorted(ids), **after})


def _json(values: Values | None) -> Jsonb | None:
    return None if values is None else Jsonb(_storable(values))


def _storable(value: Any) -> Any:
    """A value as jsonb takes it: no NUL, no half of a surrogate pair, times as text."""
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return value if value is None or isinstance(value, bool | int | float) else str(value)


class AuditLog:
    """Reads the audit trail."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Entry]:
        """Entries, newest first; those with an id below `before`, for the next page."""
        params = {
            "actor": actor,
            "action": action,
            "kind": kind,
            "name": name,
            "since": since,
            "before": before,
            "limit": limit,
        }
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Entry)) as cur:
            return cur.execute(_LIST, params).fetchall()
