"""From a target that stops to the message that somebody gets: the deployment's own configuration, real programs."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.app.lifecycle import build
from hub.programs.up import work
from hub.settings import Settings
from tests.monitoring.conftest import KEY, Samples, of, parse
from tests.monitoring.test_alerts import DEPLOY, ROUTES, RULES
from tests.monitoring.test_exporter import sources
from tests.support.api import serving
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, count, emit, emit_many
from tests.support.prometheus import Alertmanager, Prometheus, program
from tests.support.rabbit import free_ports
from tests.support.waiting import eventually

pytestmark = pytest.mark.monitoring


class Receiver:
    """A web server that keeps what it is told, by path."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((self.path, json.loads(body or b"{}")))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def alerts(self, path: str, name: str, status: str) -> list[dict[str, Any]]:
        """What arrived at a path about one alert."""
        return [
            alert
            for where, message in list(self.got)
            if where == path
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where alerts arrive."""
    server = Receiver()
    yield server
    server.close()


def routes(receiver: Receiver, group_wait: str) -> str:
    """Return the deployment's routes, with the receivers' addresses and with short intervals."""
    program("alertmanager")
    text = ROUTES.read_text().replace("http://alerts.example.org", f"http://127.0.0.1:{receiver.port}")
    text = re.sub(r"group_wait: \d+s", f"group_wait: {group_wait}", text)
    return re.sub(r"group_interval: \d+m", "group_interval: 1s", text)


@pytest.fixture
def alertmanager(receiver: Receiver) -> Iterator[Alertmanager]:
    """The deployment's routes and inhibition with short intervals."""
    server = Alertmanager(routes(receiver, "0s"))
    yield server
    server.close()


def prometheus_config(exporter: str, alertmanager: int) -> tuple[str, dict[str, str]]:
    """The deployment's configuration and rules, with the test's addresses, in seconds instead of minutes."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "hub"]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [exporter]
    fast = {f"rules/{p.name}": re.sub(r"for: \d+[mh]\n", "for: 2s\n", p.read_text()) for p in RULES.glob("*.yml")}
    return yaml.safe_dump(config), fast


def test_a_dead_target_rings_a_bell(
    database_url: str, tmp_path: Path, receiver: Receiver, alertmanager: Alertmanager
) -> None:
    """Event, worker, circuit, ledger, `/metrics` of `hub up`, Prometheus, Alertmanager, receiver: all real."""
    settings = Settings(
        database_url=database_url,
        home=tmp_path,
        secret_keys=KEY,
        listen="127.0.0.1:0",
        db_pool=6,
        retry_delays="0.2",
        max_attempts=100,
        threads=4,
    )
    (port,) = free_ports(1)
    target = HttpTarget(port=port)
    with build(settings, role="up") as hub, serving(hub) as api, work(hub, threads=4):
        add_service(hub, target.url, cb_failure_threshold=2, cb_cooldown=1.0)
        add_rule(hub)
        config, rules = prometheus_config(api.url.removeprefix("http://"), alertmanager.port)
        prometheus = Prometheus(config, rules)
        try:
            emit(hub)
            eventually(lambda: prometheus.query('hub_breaker_state{service="crm", state="closed"} == 1'), "a scrape")
            eventually(lambda: count(hub, "tasks") == 0, what="a delivery")
            target.close()
            emit_many(hub, 20, start=10)
            eventually(lambda: receiver.alerts("/chat", "HubBreakerOpen", "firing"), "the alert")
            alert = receiver.alerts("/chat", "HubBreakerOpen", "firing")[0]
            assert alert["labels"] == {"alertname": "HubBreakerOpen", "service": "crm", "severity": "warning"}
            assert alert["annotations"]["summary"] == "The circuit of crm is open"
            assert alert["annotations"]["runbook_url"] == "deploy/runbooks/HubBreakerOpen.md"
            assert alert["annotations"]["dashboard_url"].endswith("/d/hub-service?var-service=crm")
            eventually(lambda: receiver.alerts("/watchdog", "HubWatchdog", "firing"), what="the proof of life")
            assert not receiver.alerts("/pager", "HubBreakerOpen", "firing"), "nobody is woken for another's outage"
            target = HttpTarget(port=port)
            eventually(lambda: count(hub, "tasks") == 0, "every delivery")
            eventually(lambda: receiver.alerts("/chat", "HubBreakerOpen", "resolved"), "the all-clear")
            moved = prometheus.query('hub_breaker_transitions_total{service="crm"} > 0')
            ways = {(s["metric"]["from_state"], s["metric"]["to_state"]) for s in moved}
            assert ways >= {("closed", "open"), ("open", "half_open"), ("half_open", "closed")}
            hub_up_shows_itself(parse(api.client(None).get("/metrics").text))
        finally:
            target.close()
            prometheus.close()


def hub_up_shows_itself(shown: Samples) -> None:
    """One process serves what the exporter serves, of itself."""
    assert sources(shown) == {"ledger": 1, "processes": 1, "in_process": 1}
    assert of(shown, "hub_tasks_finished_total", service="crm", outcome="delivered") == 21
    assert of(shown, "hub_db_pool_max_connections", process="up") == 6
    assert of(shown, "hub_queue_depth", queue="hub.dispatch") == 0


def tell(alertmanager: Alertmanager, *alerts: dict[str, str]) -> None:
    """Post alerts as Prometheus does."""
    start = datetime.now(UTC).isoformat()
    body = json.dumps([{"labels": labels, "startsAt": start} for labels in alerts]).encode()
    request = urllib.request.Request(
        f"{alertmanager.url}/api/v2/alerts", body, headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=120).close()


def states(alertmanager: Alertmanager) -> dict[tuple[str, str], str]:
    """(alert, service) -> active or suppressed."""
    return {
        (a["labels"]["alertname"], a["labels"].get("service", "")): a["status"]["state"]
        for a in alertmanager.get("/api/v2/alerts")
    }


def test_a_cause_silences_what_follows_from_it_in_its_own_environment(alertmanager: Alertmanager) -> None:
    """Alerts of production name one cause; those of staging are not affected."""
    follow = ("HubNoWorkers", "HubConsumerStale", "HubTasksTooOld")
    labels = {"severity": "critical"}
    tell(
        alertmanager,
        {"alertname": "HubCollectorFailing", "collector": "rabbitmq", "environment": "production", **labels},
        *({"alertname": name, "environment": "production", **labels} for name in follow),
        {"alertname": "HubNoWorkers", "environment": "staging", **labels},
        {"alertname": "HubConsumerStale", "service": "crm", "environment": "staging", **labels},
        {"alertname": "HubDeadLettersArriving", "environment": "staging", **labels},
    )

    def active() -> set[tuple[str, str]]:
        found = alertmanager.get("/api/v2/alerts")
        names = [(a["labels"]["alertname"], a["labels"]["environment"], a["status"]["state"]) for a in found]
        return {(name, where) for name, where, state in names if state == "active"} if len(names) == 7 else set()

    expected = {
        ("HubCollectorFailing", "production"),
        ("HubNoWorkers", "staging"),
        ("HubDeadLettersArriving", "staging"),
    }
    eventually(lambda: active() == expected, what="the inhibition")


def test_alerts_of_200_services_are_one_message_for_each_environment(receiver: Receiver) -> None:
    """The receiver counts messages: one per alert and environment, with all services in it."""
    alertmanager = Alertmanager(routes(receiver, "1s"))
    try:
        labels = {"alertname": "HubBreakerOpen", "severity": "warning"}
        for environment in ("production", "staging"):
            tell(alertmanager, *({**labels, "environment": environment, "service": f"s{n}"} for n in range(200)))
        eventually(lambda: len(receiver.alerts("/chat", "HubBreakerOpen", "firing")) >= 400, "all alerts")
        messages = [message for path, message in receiver.got if path == "/chat"]
        assert [(m["groupLabels"]["environment"], len(m["alerts"])) for m in messages] == [
            ("production", 200),
            ("staging", 200),
        ]
    finally:
        alertmanager.close()


def test_one_exporter_that_cannot_read_a_source_silences_nothing(alertmanager: Alertmanager) -> None:
    """The other exporters still see that no worker runs."""
    tell(
        alertmanager,
        {"alertname": "HubCollectorInstanceFailing", "collector": "rabbitmq", "instance": "b", "severity": "warning"},
        {"alertname": "HubNoWorkers", "queue": "hub.dispatch", "severity": "critical"},
        {"alertname": "HubConsumerStale", "service": "crm", "severity": "critical"},
        {"alertname": "HubTasksTooOld", "service": "lms", "severity": "warning"},
    )
    expected = {
        ("HubCollectorInstanceFailing", ""): "active",
        ("HubNoWorkers", ""): "active",
        ("HubConsumerStale", "crm"): "suppressed",
        ("HubTasksTooOld", "lms"): "suppressed",
    }
    eventually(lambda: states(alertmanager) == expected, what="the inhibition")


def test_consequences_are_silent(alertmanager: Alertmanager, receiver: Receiver) -> None:
    """Messages about consequences would hide the one about the cause."""
    burn = "HubDeliveryErrorBudgetBurnFast"
    tell(
        alertmanager,
        {"alertname": "HubBreakerOpen", "service": "crm", "severity": "warning"},
        {"alertname": "HubTasksTooOld", "service": "crm", "severity": "warning"},
        {"alertname": burn, "service": "crm", "severity": "critical"},
        {"alertname": burn, "service": "billing", "severity": "critical"},
        {"alertname": "HubDeliveryErrorBudgetBurnSlow", "service": "billing", "severity": "warning"},
        {"alertname": "HubWatchdog", "severity": "none"},
    )
    expected = {
        ("HubBreakerOpen", "crm"): "active",
        ("HubTasksTooOld", "crm"): "suppressed",
        (burn, "crm"): "suppressed",
        (burn, "billing"): "active",
        ("HubDeliveryErrorBudgetBurnSlow", "billing"): "suppressed",
        ("HubWatchdog", ""): "active",
    }
    eventually(lambda: states(alertmanager) == expected, what="the inhibition")
    tell(alertmanager, {"alertname": "HubExporterDown", "severity": "critical"})
    blind = dict.fromkeys(expected, "suppressed") | {
        ("HubExporterDown", ""): "active",
        ("HubWatchdog", ""): "active",
    }
    eventually(lambda: states(alertmanager) == blind, what="the silence")
    eventually(lambda: receiver.alerts("/pager", "HubExporterDown", "firing"), what="the page")
