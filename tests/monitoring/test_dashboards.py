"""The dashboards' rules, and every query of every panel asked of a real Prometheus that scrapes a real exporter."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grafana.build import FOLDER, documents
from tests.monitoring import drawing
from tests.monitoring.story import Deployment
from tests.monitoring.test_alerts import RULES, shown_names
from tests.support.hubs import emit_many
from tests.support.prometheus import Prometheus, program
from tests.support.waiting import eventually

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
LIVE = {uid: board for uid, board in BOARDS.items() if uid != "hub-runbooks"}
PANELS = [(uid, panel) for uid, board in LIVE.items() for panel in board["panels"]]
IDS = [f"{uid}/{panel['title']}" for uid, panel in PANELS]
# Rightly quiet in the test below, and why.
QUIET = {
    "hub-runtime/Messages unacknowledged": "from RabbitMQ's Prometheus plugin, which the test's node does not run",
}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_live = pytest.mark.parametrize("board", LIVE.values(), ids=LIVE)
each_panel = pytest.mark.parametrize(("uid", "panel"), PANELS, ids=IDS)


def test_the_committed_dashboards_are_the_code() -> None:
    """`python -m grafana.build` was run after the last change."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == documents()


def test_the_dashboards_are_there() -> None:
    """The four that were promised, and the runbooks."""
    assert set(BOARDS) == {"hub-overview", "hub-service", "hub-dlq", "hub-runtime", "hub-runbooks"}
    assert len(BOARDS["hub-overview"]["panels"]) <= 20


@each_board
def test_a_dashboard_can_be_provisioned(board: dict[str, Any]) -> None:
    """What Grafana 10 to 12 load, and nobody edits by hand."""
    assert board["schemaVersion"] == 39
    assert board["editable"] is False
    assert "id" not in board or board["id"] is None, "Grafana gives it"
    assert len({b["uid"] for b in BOARDS.values()}) == len(BOARDS) == len({b["title"] for b in BOARDS.values()})
    ids = [panel["id"] for panel in board["panels"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert board["description"]


@each_board
def test_panels_do_not_overlap(board: dict[str, Any]) -> None:
    """Grafana would shift them, and the layout would be nobody's."""
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    assert len(cells) == 24 * (max(y for _, y in cells) + 1), "no holes"


@each_live
def test_variables(board: dict[str, Any]) -> None:
    """One data source for all panels, chosen at the top; one service or several."""
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert set(variables) == {"datasource", "environment", "service"}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert variables["service"]["datasource"]["uid"] == "${datasource}"
    assert variables["service"]["query"]["query"] == (
        'label_values(hub_breaker_state{environment=~"$environment"}, service)'
    )
    assert variables["environment"]["query"]["query"] == "label_values(hub_exporter_collector_up, environment)"
    assert variables["environment"]["allValue"] == ".*", "also series without the label"
    assert any("$service" in t["expr"] for p in board["panels"] for t in p["targets"]), "a variable that does nothing"


@each_live
def test_dashboards_lead_on(board: dict[str, Any]) -> None:
    """From what is broken to the service, from there to what to do; the time range comes along."""
    links = {link["url"] for link in board["links"]}
    assert links == {f"/d/{uid}" for uid in BOARDS if uid != board["uid"]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])
    text = json.dumps(board["panels"])
    assert "/d/hub-runbooks" in text
    targets = set(re.findall(r"/d/(hub-[a-z]+)", text))
    assert targets <= set(BOARDS)


@each_panel
def test_a_panel_explains_itself(uid: str, panel: dict[str, Any]) -> None:
    """Somebody who never saw it must understand it at night."""
    assert panel["title"] and len(panel["description"]) >= 10
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["type"] in {"stat", "timeseries", "table", "state-timeline", "heatmap"}, "no pies, no gauges"
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults.get("unit") or defaults.get("mappings")
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"] is True
        assert all(target["legendFormat"] for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert references == [chr(ord("A") + i) for i in range(len(references))]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@each_panel
def test_queries_follow_the_rules(uid: str, panel: dict[str, Any]) -> None:
    """Names that exist; counters only as rates; no fixed window but the SLO's hour."""
    for target in panel["targets"]:
        expr = target["expr"]
        for name in re.findall(r"(?<![a-z:_])hub_[a-z0-9_]+", re.sub(r"\bservice:hub_[a-z0-9_:]+", "", expr)):
            assert name in shown_names(), name
        for counter in re.finditer(r"hub_[a-z_]+_total", expr):
            assert re.search(r"(rate|increase)\($", expr[: counter.start()]), f"{counter[0]} outside a rate"
        for gauge in re.findall(r"(?:rate|increase)\((hub_[a-z_]+)", expr):
            assert gauge.endswith(("_total", "_bucket"))
        assert set(re.findall(r"\[([^\]]+)\]", expr)) <= {"$__rate_interval", "1h"}
        if re.search(r"hub_(tasks|dead_letters|breaker_state|queue_depth|oldest_[a-z_]+)\{", expr):
            assert "max by" in expr or re.match(r"max\(", expr), "several exporters say the same"
        for divisor in re.findall(r"/ (.{5})", expr):
            assert divisor.startswith("(sum") and "> 0)" in expr


CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["*.rules.yml"]
scrape_configs:
  - job_name: hub
    static_configs: [{{targets: ["{address}"], labels: {{environment: test}}}}]
"""


class Load:
    """Events for every service, all the time; replays, ticks and answers now and then."""

    def __init__(self, it: Deployment) -> None:
        self._it = it
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._events = 1000

    def __enter__(self) -> Load:
        self._it.target.on("/refused", 422)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        hub = self._it.hub
        lms, erp = (hub.configuration.service(name) for name in ("lms", "erp"))
        while not self._stop.is_set():
            self._it.answer('{"a": 1}')
            hub.broker.publish(hub.actors.consume.message(lms.id))
            for event in ("ok", "refused", "away", "course", "nobody listens"):
                emit_many(hub, 3, event, start=self._events)
            self._events += 3
            if self._events % 24 == 1000 % 24:
                hub.breakers.reset(erp)  # so that its circuit moves now and then
            self._stop.wait(0.5)


@pytest.fixture(scope="module")
def prometheus(lived: tuple[Deployment, str]) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a deployed hub under load for long enough, with the deployment's own rules."""
    program("prometheus")
    it = lived[0]
    rules = {
        f"{p.stem}.rules.yml": re.sub(r"(for|interval): \d+m\n", r"\1: 1s\n", p.read_text())
        for p in RULES.glob("*.yml")
    }
    with Load(it):
        server = Prometheus(CONFIG.format(address=it.site.address("exporter")), rules)
        try:
            for expr in (
                'ALERTS{alertstate="firing", alertname="HubBreakerOpen"}',
                "service:hub_tasks_dead:ratio_rate1h > 0",
                "service:hub_error_budget_remaining:ratio30d < 1",
                "environment:hub_worker_threads_busy:ratio >= 0",
                'rate(hub_consumer_run_duration_seconds_count{service="lms"}[20s]) > 0',
                'rate(hub_task_end_to_end_seconds_count{service="crm"}[20s]) > 0',
            ):
                eventually(partial(server.query, expr), expr)
            yield server
        finally:
            server.close()


@pytest.mark.monitoring
@each_panel
def test_each_query_shows_something(uid: str, panel: dict[str, Any], prometheus: Prometheus) -> None:
    """A query with a misspelt label is valid, and empty for ever."""
    services = ("crm", "billing", "erp", "lms") if uid == "hub-service" else (".*",)
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", "20s").replace("$environment", "test")

        def ask(expr: str = expr) -> list[dict[str, Any]]:
            return [sample for service in services for sample in prometheus.query(expr.replace("$service", service))]

        if f"{uid}/{panel['title']}" in QUIET:
            assert not ask(), "it is not quiet any more: take it off the list"
            continue
        # What moves only now and then may have its next move a few scrapes ahead.
        eventually(lambda ask=ask: any(sample["value"][1] != "NaN" for sample in ask()), expr)  # type: ignore[misc]
        found = ask()
        for sample in found:
            asked = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            assert asked <= set(sample["metric"]), "the legend names a label that the series does not have"


@pytest.mark.monitoring
@each_panel
def test_each_query_is_limited_to_the_environment(uid: str, panel: dict[str, Any], prometheus: Prometheus) -> None:
    """Series of another hub in the same Prometheus must not appear."""
    for target in panel["targets"]:
        expr = (
            target["expr"]
            .replace("$__rate_interval", "20s")
            .replace("$service", ".*" if uid != "hub-service" else "crm")
        )
        found = prometheus.query(expr.replace("$environment", "other"))
        assert not [sample for sample in found if sample["value"][1] != "0"], expr
        assert not found or "vector(0)" in expr, expr


@pytest.mark.monitoring
def test_the_service_variable_finds_services(prometheus: Prometheus) -> None:
    """`label_values(hub_breaker_state, service)` is this question to Prometheus."""
    answer = prometheus.get("/api/v1/label/service/values", **{"match[]": "hub_breaker_state"})
    assert answer["data"] == ["billing", "crm", "erp", "lms"]


@pytest.mark.monitoring
def test_previews_can_be_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    """So that people can look at a change."""
    drawing.main(prometheus.url, str(tmp_path), time.time())
    assert {path.stem for path in tmp_path.glob("*.png")} == set(BOARDS)
