"""A raw loop: only the request. `python -m tests.bench.raw LIBRARY URL SECONDS THREADS` prints requests per second."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

import requests
import urllib3

from tests.bench.job import event

_HEADERS = {"Content-Type": "application/json"}


def sender(library: str, url: str) -> Callable[[int], None]:
    """A function that posts event `number`; one per thread."""
    if library == "requests":
        session = requests.Session()

        def post(number: int) -> None:
            session.post(url, data=json.dumps(event(number)), headers=_HEADERS, timeout=5)
    else:
        pool = urllib3.PoolManager(maxsize=1)

        def post(number: int) -> None:
            pool.request("POST", url, body=json.dumps(event(number)), headers=_HEADERS, timeout=5)

    return post


def main(library: str, url: str, seconds: float, threads: int) -> None:
    counts = [0] * threads
    until = time.monotonic() + seconds

    def loop(place: int) -> None:
        post = sender(library, url)
        while time.monotonic() < until:
            post(counts[place])
            counts[place] += 1

    running = [threading.Thread(target=loop, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(sum(counts) / seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
