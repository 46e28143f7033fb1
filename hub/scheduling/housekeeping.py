"""The scheduled task `housekeeping_task`: deletes expired rows in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from hub.errors import HubError
from hub.store.housekeeping import Housekeeping
from hub.store.run_log import RunLog
from hub.store.schedules import HOUSEKEEPING, Schedules

log = structlog.get_logger("hub.scheduling.housekeeping")
_RUN_TIME = 300.0  # seconds; the next run deletes the rest


class HousekeepingTask:
    """Runs housekeeping.

    Args:
        retention: seconds that deliveries and run logs are kept.
        event_retention: seconds that events are kept; None: as long as deliveries.
        audit_retention: seconds that the audit trail is kept.
        now: reads the deployment's clock; timezone-aware.
        stopping: whether the process is stopping; a run then ends after its current batch.
    """

    def __init__(
        self,
        store: Housekeeping,
        runs: RunLog,
        schedules: Schedules,
        *,
        retention: float,
        event_retention: float | None = None,
        audit_retention: float = 365 * 86400.0,
        now: Callable[[], datetime],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._runs = runs
        self._schedules = schedules
        self._retention = timedelta(seconds=retention)
        self._event_retention = timedelta(seconds=event_retention or retention)
        self._audit_retention = timedelta(seconds=audit_retention)
        self._now = now
        self._stopping = stopping

    def run(self, seconds: float = _RUN_TIME) -> dict[str, int] | None:
        """One run of at most about `seconds`: the number of deleted rows by table; None: another run is in progress.

        Raises:
            HubError: the database is away; batches deleted before stay deleted.
        """
        end = time.monotonic() + seconds
        with self._store.alone() as alone:
            run = self._runs.start(HOUSEKEEPING, alone=alone)
            if not alone:
                self._runs.finish(run, "skipped", summary="another run is in progress")
                self._schedules.finished(HOUSEKEEPING, "skipped")
                return None
            try:
                self._store.lose_runs()
                now = self._now()
                gone = self._store.purge(
                    now - self._retention,
                    lambda: time.monotonic() < end and not self._stopping(),
                    events=now - self._event_retention,
                    audit=now - self._audit_retention,
                )
            except HubError as e:
                self._runs.finish(run, "error", error=str(e))
                self._schedules.finished(HOUSEKEEPING, "error")
                raise
            summary = ", ".join(f"{count} {table}" for table, count in gone.items()) or "nothing to do"
            self._runs.finish(run, "ok", summary=summary)
            self._schedules.finished(HOUSEKEEPING, "ok")
            log.info("housekeeping done", **gone)
            return gone
