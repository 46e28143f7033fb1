"""Erase a person's data: blank the events that hold a value at a path, and all that belongs to them.

Found by reading every row, not by search keys alone: what was accepted before a path was indexed counts too. An
interrupted run is repeated: what was erased does not match any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.domain.masks import INBOUND
from hub.domain.paths import JsonStrings, dig, split_path
from hub.domain.search_keys import text_of
from hub.errors import ConflictError, PayloadError
from hub.models import JSON
from hub.operations.tasks import who
from hub.store.database import Row
from hub.store.erasures import Batch, Erased

__all__ = ["Erased", "Found", "Where", "count", "erase", "find", "parse_where"]
BATCH = 200  # events, dead letters or messages of one transaction
_PLAIN = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Where:
    """A value at a dotted path of event data; 42 and "42" are the same."""

    path: str
    value: str

    @property
    def masked(self) -> str:
        """As the audit trail has it."""
        return f"{self.path}:***"

    @property
    def needle(self) -> str | None:
        """A text that is in the JSON text of every value that is equal; None: nothing is."""
        return max(_PLAIN.findall(self.value), key=len, default=None)


@dataclass(slots=True)
class Found:
    """Where the data is: ids of events, of dead letters, of inbound messages; event names with a sample of it."""

    events: list[int] = field(default_factory=list)
    dead_letters: list[int] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    def batches(self) -> list[Batch]:
        """At most `BATCH` rows of each kind together."""
        most = max(len(self.events), len(self.dead_letters), len(self.deliveries), len(self.samples))
        parts = [slice(start, start + BATCH) for start in range(0, most, BATCH)]
        return [
            Batch(self.events[part], self.dead_letters[part], self.deliveries[part], self.samples[part])
            for part in parts
        ]


def parse_where(text: str) -> Where:
    """Parse `PATH:VALUE`; raises `PayloadError`."""
    path, colon, value = text.partition(":")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not colon or not value:
        raise PayloadError("where: write PATH:VALUE, such as userid:42 or other.email:a@b.c")
    split_path(path)
    return Where(path, value)


def find(hub: Hub, wanted: Sequence[Where], *, progress: Callable[[float], None] = lambda part: None) -> Found:
    """Read everything that is stored and say where one of the values is.

    Args:
        progress: called after each window with the part that was read, from 0 to 1.
    """
    needles = [where.needle for where in wanted]
    texts = None if None in needles else [needle for needle in needles if needle is not None]
    found = Found(samples=[row["name"] for row in hub.erasures.samples() if _holds(row, wanted)])
    lists = {"events": found.events, "dead_letters": found.dead_letters, "inbound": found.deliveries}
    for number, (table, ids) in enumerate(lists.items()):
        for part, rows in hub.erasures.windows(table, texts):
            ids += [row["id"] for row in rows if _holds(row, wanted)]
            progress((number + part) / len(lists))
    return found


def count(hub: Hub, found: Found) -> Erased:
    """What `erase` would erase; `tasks` are live tasks."""
    return hub.erasures.count(Batch(found.events, found.dead_letters, found.deliveries, found.samples))


def erase(
    hub: Hub,
    wanted: Sequence[Where],
    found: Found,
    *,
    include_live: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Erased:
    """Erase what was found, in batches; the audit trail has an entry for each, without the values.

    Args:
        include_live: delete live tasks of the events. Without it, nothing is erased while there are some.
        progress: called after each batch with the number of events erased so far.

    Raises:
        ConflictError: there are live tasks.
    """
    if not include_live and (live := count(hub, found).tasks):
        raise ConflictError(
            f"{live} task(s) of these events are live and need the data: let them end, or delete them with the data"
            " (--include-live)"
        )
    total = Erased()
    for batch in found.batches():
        total.add(
            hub.erasures.erase(batch, include_live=include_live, who=who(), where=[each.masked for each in wanted])
        )
        progress(total.events)
    return total


def _holds(row: Row, wanted: Sequence[Where]) -> bool:
    """Whether the row's JSON has one of the values at its path; of an inbound event, also below `payload`."""
    try:
        data = loads(row["data"])
    except PayloadError:
        return False
    strings = JsonStrings()
    roots = [data]
    if row["name"] in INBOUND and isinstance(data, dict) and "payload" in data:
        roots.append(data["payload"])
    return any(_is(dig(root, split_path(each.path), strings), each.value) for root in roots for each in wanted)


def _is(value: JSON, text: str) -> bool:
    """Whether it is the value, or a list that has it."""
    return any(text_of(item) == text for item in value) if isinstance(value, list) else text_of(value) == text
