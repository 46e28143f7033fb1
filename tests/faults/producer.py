"""An event source in a process of its own: emits numbered events, and writes down what it was told about each.

    python -m tests.faults.producer RUN SEED FROM RATE FILE

Numbers go up by one; each event's number is its sender's id, so a source that was killed and begins again
with the first unanswered number repeats, and must not be taken twice. Lines of FILE are JSON:
`{"t", "n": [...], "result": "accepted" | "failed" | "given_up"}`. Ends on SIGTERM after the call under way.
"""

from __future__ import annotations

import json
import random
import sys
import time

from hub.app import build
from hub.errors import HubError
from hub.logs import configure_logging
from hub.models import Event
from hub.processes import die_with_parent, stop_signals
from hub.settings import load_settings
from tests.faults.plan import event_name


def main(run: str, seed: int, begin: int, rate: float, path: str) -> None:
    die_with_parent()
    settings = load_settings()
    configure_logging(settings)
    dice = random.Random(f"{seed}/producer/{begin}")
    n = begin
    with stop_signals() as stop, build(settings, role="web") as hub, open(path, "a", buffering=1) as file:

        def note(numbers: list[int], result: str) -> None:
            file.write(json.dumps({"t": time.time(), "n": numbers, "result": result}) + "\n")

        hub.registry.listen()
        while not stop.is_set():
            numbers = list(range(n, n + (1 if dice.random() < 0.7 else dice.randint(2, 12))))
            events = [Event(event_name(seed, i), {"n": i}, f"{run}-{i}") for i in numbers]
            try:
                hub.observer.handle_events(events)
                note(numbers, "accepted")
            except HubError:
                if dice.random() < 0.8:
                    note(numbers, "failed")
                    stop.wait(0.2)
                    continue
                note(numbers, "given_up")  # it may have been taken all the same
            n = numbers[-1] + 1
            stop.wait(len(numbers) / rate)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
