"""Rows of Moodle's `logstore_standard_log` as events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hub.codec import loads
from hub.domain import php_serialized
from hub.domain.events import check_event
from hub.errors import PayloadError
from hub.models import JSON, Event

EVENT_KEYS: Final = (
    "eventname",
    "component",
    "action",
    "target",
    "objecttable",
    "objectid",
    "crud",
    "edulevel",
    "contextid",
    "contextlevel",
    "contextinstanceid",
    "userid",
    "courseid",
    "relateduserid",
    "anonymous",
    "other",
    "timecreated",
)
LOG_KEYS: Final = {"origin": "log_origin", "ip": "log_ip", "realuserid": "log_realuserid"}
COLUMNS: Final = ("id", *EVENT_KEYS, *LOG_KEYS)
MAX_OTHER: Final = php_serialized.MAX_BYTES
"""Most bytes of the column `other` that are read."""
ERROR_KEY: Final = "log_other_error"
"""Says in the event's data why `other` is null although the row has one."""


def to_event(row: Mapping[str, Any], source_id: int) -> Event:
    """The event of a row: the 17 keys of `get_data()`, and what only the log knows under the names of `LOG_KEYS`.

    The event's id names the source, the row and the second of the event: the same row is the same event however
    often it is read, and a row that takes the id of another one in a restored table is a new event.

    Args:
        row: values by the names of `COLUMNS`.
        source_id: the source's id in the hub.

    Raises:
        PayloadError: `other` cannot be decoded.
    """
    data: dict[str, JSON] = {name: row[name] for name in EVENT_KEYS}
    data["other"] = decode_other(row["other"])
    data |= {name: row[column] for column, name in LOG_KEYS.items()}
    key = f"source{source_id}:{row['id']}:{row['timecreated']}"
    return Event(str(row["eventname"]), data, key, f"source:{source_id}")


def without_other(row: Mapping[str, Any], source_id: int, reason: str) -> Event:
    """The event of a row whose `other` cannot be used: `other` is null, and `ERROR_KEY` says why."""
    event = to_event({**row, "other": None}, source_id)
    assert isinstance(event.data, dict)
    event.data[ERROR_KEY] = reason
    return event


def checked_event(row: Mapping[str, Any], source_id: int, limit: int) -> tuple[Event | None, str | None]:
    """The event of a row and what is wrong with the row. A row whose `other` cannot be read is an event all the same.

    Args:
        row: values by the names of `COLUMNS`, and `other_bytes`, the size of `other`.
        limit: most bytes of an event.

    Returns:
        No event where the row cannot be one, such as a name of 300 characters.
    """
    try:
        if row["other_bytes"] > MAX_OTHER:
            raise PayloadError(f"other: {row['other_bytes']} bytes are more than {MAX_OTHER}")
        return check_event(to_event(row, source_id), limit=limit), None
    except PayloadError as e:
        problem = str(e)
    try:
        return check_event(without_other(row, source_id, problem), limit=limit), problem
    except PayloadError as e:
        return None, str(e)


def decode_other(text: str | None) -> JSON:
    """The value of the column `other`: JSON, or PHP's serialization as older sites have it.

    Raises:
        PayloadError: it is neither, is larger than 1 MiB, or holds a PHP object or reference.
    """
    if text is None or not text:
        return None
    if php_serialized.looks_serialized(text):
        return php_serialized.loads(text)
    if len(text.encode("utf-8", "surrogatepass")) > php_serialized.MAX_BYTES:
        raise PayloadError(f"other: more than {php_serialized.MAX_BYTES} bytes")
    return loads(text)
