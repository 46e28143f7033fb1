"""Runs backfills in the background: every worker process has a thread for it, and a row lock keeps two apart.

A backfill makes a rule's tasks for past events, at its rate, and no more than can wait in the bulk lane. Whoever
started it may be gone: its row is all there is of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from hub.codec import loads
from hub.domain import rules
from hub.errors import HubError, PayloadError, UnavailableError
from hub.models import Event, Rule
from hub.store.backfill_steps import BackfillSteps, Matcher, Scope
from hub.store.database import Row

log = structlog.get_logger("hub.scheduling.backfill")
_IDLE, _BUSY = 1.0, 0.05  # seconds between two rounds


def scope_of(rule: Rule, since: datetime, until: datetime) -> Scope:
    """The events that a backfill of a rule looks at."""
    return Scope(rule.id, since, until, _names(rule.event), bool(rule.conditions))


def matcher(rule: Rule) -> Matcher:
    """Whether a stored event matches the rule; one whose data cannot be read does not."""

    def matches(row: Row) -> bool:
        try:
            return rules.matches(rule, Event(row["name"], {} if row["data"] is None else loads(row["data"])))
        except PayloadError:
            return False

    return matches


def _names(pattern: str) -> Sequence[str] | None:
    """Event names that the pattern of a rule stands for, with and without the leading backslash; None: any may fit."""
    if "*" in pattern:
        return None
    bare = pattern.removeprefix("\\")
    return [bare, f"\\{bare}"]


class BackfillRunner:
    """Makes the tasks of running backfills.

    Args:
        rule_by_id: the configuration of this process; None: no such rule is known (yet).
    """

    def __init__(self, steps: BackfillSteps, rule_by_id: Callable[[int], Rule | None]) -> None:
        self._steps = steps
        self._rule_by_id = rule_by_id
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="hub-backfill", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = _IDLE
            try:
                if self.round():
                    pause = _BUSY
            except UnavailableError as e:
                log.warning("backfills wait", error=str(e))
            except Exception:
                log.exception("a step of a backfill failed; it is tried again")
            self._stop.wait(pause)

    def round(self) -> bool:
        """One step of every running backfill. True: some are running and move."""
        moved = False
        for backfill_id in self._steps.running():
            moved = self._steps.step(backfill_id, self._scope) or moved
        return moved

    def _scope(self, row: Row) -> tuple[Scope, Matcher] | None:
        try:
            rule = self._rule_by_id(row["rule_id"])
        except HubError as e:
            log.warning("configuration not read", error=str(e), backfill=row["id"])
            return None
        return None if rule is None else (scope_of(rule, row["since"], row["until"]), matcher(rule))
