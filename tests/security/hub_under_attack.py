"""A hub of real processes with 512 MB and 1,024 file descriptors each, to be attacked.

A watcher ends a process whose resident memory passes the limit, as a container's memory limit does. It works for every
user, and counts what a limit on address space would not: memory that is used, not reserved.
"""

from __future__ import annotations

import base64
import json
import resource
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from hub.app.lifecycle import Hub, build
from hub.programs.supervisor import die_with_parent
from hub.settings import Settings
from hub.transports.signing import Signer
from tests.support import clients
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service
from tests.support.processes import below
from tests.support.rabbit import free_ports
from tests.support.waiting import eventually
from tests.support.workers import environment

MEMORY = 512 * 1024 * 1024
DESCRIPTORS = 1024
PATIENCE = 60.0  # seconds that a response may take: the machine may be busy, the attack goes on all the while
INBOUND = "inbound-token-1"
SIGNING = "whsec_" + base64.b64encode(b"a secret of 24 bytes and more").decode()
_WEB = [sys.executable, "-c", "from hub.cli import main; main()", "web"]
_WORKER = [
    sys.executable,
    "-m",
    "dramatiq",
    "--processes",
    "1",
    "--threads",
    "4",
    "--skip-logging",
    "hub.worker:broker",
]


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    die_with_parent()


def _memory(pid: int, what: str) -> int:
    """Resident bytes of a process; `VmRSS` now, `VmHWM` at most so far. 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), 0)


class UnderAttack:
    """Web and worker processes, a service `crm` that is reached at `target`, a rule for the event `e`."""

    def __init__(self, hub: Hub, url: str, target: HttpTarget, processes: list[subprocess.Popen[bytes]]) -> None:
        self.hub = hub
        self.url = url
        self.target = target
        self._processes = processes
        self._token = hub.accounts.tokens.add("source", "ingest")[1]
        self._sent = 0

    def get(self, path: str) -> int:
        """The status of a GET by somebody else."""
        return clients.get(self.url + path).status_code

    def post(self, path: str, value: Any, **headers: str) -> int:
        """The status of a POST by somebody else, from another address than the attack."""
        headers["X-Forwarded-For"] = "198.51.100.7"
        return clients.post(self.url + path, json=value, headers=headers).status_code

    def signed(self) -> int:
        """The status of a signed webhook call from the address that the attack comes from."""
        body = json.dumps({"n": self._sent})
        headers = Signer({"signing_secret": SIGNING}).headers(f"call-{uuid.uuid4()}", body)
        headers["Content-Type"] = "application/json"
        return clients.post(self.url + "/webhook/signed", content=body, headers=headers).status_code

    def goes_on(self) -> None:
        """Health is reported, webhooks and events are taken, deliveries arrive, memory stays below the limit."""
        assert self.get("/healthz") == 200
        assert self.get("/readyz") == 200
        assert self.get("/metrics") == 200
        assert self.post("/webhook/crm", {"n": 1}, Authorization=f"Bearer {INBOUND}") == 202
        assert self.signed() == 202
        self._sent += 1
        event = {"name": "e", "data": {"probe": self._sent}}
        assert self.post("/api/v1/events", event, Authorization=f"Bearer {self._token}") == 202
        moodle = {"eventname": "e", "token": self._token, "other": self._sent}
        assert self.post("/api/v1/events", moodle) == 202
        eventually(self._arrived, "the delivery")
        self.stays_small()

    def _arrived(self) -> bool:
        ending = (f'"probe":{self._sent}' + "}").encode()
        return any(ending in seen.body for seen in list(self.target.seen))

    def stays_small(self) -> None:
        """No process has ended or ever held more than the limit."""
        for process in self._processes:
            assert process.poll() is None, f"{process.args!r} has ended"
            for pid in (process.pid, *below(process.pid)):
                assert _memory(pid, "VmHWM") < MEMORY


def _watch(processes: list[subprocess.Popen[bytes]], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        for process in processes:
            pids = (process.pid, *below(process.pid)) if process.poll() is None else ()
            if any(_memory(pid, "VmRSS") > MEMORY for pid in pids):
                process.send_signal(signal.SIGKILL)


def _start(command: list[str], settings: Settings, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=environment(settings), stdout=output, stderr=output, preexec_fn=_limited, start_new_session=True
    )


@contextmanager
def under_attack(settings: Settings, folder: Path) -> Iterator[UnderAttack]:
    """Start a hub; when this is left its processes have ended."""
    [port] = free_ports(1)
    # A header and a body may take as long as an attack does: what is tested is not how soon a time-out frees a place.
    changes = {"listen": f"127.0.0.1:{port}", "header_timeout": 300.0, "body_timeout": 300.0}
    settings = Settings(**{name: getattr(settings, name) for name in settings.model_fields_set} | changes)
    stop = threading.Event()
    with ExitStack() as stack:
        target = stack.enter_context(HttpTarget())
        hub = stack.enter_context(build(settings, role="cli"))
        add_service(hub, target.url, inbound={"token": INBOUND})
        add_service(hub, target.url, "signed", inbound={"signing_secret": SIGNING})
        add_rule(hub)
        output = stack.enter_context((folder / "output").open("wb"))
        processes = [_start(command, settings, output) for command in (_WEB, _WORKER)]
        watcher = threading.Thread(target=_watch, args=(processes, stop))
        watcher.start()
        try:
            running = UnderAttack(hub, f"http://127.0.0.1:{port}", target, processes)
            eventually(lambda: _answers(running), "the start")
            yield running
        finally:
            stop.set()
            watcher.join()
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(120)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _answers(running: UnderAttack) -> bool:
    try:
        return running.get("/healthz") == 200
    except httpx.HTTPError:
        running.stays_small()
        return False
