"""`/readyz`, `hub stats` and the metrics of the alerts report the same faults, on real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from hub.app.lifecycle import Hub, build
from hub.monitoring.exposition import make_scraper
from hub.settings import Settings
from hub.tasks.broker import HubBroker
from tests.monitoring.conftest import Samples, of, parse
from tests.monitoring.story import Deployment, deployment
from tests.support import clocks
from tests.support.api import Api, serving
from tests.support.site import Site
from tests.support.waiting import eventually

FINE = dict.fromkeys(("database", "broker", "worker", "scheduler", "relay", "clock"), "ok")


@pytest.fixture
def it(settings: Settings, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of which nothing runs yet."""
    with deployment(settings.model_copy(update={"listen": "127.0.0.1:0"}), tmp_path) as it:
        yield it


@pytest.fixture
def api(it: Deployment) -> Iterator[Api]:
    """A web process, in this one."""
    with build(it.site.settings, role="web") as hub, serving(hub) as api:
        yield api


def ready(api: Api) -> tuple[int, dict[str, Any]]:
    """Status and checks of `/readyz`."""
    answer = api.client(None).get("/readyz")
    body = answer.json()
    assert body.pop("ready") is (answer.status_code == 200)
    return answer.status_code, body


def health(site: Site) -> dict[str, str]:
    """The checks of `hub stats` in a process of its own."""
    return {row["check"]: row["text"] for row in json.loads(site.run("stats", "--json"))["health"]}


def metrics(hub: Hub) -> Samples:
    """What an exporter of this hub shows."""
    scraper = make_scraper(hub.settings, hub.db, hub.queues.values())
    try:
        return parse(scraper.render())
    finally:
        scraper.close()


def test_processes_that_are_missing_are_named_until_they_run(it: Deployment, api: Api) -> None:
    """No worker, no tick, no leading relay; events are accepted all the same."""
    status, words = ready(api)
    assert (status, words) == (200, FINE | {"worker": "none", "scheduler": "none", "relay": "none"})
    told = health(it.site)
    assert told["worker"].startswith("no worker has sent a heartbeat") and told["scheduler"].startswith("no tick")
    assert told["relay"].startswith("no outbox relay leads") and told["database"] == told["broker"] == "ok"
    assert "no worker" in it.site.run("stats"), "people see it too"
    it.site.start("worker", "--processes", "1", "--threads", "2")
    it.tick()
    eventually(lambda: ready(api) == (200, FINE), what="every check of /readyz")
    assert health(it.site) == FINE
    shown = metrics(api.hub)
    assert (of(shown, "hub_queue_consumers", queue=f"{it.site.settings.queue_prefix}.dispatch") or 0) >= 1
    assert {"worker", "releaser", "scheduler"} <= {
        dict(labels)["component"] for name, labels in shown if name == "hub_heartbeat_timestamp_seconds"
    }
    assert it.site.stop("worker") == 0
    eventually(lambda: ready(api)[1] == FINE | {"worker": "none", "relay": "none"}, what="the end of the worker")
    assert health(it.site)["worker"].startswith("no worker has sent a heartbeat")


def test_a_worker_that_consumes_nothing_is_no_worker(it: Deployment, api: Api) -> None:
    """Its heartbeats go on: the queue's consumers say that nothing is delivered, as the alert does."""
    assert isinstance(api.hub.broker, HubBroker)
    api.hub.broker.declare_queue(api.hub.queues["dispatch"], ensure=True)
    api.hub.heartbeats.beat("worker")
    assert ready(api)[1]["worker"] == "none"
    assert health(it.site)["worker"].startswith("no worker consumes the dispatch queue")
    assert of(metrics(api.hub), "hub_queue_consumers", queue=api.hub.queues["dispatch"]) == 0


def test_a_database_that_can_only_be_read_is_not_ready(it: Deployment) -> None:
    """As with a full disk or a standby: reading works, and accepting an event would fail."""
    assert it.site.settings.database_url
    url = it.site.settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as conn:
        name = str(conninfo_to_dict(url)["dbname"])
        conn.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))
    with build(it.site.settings, role="web") as hub, serving(hub) as api:
        status, words = ready(api)
        assert status == 503 and words["database"] == "away" and words["worker"] == "none"
        assert api.client(None).get("/readyz").headers["retry-after"] == "5"
        shown = metrics(hub)
        assert of(shown, "hub_ledger_writable") == 0 and of(shown, "hub_exporter_collector_up", collector="ledger") == 1
    assert health(it.site)["database"].startswith("the database accepts no writes")


def test_the_probe_leaves_nothing_behind(it: Deployment, api: Api) -> None:
    """A probe is no component."""
    assert of(metrics(api.hub), "hub_ledger_writable") == 1
    ready(api)
    assert "probe" not in {row["component"] for row in json.loads(it.site.run("stats", "--json"))["heartbeats"]}


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [45, -45])
def test_a_clock_that_is_off_is_named_with_its_side(it: Deployment, api: Api, tmp_path: Path, seconds: int) -> None:
    """A worker on a machine whose clock is wrong, and a command on such a machine."""
    clocks.needed()
    clock = clocks.WallClock(tmp_path / "clock")
    clock.move(seconds)
    right = dict(it.site.env)
    it.site.env |= clock.environment
    side = "ahead of" if seconds > 0 else "behind"
    assert health(it.site)["clock"] == f"the clock of this machine is 45 s {side} the database's"
    it.site.start("worker", "--processes", "1", "--threads", "2")
    eventually(lambda: ready(api)[1]["clock"] == "off", what="a heartbeat with the offset")
    it.site.env = right
    assert health(it.site)["clock"] == f"the clock of the machine of a worker is 45 s {side} the database's"
    offset = of(metrics(api.hub), "hub_clock_offset_seconds", component="worker")
    assert offset is not None and abs(offset - seconds) < 5
