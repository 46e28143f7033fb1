"""Hooks: how the path of an event reports what happened. `hub.monitoring.prometheus_hooks` implements them.

Durations are seconds. Every method returns nothing and must not raise.
"""

from __future__ import annotations


class Hooks:
    """Reports nothing. Base class of the hooks that count."""

    def event_accepted(self, result: str, count: int = 1) -> None:
        """`result` is accepted, duplicate or unmatched."""

    def attempt_finished(self, service: str, outcome: str, seconds: float) -> None:
        """An attempt ran to its end; outcome is success or an error's `outcome`."""

    def try_finished(self, service: str, outcome: str) -> None:
        """One network send ended."""

    def queue_wait(self, service: str, seconds: float) -> None:
        """A task was claimed so long after it was due."""

    def retry_scheduled(self, service: str) -> None:
        """Attempts 1 to 4 failed; another one follows."""

    def task_finished(self, service: str, outcome: str, seconds: float | None = None, count: int = 1) -> None:
        """delivered (with accepted-to-delivered seconds), dead or cancelled."""

    def dead_letter(self, service: str, reason: str) -> None:
        """attempts, expired or worker_lost."""

    def dead_letter_replayed(self, service: str, count: int = 1) -> None:
        """A person replayed dead letters."""

    def worker_threads(self, busy: int, threads: int) -> None:
        """How many of the worker threads of this process run a task now."""

    def breaker_changed(self, service: str, from_state: str, to_state: str) -> None:
        """A circuit changed."""

    def parked(self, service: str) -> None:
        """A task met an open circuit and was given back."""

    def locked_out(self, service: str) -> None:
        """A task was given back because no key opens its service's secrets."""

    def consumer_run(self, service: str, outcome: str, seconds: float) -> None:
        """One run over one response queue: ok, error or skipped."""

    def consumer_messages(self, service: str, outcome: str, count: int) -> None:
        """Messages taken from a response queue: stored or malformed."""

    def auth_event(self, event: str, result: str) -> None:
        """A log-in, or a change of a user, link, session or token; `metrics.AUTH` names both."""

    def message_rejected(self, queue: str, reason: str) -> None:
        """A message in a queue of the hub (dispatch, consume or tick) was not made by the hub."""

    def pool(self, process: str, used: int, maximum: int) -> None:
        """Database connections in use and allowed in this process."""

    def known_services(self, names: list[str]) -> None:
        """Services that exist, so that their series start at 0."""
