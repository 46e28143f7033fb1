"""Reports security events: one structured log line and one count for each, without secrets."""

from __future__ import annotations

import structlog

from hub.hooks import Hooks
from hub.store.audit import actor

log = structlog.get_logger("hub.store.security_log")


class SecurityLog:
    """Reports log-ins and changes of users, links, sessions and tokens."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def happened(self, event: str, result: str, *, quiet: bool = False, **details: str | int | None) -> None:
        """Report one event.

        Args:
            event: login, link, user, session or token.
            result: such as ok, failed, locked, added: one that `metrics.AUTH` knows.
            quiet: count only; for events that anybody can cause at any rate.
            details: names for the log line; never secrets.
        """
        self._hooks.auth_event(event, result)
        if not quiet:
            who = actor()
            write = log.info if result not in ("failed", "locked", "refused") else log.warning
            write(
                "security event",
                action=event,
                result=result,
                actor=who.name,
                actor_kind=who.kind,
                origin=who.origin,
                **details,
            )
