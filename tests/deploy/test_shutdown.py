"""SIGTERM to a real `hub worker`: what is under way is finished, what only waited is handed back, within a bound."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hub.app.lifecycle import build
from hub.programs import up as running
from hub.settings import Settings
from hub.store.ledger import FLUSH_SECONDS
from tests.deploy.files import DEPLOY, documents
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, count, counts_are_exact, emit_many
from tests.support.site import Site
from tests.support.waiting import eventually

WORDS = ("worker", "--processes", "2", "--threads", "5")


def healthy(children: int) -> bool:
    """What the container's health check says of exactly this `hub worker`."""
    command = [sys.executable, str(DEPLOY / "healthcheck.py"), "processes", f"hub {' '.join(WORDS)}", str(children)]
    return subprocess.run(command, check=False, timeout=120).returncode == 0


def test_workers_finish_or_hand_back_every_task(settings: Settings, tmp_path: Path) -> None:
    """No attempt is cut off, none is repeated, none is lost; nobody has to wait for a lease to run out."""
    settings = settings.model_copy(update={"worker_lease": 300})
    with Site(settings, tmp_path) as site, HttpTarget() as target, build(site.settings, role="web") as hub:
        add_service(hub, target.url, timeout=30)
        add_rule(hub)
        target.default = Reply(204, delay=1.0)
        site.start(*WORDS)
        eventually(lambda: len(hub.db.all("SELECT 1 FROM workers")) == 2, "two workers")
        alive = {"worker": 2, "releaser": 1}
        eventually(
            lambda: (
                {r["component"]: r["alive"] for r in json.loads(site.run("stats", "--json"))["heartbeats"]} == alive
            ),
            "two workers and the relay in `hub stats`",
        )
        assert healthy(2) and not healthy(3), "the processes are children of `hub worker`"
        emit_many(hub, 60)
        eventually(lambda: len(target.seen) >= 6, what="some attempts")
        assert site.stop("worker", seconds=running._GRACE) == 0, site.output("worker")
        assert not healthy(1)
        assert json.loads(site.run("stats", "--json"))["heartbeats"] == [], "it stopped in order, so it is not listed"
        begun = len(target.seen)
        assert hub.db.all("SELECT 1 FROM workers") == [] and count(hub, "running") == 0
        assert 6 <= begun < 60 and count(hub, "delivered") == begun and count(hub, "tasks") == 60 - begun
        assert hub.db.all("SELECT 1 FROM tasks WHERE attempts > 0") == [], "what was handed back cost no attempt"
        assert counts_are_exact(hub)
        target.default = 204
        site.start(*WORDS)
        eventually(lambda: count(hub, "tasks") == 0, what="the rest")
        assert site.stop("worker") == 0
        times = Counter(seen.json()["n"] for seen in target.seen)
        assert times == dict.fromkeys(range(60), 1)
        assert "Traceback" not in site.output("worker")


def seconds(text: object) -> int:
    """`90s`, or 90."""
    return int(str(text).removesuffix("s"))


@pytest.mark.parametrize("where", ["compose", "systemd", "kubernetes"])
def test_nobody_is_killed_before_the_hub_gives_up_waiting(where: str) -> None:
    """Attempts have a minute, the processes a little more; whoever waits outside waits longer."""
    assert running._SHUTDOWN_MS / 1000 + FLUSH_SECONDS < running._GRACE
    if where == "compose":
        services: dict[str, Any] = documents(DEPLOY / "compose.yaml")[0]["services"]
        bound = seconds(services["worker"]["stop_grace_period"])
    elif where == "systemd":
        found = re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "systemd" / "hub-worker@.service").read_text(), re.M)
        assert found
        bound = int(found[1])
    else:
        deployment = documents(DEPLOY / "kubernetes" / "worker.yaml")[0]
        bound = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert bound > running._GRACE
