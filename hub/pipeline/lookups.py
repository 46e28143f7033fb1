"""Lookups for templates: what an event's ids refer to, read from the Moodle site that the event came from.

A database that is away is nobody's failure: the task waits, and no attempt is counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from hub.config.sources import option
from hub.domain.lookups import USERS, number, wanted
from hub.errors import ConfigError, NotSentError, SourceError
from hub.models import JSON, Source

_REFRESH = 5.0  # seconds for which the definitions are kept
_RETRY = 15.0  # seconds until a task whose lookup failed is tried again


class Rows(Protocol):
    """Rows of one site; each method raises `SourceError`."""

    def user(self, id_: int) -> dict[str, JSON] | None: ...

    def profile(self, user: int) -> dict[str, JSON]: ...

    def cohorts(self, user: int) -> list[str]: ...

    def roles(self, user: int, context: int) -> list[str]: ...

    def course(self, id_: int) -> dict[str, JSON] | None: ...

    def close(self) -> None: ...


class Lookups:
    """Finds the source of an event and reads what a template names. Thread-safe.

    Args:
        sources: gives the definitions.
        connect: makes the rows of a source; connects when the first row is read.
    """

    def __init__(
        self,
        sources: Callable[[], list[Source]],
        connect: Callable[[Source], Rows],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._connect = connect
        self._now = now
        self._lock = threading.Lock()
        self._known: tuple[float, list[Source]] = (float("-inf"), [])
        self._rows: dict[int, tuple[Source, Rows]] = {}

    def read(self, paths: frozenset[str], data: JSON, origin: str | None) -> dict[str, JSON]:
        """Values for those of the `paths` that are not in the event's data, as one object.

        A row that does not exist is null; a path of an event without such an id is left out.

        Args:
            paths: of `hub.domain.lookups.named`.
            origin: the event's source (`source:3`). An event of another origin belongs to the only site there is.

        Raises:
            NotSentError: the site's database is away, or refuses.
            UnavailableError: the hub's database is away.
        """
        paths = wanted(paths, data)
        if not paths:
            return {}
        source = self._source(origin)
        if source is None:
            return {}
        try:
            return _values(self._rows_of(source), paths, data)
        except (SourceError, ConfigError) as e:
            raise NotSentError(f"lookup in source {source.name}: {e}", retry_after=_RETRY) from None

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            rows, self._rows = list(self._rows.values()), {}
        for _, each in rows:
            each.close()

    def _source(self, origin: str | None) -> Source | None:
        with self._lock:
            at, known = self._known
        if self._now() - at >= _REFRESH:
            known = [source for source in self._sources() if source.enabled and option(source, "lookups")]
            with self._lock:
                self._known = self._now(), known
        if origin and origin.startswith("source:"):
            return next((source for source in known if f"source:{source.id}" == origin), None)
        return known[0] if len(known) == 1 else None

    def _rows_of(self, source: Source) -> Rows:
        with self._lock:
            kept = self._rows.get(source.id)
            if kept is not None and kept[0] == source:
                return kept[1]
            rows = self._connect(source)
            self._rows[source.id] = source, rows
        if kept is not None:
            kept[1].close()
        return rows


def _values(rows: Rows, paths: frozenset[str], data: dict[str, JSON]) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for root, key in USERS.items():
        parts = {path.split(".")[1] if "." in path else "" for path in paths if path.partition(".")[0] == root}
        id_ = number(data.get(key))
        if parts and id_ is not None:
            found[root] = _user(rows, id_, parts, number(data.get("contextid")))
    if any(path.partition(".")[0] == "course" for path in paths) and (course := number(data.get("courseid"))):
        found["course"] = rows.course(course)
    if any(path.partition(".")[0] == "cohorts" for path in paths):
        user = number(data.get("relateduserid")) or number(data.get("userid"))
        found["cohorts"] = rows.cohorts(user) if user else []
    return found


def _user(rows: Rows, id_: int, parts: set[str], context: int | None) -> dict[str, JSON] | None:
    user = rows.user(id_)
    if user is None:
        return None
    user = dict(user)
    if "profile" in parts:
        user["profile"] = rows.profile(id_)
    if "cohorts" in parts:
        user["cohorts"] = rows.cohorts(id_)
    if "roles" in parts:
        user["roles"] = rows.roles(id_, context) if context is not None else []
    return user
