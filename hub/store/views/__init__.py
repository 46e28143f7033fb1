"""Rows as people read them: listings, single rows, counts. Nothing here writes.

Listings are newest first and page by id (`before`), so page 1,000 costs what page 1 costs. Rows are dictionaries with
the fields that the CLI and the API print.
"""

from __future__ import annotations

from hub.store.database import Database
from hub.store.views.dead_letters import DeadLetterViews
from hub.store.views.deliveries import DeliveryViews
from hub.store.views.event_log import EventLog
from hub.store.views.event_search import EventSearch
from hub.store.views.event_story import EventStories
from hub.store.views.events import EventViews
from hub.store.views.masks import RowMasks
from hub.store.views.origins import OriginViews
from hub.store.views.overview import Overview
from hub.store.views.runs import RunViews
from hub.store.views.tasks import TaskViews
from hub.store.views.waits import Waits

__all__ = ["Views"]


class Views:
    """The readers of one database, one for each kind of row.

    Args:
        max_attempts, queue_limit, park: as `Waits` has them.
    """

    def __init__(self, db: Database, *, max_attempts: int = 5, queue_limit: int = 1000, park: bool = True) -> None:
        masks = RowMasks(db)
        self.tasks = TaskViews(db, masks, Waits(db, max_attempts=max_attempts, queue_limit=queue_limit, park=park))
        self.dead_letters = DeadLetterViews(db, masks)
        self.deliveries = DeliveryViews(db, masks)
        self.runs = RunViews(db, self.deliveries)
        self.events = EventViews(db, masks)
        self.event_log = EventLog(db, masks)
        self.event_search = EventSearch(db, self.event_log, masks)
        self.stories = EventStories(db, masks, self.event_log, self.tasks, self.deliveries, self.dead_letters)
        self.origins = OriginViews(db, masks)
        self.overview = Overview(db, self.tasks, self.dead_letters)
