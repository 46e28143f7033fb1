"""Services that behave as told, and write down what they saw: who came, when it began and ended, what was answered."""

from __future__ import annotations

import json
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.raw_server import RawServer

RESET = -1  # instead of a status: the connection is reset
NEVER = 0  # no answer, until the caller gives up


@dataclass(frozen=True)
class Plan:
    """What becomes of a request: a status (or RESET, NEVER) after `delay` seconds."""

    status: int
    delay: float = 0.0


@dataclass
class Sighting:
    """One request at a target. `end` is when the answer went out or the caller was gone; times are wall clock."""

    service: str
    key: str
    n: int
    start: float
    end: float = 0.0
    status: int | None = None

    @property
    def success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def row(self) -> dict[str, Any]:
        return asdict(self)


Behaviour = Callable[[random.Random], Plan]


class Target(RawServer):
    """An HTTP service on 127.0.0.1.

    Args:
        behave: decides what becomes of a request; its random numbers are this target's own.
    """

    def __init__(self, name: str, behave: Behaviour, *, seed: int) -> None:
        self.name = name
        self.behave = behave
        self.seen: list[Sighting] = []
        self._random = random.Random(f"{seed}/{name}")
        self._guard = threading.Lock()
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as file:
            while (request := self._read(file)) is not None:
                headers, body = request
                sighting = Sighting(self.name, headers.get("idempotency-key", ""), number(body), time.time())
                with self._guard:
                    self.seen.append(sighting)
                    plan = self.behave(self._random)
                if not self._act(sock, plan, sighting):
                    return

    def _act(self, sock: socket.socket, plan: Plan, sighting: Sighting) -> bool:
        """Whether the connection goes on."""
        try:
            if not self._stays(sock, 3600.0 if plan.status == NEVER else plan.delay):
                return False
            if plan.status == RESET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sighting.status = RESET
                return False
            sighting.status = plan.status
            length = b"" if plan.status == 204 else b"Content-Length: 0\r\n"
            sock.sendall(b"HTTP/1.1 %d Told\r\n%s\r\n" % (plan.status, length))
            return True
        finally:
            sighting.end = time.time()

    def _stays(self, sock: socket.socket, seconds: float) -> bool:
        """Wait; False when the caller went away meanwhile, or the target closes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.closing.is_set():
                return False
            readable, _, _ = select.select([sock], [], [], min(left, 0.5))
            if readable and not sock.recv(1, socket.MSG_PEEK):
                return False
        return True

    def _read(self, file: Any) -> tuple[dict[str, str], bytes] | None:
        if len(file.readline().split()) != 3:
            return None
        headers: dict[str, str] = {}
        while line := file.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = file.read(length)
        return (headers, body) if len(body) == length else None


def number(body: bytes) -> int:
    """The event's number, from a payload that is the event's data; -1: it has none."""
    try:
        return int(json.loads(body)["n"])
    except (ValueError, KeyError, TypeError):
        return -1


def well(r: random.Random) -> Plan:
    return Plan(204, r.uniform(0, 0.02))


def slowly(r: random.Random) -> Plan:
    return Plan(200, r.uniform(0.1, 0.6))


def badly(r: random.Random) -> Plan:
    dice = r.random()
    if dice < 0.2:
        return Plan(503, r.uniform(0, 0.05))
    if dice < 0.3:
        return Plan(RESET)
    if dice < 0.33:
        return Plan(NEVER)
    return Plan(204, r.uniform(0, 0.05))


def never(r: random.Random) -> Plan:
    return Plan(NEVER)


def refusing(r: random.Random) -> Plan:
    return Plan(400)


def broken(r: random.Random) -> Plan:
    return Plan(500)


class Tide:
    """Up for some seconds, then down for some: what opens and closes a circuit. `still()` leaves it up."""

    def __init__(self, up: float, down: float) -> None:
        self._up, self._down = up, down
        self._begin = time.time()
        self._still = threading.Event()
        self.falls: list[tuple[float, float]] = []  # when it was down

    def __call__(self, r: random.Random) -> Plan:
        if self.is_down(time.time()):
            return Plan(500, r.uniform(0.05, 0.2))
        return Plan(204, r.uniform(0, 0.05))

    def is_down(self, now: float) -> bool:
        if self._still.is_set():
            return False
        phase = (now - self._begin) % (self._up + self._down)
        if phase < self._up:
            return False
        begin = now - phase + self._up
        if not self.falls or begin - self.falls[-1][0] > 0.01:
            self.falls.append((begin, begin + self._down))
        return True

    def still(self) -> None:
        now = time.time()
        self.is_down(now)
        self._still.set()
        if self.falls and self.falls[-1][1] > now:
            self.falls[-1] = (self.falls[-1][0], now)
