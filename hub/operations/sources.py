"""Event sources: test the connection, begin again somewhere else, show the state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hub.app.lifecycle import Hub
from hub.config.definitions import parse_spec
from hub.config.sources import SourceSpec, option, source_document
from hub.errors import ConfigError, HubError
from hub.inbound.moodle_replay import MoodleReplay, Replayed
from hub.models import Source
from hub.sources.moodle_database import MoodleDatabase
from hub.sources.moodle_log import LogReader
from hub.store.audit import record
from hub.store.source_positions import reset, status


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of a source test. No secrets in `message`."""

    ok: bool
    message: str
    latency_ms: float


def run_source_test(hub: Hub, name: str) -> Tested:
    """Connect to a source's database and read its newest log row.

    Raises:
        NotFoundError: no such source.
        UnavailableError: the hub's database is away.
    """
    source = hub.registry.sources.source(name)
    database = MoodleDatabase(source, hub.settings)
    started = time.perf_counter()
    try:
        reader = LogReader(database, option(source, "prefix"))
        newest = reader.newest()
        reader.rows_from(newest, 1)
        ok, message = True, f"{database.server}: the log's newest row is {newest}" if newest else "the log is empty"
    except HubError as e:
        ok, message = False, str(e)
    finally:
        database.close()
    return Tested(ok, message, round((time.perf_counter() - started) * 1000, 1))


def reset_source(hub: Hub, name: str, start: str) -> Source:
    """Begin reading again at `start`: `now`, an id, or a time. What was read within a day is not accepted twice.

    Raises:
        ConfigError: `start` is none of them.
    """
    source = hub.registry.sources.source(name)
    try:
        spec: SourceSpec = parse_spec(SourceSpec, {"name": "x", "url": "mysql://u@h/d", "start": start})
    except ConfigError as e:
        raise ConfigError(str(e).removeprefix("start: "), field="start") from None
    with hub.db.transaction() as conn:
        reset(conn, source.id, str(spec.start))
        record(conn, "source.reset", "source", id=source.id, name=name, after={"start": str(spec.start)})
    return source


def shown(source: Source) -> dict[str, Any]:
    """A source for people: its definition, masked, with what the hub knows of it."""
    return source_document(source) | {
        "id": source.id,
        "version": source.version,
        "created_at": source.created_at,
        "updated_at": source.updated_at,
        "secrets_unreadable": source.secrets_unreadable,
    }


def replay_source(
    hub: Hub,
    name: str,
    rule_name: str,
    since: datetime,
    until: datetime,
    *,
    rate: float = 50.0,
    dry_run: bool = False,
    told: Callable[[Replayed, float], None] = lambda done, part: None,
) -> Replayed:
    """Pass rows of the past to one rule; rows of which the rule has or had a task are skipped.

    Rows younger than `gap_age` are left to the source itself, which may not have read them yet.

    Raises:
        NotFoundError: no such source or rule.
        ConfigError: the time is empty, or the rate is not positive.
        SourceError: the site's database does not respond; a second replay goes on.
    """
    source, rule = hub.registry.sources.source(name), hub.configuration.rule(rule_name)
    settled = hub.clock.read() - timedelta(seconds=float(option(source, "gap_age")))
    until = min(until, settled)
    if since >= until:
        raise ConfigError(f"since must be before {until.isoformat(timespec='seconds')}", field="since")
    if not 0 < rate <= 10_000:
        raise ConfigError("must be above 0 and at most 10000", field="rate")
    database = MoodleDatabase(source, hub.settings)
    replay = MoodleReplay(
        source,
        LogReader(database, option(source, "prefix")),
        hub.intake,
        hub.db,
        event_limit=hub.settings.event_limit,
        rate=rate,
        write=not dry_run,
    )
    try:
        done = replay.run(rule, int(since.timestamp()), int(until.timestamp()), told)
    finally:
        database.close()
    if not dry_run:
        with hub.db.transaction() as conn:
            after = {"rule": rule_name, "since": since.isoformat(), "until": until.isoformat(), "tasks": done.tasks}
            record(conn, "source.replay", "source", id=source.id, name=name, after=after)
    return done


STATUS_FIELDS = (
    "name",
    "state",
    "lag_seconds",
    "lag_rows",
    "last_id",
    "newest_id",
    "gaps",
    "missing_ids",
    "read_rows",
    "events",
    "undecoded",
    "refused",
    "errors",
    "last_error",
    "error_at",
    "waits_for",
    "polled_at",
    "reached_at",
)


def source_status(hub: Hub, name: str | None = None) -> list[dict[str, Any]]:
    """State, lag and counts of every source, or of one; raises `NotFoundError`."""
    if name is not None:
        hub.registry.sources.source(name)
    return [{field: row[field] for field in STATUS_FIELDS} for row in status(hub.db, name)]
