"""Composes the threads that read event sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hub.config.sources import option
from hub.inbound.moodle_poll import MoodlePoller
from hub.inbound.source_threads import Poller, SourceThreads
from hub.models import Source
from hub.pipeline.lookups import Lookups
from hub.sources.moodle_database import MoodleDatabase
from hub.sources.moodle_log import LogReader
from hub.sources.moodle_rows import MoodleRows
from hub.store.source_positions import SourcePositions

if TYPE_CHECKING:
    from hub.app.hub import Hub

_LEASE_GRACE = 10.0  # seconds


def positions_of(hub: Hub, source: Source) -> SourcePositions:
    """The position of a source, for this process."""
    return SourcePositions(hub.db, source.id, hub.instance)


def make_poller(hub: Hub, source: Source, positions: SourcePositions) -> tuple[MoodlePoller, Callable[[], None]]:
    """The poller of a source, and what closes its connection."""
    database = MoodleDatabase(source, hub.settings)
    poller = MoodlePoller(
        source,
        LogReader(database, option(source, "prefix")),
        positions,
        hub.intake,
        hub.db,
        snapshot=hub.configuration.snapshot,
        now=lambda: hub.clock.now().timestamp(),
        lease=float(option(source, "poll_interval")) + float(option(source, "query_timeout")) + _LEASE_GRACE,
        event_limit=hub.settings.event_limit,
    )
    return poller, database.close


def make_lookups(hub: Hub) -> Lookups:
    """The lookups of one process; a connection is opened when a template needs one."""

    def connect(source: Source) -> MoodleRows:
        return MoodleRows(MoodleDatabase(source, hub.settings), option(source, "prefix"))

    return Lookups(hub.registry.sources.sources, connect)


def make_source_threads(hub: Hub) -> SourceThreads:
    """The threads of one process; nothing runs yet."""

    def make(source: Source, positions: SourcePositions) -> tuple[Poller, Callable[[], None]]:
        return make_poller(hub, source, positions)

    return SourceThreads(hub.registry.sources.sources, make, lambda source: positions_of(hub, source))
