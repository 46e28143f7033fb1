"""Which rows of a Moodle log are read and which are written, by the names of their events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hub.config.sources import option
from hub.domain import rules
from hub.models import Event, Rule, Source
from hub.store.configuration import Snapshot


class EventNames:
    """The source's own filter, and the names that a rule wants. Decides each name once per configuration.

    Args:
        snapshot: gives the rules.
    """

    def __init__(self, source: Source, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._keeps_all = bool(option(source, "keep_unmatched"))
        self._patterns = [Rule(0, "", pattern, 0, "") for pattern in option(source, "events")]
        self._rules: Snapshot | None = None
        self._wanted: dict[str, bool] = {}
        self._read: dict[str, bool] = {}

    def refresh(self) -> None:
        """Take the rules as they are now."""
        snapshot = self._snapshot()
        if snapshot is not self._rules:
            self._rules = snapshot
            self._wanted = {}

    def is_wanted(self, name: str) -> bool:
        """Whether a row with this name is written: a rule's event fits it (conditions are for intake), or all are."""
        if name not in self._wanted:
            event = Event(name, {})
            known = self._rules.rules if self._rules else ()
            fits = any(rules.matches(replace(rule, conditions=None), event) for rule in known)
            self._wanted[name] = fits or self._keeps_all
        return self._wanted[name]

    def is_read(self, name: str) -> bool:
        """Whether the source's own filter lets the name pass."""
        if name not in self._read:
            self._read[name] = any(rules.matches(pattern, Event(name, {})) for pattern in self._patterns)
        return self._read[name]
