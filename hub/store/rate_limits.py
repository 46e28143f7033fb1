"""Rate limits of services, one row each, shared by all processes."""

from __future__ import annotations

from hub.errors import RateLimitedError
from hub.models import Service
from hub.store.database import Database

# GCRA: `next_slot` is when the next send would be exactly on the limit. After a pause `rate` sends may go
# at once and then one every 1 / `rate` seconds: at most 2 x rate - 1 in any one second.
_TAKE = """
UPDATE service_flow SET next_slot = greatest(next_slot, clock_timestamp()) + make_interval(secs => 1 / %(rate)s)
WHERE service_id = %(service)s
  AND greatest(next_slot, clock_timestamp()) <= clock_timestamp() + make_interval(secs => 1 - 1 / greatest(%(rate)s, 1))
"""
_WAIT = """
SELECT extract(epoch FROM next_slot - clock_timestamp())::float8 AS wait FROM service_flow WHERE service_id = %s
"""


class RateLimits:
    """Counts attempts against `rate_limit`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def acquire(self, service: Service) -> None:
        """Count one attempt against the service's `rate_limit`.

        Raises:
            RateLimitedError: none is free; nothing was counted.
        """
        rate = service.options.get("rate_limit")
        if not rate:
            return
        if not self._db.run(_TAKE, {"rate": float(rate), "service": service.id}):
            row = self._db.one(_WAIT, [service.id])
            wait = max(1.0 / rate, float(row["wait"]) if row else 0.0)
            raise RateLimitedError(f"{service.name} takes {rate:g} requests/s at most", retry_after=min(wait, 60.0))
