"""Stage 8: the network tries within one attempt, seconds apart. Pure but for what it is given."""

from __future__ import annotations

from collections.abc import Callable

from hub.errors import DeliveryError
from hub.models import Response


def longest_run(*, tries: int, timeout: float, backoff: float, cap: float = 60.0) -> float:
    """Seconds that `run_tries` may take at most, when no try takes longer than `timeout`."""
    waits, delay = 0.0, min(backoff, cap)
    for _ in range(tries - 1):
        waits, delay = waits + delay, min(delay * 2, cap)
    return timeout * max(1, tries) + waits


def run_tries(
    send: Callable[[int], Response],
    *,
    tries: int,
    backoff: float,
    cap: float = 60.0,
    sleep: Callable[[float], None],
    on_try: Callable[[int, DeliveryError | None], None],
) -> tuple[Response, int]:
    """Send until it works, at most `tries` times; returns the answer and the number of tries made.

    Args:
        send: one network send; gets the number of the try, from 1.
        tries: how often to send, the first included; less than 1 means 1.
        backoff: seconds before the second try; doubles with each further one, at most `cap`.
        on_try: told after each try its number, and its error or None.

    Raises:
        DeliveryError: what the last try raised, with `.tries` set; one that is not `.retriable` ends them.
    """
    number, delay = 1, min(backoff, cap)
    while True:
        try:
            response = send(number)
        except DeliveryError as e:
            e.tries = number
            on_try(number, e)
            if number >= tries or not e.retriable:
                raise
        else:
            on_try(number, None)
            return response, number
        if delay > 0:
            sleep(delay)
        number, delay = number + 1, min(delay * 2, cap)
