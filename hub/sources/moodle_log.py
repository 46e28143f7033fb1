"""Reads Moodle's log table by its primary key: new rows, rows in gaps, and where a time begins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from hub.sources.log_position import Gap, in_gaps, windows
from hub.sources.moodle_database import MoodleDatabase
from hub.sources.moodle_event import COLUMNS, MAX_OTHER

Row = dict[str, Any]

TABLE: Final = "logstore_standard_log"
_SHORT: Final = 65_536  # bytes of `other` that are read with the row; longer ones are read one by one
_WINDOW: Final = 10_000  # ids of a window that covers several gaps
_FIELDS = ", ".join(
    f"CASE WHEN octet_length(other) <= {_SHORT} THEN other END, octet_length(other)" if name == "other" else name
    for name in COLUMNS
)
_NAMES = [part for name in COLUMNS for part in ((name, "other_bytes") if name == "other" else (name,))]
_NEWEST = "SELECT max(id) FROM {table}"
_FROM = "SELECT {fields} FROM {table} WHERE id >= %s ORDER BY id LIMIT %s"
_SOME = "SELECT {fields} FROM {table} WHERE id IN ({ids}) ORDER BY id"
_IDS = "SELECT id FROM {table} WHERE id BETWEEN %s AND %s ORDER BY id LIMIT %s"
_OTHER = "SELECT other FROM {table} WHERE id = %s"
_TIME = "SELECT id, timecreated FROM {table} WHERE id >= %s ORDER BY id LIMIT 1"


class LogReader:
    """Reads one log table. Every query is bounded and walks the primary key.

    Args:
        prefix: of Moodle's tables; letters, digits and `_`.
    """

    def __init__(self, db: MoodleDatabase, prefix: str) -> None:
        self._db = db
        self._table = f"{prefix}{TABLE}"

    def newest(self) -> int:
        """The highest visible id; 0 when there is no row."""
        [(newest,)] = self._db.query(_NEWEST.format(table=self._table))
        return int(newest or 0)

    def rows_from(self, first: int, limit: int) -> list[Row]:
        """At most `limit` rows with this id or a higher one, ascending."""
        sql = _FROM.format(fields=_FIELDS, table=self._table)
        return self._complete(self._db.query(sql, [first, limit]))

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """The rows with these ids, ascending; those that are gone are left out."""
        if not ids:
            return []
        sql = _SOME.format(fields=_FIELDS, table=self._table, ids=", ".join(["%s"] * len(ids)))
        return self._complete(self._db.query(sql, ids))

    def found_in(self, gaps: Sequence[Gap], limit: int) -> tuple[list[int], int | None]:
        """Visible ids in the gaps, ascending, at most `limit`; and the last id that was looked at (None: all were)."""
        found: list[int] = []
        most = _WINDOW + limit
        for low, high in windows(gaps, _WINDOW):
            ids = [int(id_) for (id_,) in self._db.query(_IDS.format(table=self._table), [low, high, most])]
            found += in_gaps(gaps, ids)
            if len(found) > limit:
                return found[:limit], found[limit] - 1
            if len(ids) == most:
                return found, ids[-1]
        return found, None

    def first_since(self, since: int, newest: int) -> int:
        """An id below which no row is from `since` or later, where times ascend with ids; by bisection.

        Args:
            since: Unix seconds.
            newest: the highest id.

        Returns:
            `newest` + 1 when every row is older.
        """
        low, high = 0, newest + 1
        while low < high:
            middle = (low + high) // 2
            rows = self._db.query(_TIME.format(table=self._table), [middle])
            if not rows or int(rows[0][0]) >= high or int(rows[0][1]) >= since:
                high = middle
            else:
                low = int(rows[0][0]) + 1
        return low

    def visible(self, low: int, high: int) -> list[int]:
        """Visible ids from `low` to `high`, ascending."""
        return [int(id_) for (id_,) in self._db.query(_IDS.format(table=self._table), [low, high, high - low + 1])]

    def _complete(self, found: list[tuple[Any, ...]]) -> list[Row]:
        rows = [dict(zip(_NAMES, values, strict=True)) for values in found]
        for row in rows:
            size = row.pop("other_bytes")
            if size is not None and _SHORT < size <= MAX_OTHER:
                again = self._db.query(_OTHER.format(table=self._table), [row["id"]])
                row["other"] = again[0][0] if again else None
            row["other_bytes"] = size or 0
        return rows


def fingerprint(row: Row) -> str:
    """Tells a row from another one that has taken its id in a restored table."""
    text = "\0".join(str(row[name]) for name in ("id", "timecreated", "eventname", "userid", "contextid", "objectid"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
