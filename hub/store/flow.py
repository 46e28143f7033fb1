"""How much of a service may be under way: rate limits, and what the releaser needs to hand over fairly."""

from __future__ import annotations

from hub.errors import RateLimitedError
from hub.models import Service
from hub.store.database import Database

# GCRA: `next_slot` is when the next send would be exactly on the limit; up to a second's worth may burst.
_TAKE = """
UPDATE service_flow SET next_slot = greatest(next_slot, clock_timestamp()) + make_interval(secs => 1 / %(rate)s)
WHERE service_id = %(service)s
  AND greatest(next_slot, clock_timestamp()) <= clock_timestamp() + make_interval(secs => 1 - 1 / greatest(%(rate)s, 1))
"""
_WAIT = """
SELECT extract(epoch FROM next_slot - clock_timestamp())::float8 AS wait FROM service_flow WHERE service_id = %s
"""


class Flow:
    """Rate limits and bounce counts, one row per service."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take_slot(self, service: Service) -> None:
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

    def bounced(self, service_id: int, count: int) -> None:
        """Tasks found their service's share of a worker taken."""
        self._db.run("UPDATE service_flow SET bounced = bounced + %s WHERE service_id = %s", [count, service_id])
