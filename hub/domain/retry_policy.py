"""The network tries within one attempt, seconds apart. Pure but for what it is given."""

from __future__ import annotations

from collections.abc import Callable

from hub.errors import DeliveryError, NotSentError
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
    """Send until it works, at most `tries` times. Returns the response and the number of sends made.

    Args:
        send: one network send; gets the number of the try, from 1.
        tries: how often to send, the first included; less than 1 means 1.
        backoff: seconds before the second try; doubles with each further one, at most `cap`.
        on_try: called after each send that was made, with its number and its error or None.

    Raises:
        DeliveryError: what the last try raised, with `.tries` set to the number of sends; an error that is not
            `.retriable` ends the tries. Caused by a `NotSentError` when an internal error ended them.
        NotSentError: from `send`, when no try was made before.
    """
    number, sends, delay = 1, 0, min(backoff, cap)
    last: DeliveryError | None = None
    while True:
        try:
            response = send(number)
        except NotSentError as e:
            if last is None:
                raise
            raise last from e
        except DeliveryError as e:
            if e.sent:
                sends += 1
                on_try(sends, e)
                last = e
            e.tries = sends
            if number >= tries or not e.retriable:
                raise
        else:
            on_try(sends + 1, None)
            return response, sends + 1
        if delay > 0:
            sleep(delay)
        number, delay = number + 1, min(delay * 2, cap)
