"""An event source in a process of its own: emits numbered events, and writes down what it was told about each.

    python -m tests.faults.producer RUN SEED FROM RATE FILE WEB TOKEN

Half of the calls go to the intake in this process, half over HTTP to the web server at WEB. Numbers go up by
one; each event's number is its sender's id, so a source that was killed and begins again with the first
unanswered number repeats, and must not be taken twice. Lines of FILE are JSON:
`{"t", "n": [...], "result": "accepted" | "failed" | "given_up" | "refused"}`. Ends on SIGTERM after the call under way.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

import httpx

from hub.app.lifecycle import build
from hub.errors import HubError, UnavailableError
from hub.models import Event
from hub.programs.log_setup import configure_logging
from hub.programs.supervisor import die_with_parent, stop_signals
from hub.settings import load_settings
from tests.faults.plan import data, event_name
from tests.support import clients


def over_http(client: clients.Client, events: list[Event]) -> None:
    """As `handle_events`, over the API; raises `UnavailableError` for what is worth a second try."""
    body = [{"name": event.name, "data": event.data, "id": event.key} for event in events]
    try:
        status = client.post("/api/v1/events", json=body).status_code
    except httpx.HTTPError as e:
        raise UnavailableError(type(e).__name__) from None
    if status == 429 or status >= 500:
        raise UnavailableError(str(status))
    if status != 202:
        raise ValueError(f"the API refuses good events: {status}")


def main(run: str, seed: int, begin: int, rate: float, path: str, web: str, token: str) -> None:
    die_with_parent()
    settings = load_settings()
    configure_logging(settings)
    dice = random.Random(f"{seed}/producer/{begin}")
    n = begin
    headers = {"Authorization": f"Bearer {token}"}
    with (
        stop_signals() as stop,
        build(settings, role="web") as hub,
        open(path, "a", buffering=1) as file,
        clients.Client(base_url=web, headers=headers) as client,
    ):
        ways: list[Callable[[list[Event]], object]] = [hub.intake.handle_events, lambda e: over_http(client, e)]

        def note(numbers: list[int], result: str) -> None:
            file.write(json.dumps({"t": time.time(), "n": numbers, "result": result}) + "\n")

        hub.configuration.listen()
        while not stop.is_set():
            numbers = list(range(n, n + (1 if dice.random() < 0.7 else dice.randint(2, 12))))
            events = [Event(event_name(seed, i), data(i), f"{run}-{i}") for i in numbers]
            try:
                dice.choice(ways)(events)
                note(numbers, "accepted")
            except ValueError:
                note(numbers, "refused")
                raise
            except HubError:
                if dice.random() < 0.8:
                    note(numbers, "failed")
                    stop.wait(0.2)
                    continue
                note(numbers, "given_up")  # it may have been taken all the same
            n = numbers[-1] + 1
            stop.wait(len(numbers) / rate)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:8])
    except UnavailableError as e:
        sys.exit(f"not started: {e}")  # it is started again
