"""Conditions that listings share. Values are always parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from hub.errors import NotFoundError
from hub.store.database import Database, Row

MAX_PAGE = 1000  # rows of one page
_SERVICE_IDS = "SELECT id FROM services WHERE name = %s"


def service_ids(db: Database, name: str) -> list[int]:
    """Every service that has or had that name."""
    return [row["id"] for row in db.all(_SERVICE_IDS, [name])]


def like(where: list[LiteralString], params: dict[str, Any], column: LiteralString, name: str | None) -> None:
    """Add a condition on an event name: the whole name, or its beginning when it ends in `*`."""
    if not name:
        return
    if name.endswith("*"):
        where.append(f"starts_with({column}, %(event)s)")
        params["event"] = name[:-1]
    else:
        where.append(f"{column} = %(event)s")
        params["event"] = name


def in_range(
    where: list[LiteralString],
    params: dict[str, Any],
    since: datetime | None,
    until: datetime | None,
    before: int | None,
) -> None:
    """Add conditions on the time and id of the rows of `d`."""
    if since is not None:
        where.append("d.created_at >= %(since)s")
        params["since"] = since
    if until is not None:
        where.append("d.created_at < %(until)s")
        params["until"] = until
    if before is not None:
        where.append("d.id < %(before)s")
        params["before"] = before


def bounded(limit: int) -> int:
    """The size of a page: 1 to `MAX_PAGE` rows."""
    return max(1, min(limit, MAX_PAGE))


def found(row: Row | None, kind: str, key: object) -> Row:
    """The row, or `NotFoundError`."""
    if row is None:
        raise NotFoundError(f"no {kind} {key!r}" if isinstance(key, str) else f"no {kind} {key}")
    return row
