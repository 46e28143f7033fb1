"""Alerts, recordings, routes and runbooks, judged by promtool and amtool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.monitoring.collectors.ledger import LEDGER_METRICS
from hub.monitoring.collectors.queues import QUEUE_METRICS
from hub.monitoring.exposition import BUILD, TOOK, UP
from hub.monitoring.metrics import CATALOGUE
from tests.support.prometheus import run

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*_test.yml"))
ROUTES = DEPLOY / "alertmanager" / "alertmanager.yml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    return [rule for path in sorted(RULES.glob("*.yml")) for group in load(path)["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = [rule["alert"] for rule in ALERTS]
SPECIFIED = {
    "HubExporterDown",
    "HubExporterInstanceDown",
    "HubCollectorFailing",
    "HubCollectorInstanceFailing",
    "HubLedgerReadOnly",
    "HubRelayStale",
    "HubClockOff",
    "HubSchedulerStale",
    "HubConsumerStale",
    "HubNoWorkers",
    "HubTasksTooOld",
    "HubSecretsUnreadable",
    "HubSourceLagging",
    "HubFailedLogins",
    "HubQueueGrowing",
    "HubBreakerOpen",
    "HubBreakerFlapping",
    "HubDeliveryErrorBudgetBurnFast",
    "HubDeliveryErrorBudgetBurnSlow",
    "HubDeadLettersArriving",
    "HubDeadLettersUnhandled",
    "HubDbPoolExhausted",
    "HubVersionSkew",
    "HubWatchdog",
}


def checks_of(test: dict[str, Any], alert: str) -> list[dict[str, Any]]:
    """The expectations about one alert in one case."""
    return [c for c in test.get("promql_expr_test", ()) if f'"{alert}"' in c["expr"]]


def shown_names() -> set[str]:
    """Every series name that `/metrics` can show."""
    found = set()
    for metric in (*CATALOGUE, *LEDGER_METRICS, *QUEUE_METRICS, UP, TOOK, BUILD):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.kind, [""])
        found |= {metric.name + suffix for suffix in suffixes}
    return found


def test_all_alerts_are_there() -> None:
    """The list is what was promised."""
    assert set(NAMES) == SPECIFIED and len(NAMES) == len(SPECIFIED)


def test_prometheus_accepts_its_configuration() -> None:
    """`promtool check config` reads the rule files too."""
    done = run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stdout
    assert "24 rules found" in done.stdout


def test_each_alert_fires_and_stays_quiet() -> None:
    """What the rules do over time, not what they look like."""
    done = run("promtool", "test", "rules", *CASES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_both_cases(name: str) -> None:
    """An alert that was never seen firing is a hope; one never seen quiet is a nuisance."""
    checks = [check for path in CASES for test in load(path)["tests"] for check in checks_of(test, name)]
    assert any(c["exp_samples"] for c in checks)
    assert name == "HubWatchdog" or any(not c["exp_samples"] for c in checks)


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_each_alert_tells_what_to_do(rule: dict[str, Any]) -> None:
    """At 3 a.m. the alert's text is all there is."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert len(notes["summary"]) < 80 < len(notes["description"]) + 20
    assert notes["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{rule['alert']}.md"
    uid = re.fullmatch(
        r"\{\{ \$externalLabels\.grafana \}\}/d/([a-z-]+)(\?var-service=\{\{ \$labels\.service \}\})?",
        notes["dashboard_url"],
    )
    assert uid and (ROOT / "grafana" / "dashboards" / f"{uid[1]}.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_a_runbook(name: str) -> None:
    """What it means, how to look (with the hub's own commands), how to fix, how to silence."""
    text = (DEPLOY / "runbooks" / f"{name}.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert [h for h in headings if not h.startswith("# who")] == [
        f"# {name}",
        "## What it means",
        "## How to look",
        "## How to fix",
        "## How to silence",
    ]
    assert re.search(r"\bhub (stats|service|rule|tasks|schedule|dlq|log|breaker|user|activity|--version)\b", text)
    assert f"alertname={name}" in text


def test_no_runbook_is_left_over() -> None:
    """A runbook nobody links is never read, and goes wrong."""
    assert {path.stem for path in (DEPLOY / "runbooks").glob("*.md")} == set(NAMES)


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.get("alert", r.get("record")))
def test_rules_of_the_house(rule: dict[str, Any]) -> None:
    """The mistakes that make alerts lie."""
    expr = rule["expr"]
    recorded = {r["record"] for r in rules() if "record" in r}
    for word in re.findall(r"\b(?:service:)?hub_[a-z0-9_:]+", expr):
        assert word in shown_names() | recorded, f"{word} is not exported"
    for word in re.findall(r"(?:rate|increase)\(([a-z_]+)", expr):
        assert word.endswith(("_total", "_bucket", "_sum", "_count")), f"rate of the gauge {word}"
    for window in re.findall(r"\[(\d+)m\]", expr):
        assert int(window) >= 1, "four scrapes of 15 s"
    if "absent(" in expr:
        assert rule["for"] in {"1m", "2m", "3m"}
    for divisor in re.findall(r"/\s*(.{6})", expr):
        assert divisor.startswith("(sum"), "a guard against division by zero"
        assert re.search(r"> 0\)", expr)


@pytest.mark.parametrize("name", NAMES)
def test_its_cases_notice_an_alert_that_is_missing(name: str, tmp_path: Path) -> None:
    """The cases themselves are tested: without the alert they fail."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    document = load(RULES / "alerts.yml")
    group = document["groups"][0]
    group["rules"] = [rule for rule in group["rules"] if rule["alert"] != name]
    (tmp_path / "rules" / "alerts.yml").write_text(yaml.safe_dump(document))
    (tmp_path / "rules" / "recordings.yml").write_text((RULES / "recordings.yml").read_text())
    cases = []
    for path in CASES:
        document = load(path)
        document["tests"] = [test for test in document["tests"] if checks_of(test, name)]
        if document["tests"]:
            cases.append(tmp_path / "tests" / path.name)
            cases[-1].write_text(yaml.safe_dump(document))
    assert cases and run("promtool", "test", "rules", *cases).returncode != 0


def test_alertmanager_accepts_its_configuration() -> None:
    """Routes, inhibition, receivers."""
    done = run("amtool", "check-config", ROUTES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_each_alert_reaches_its_receiver(rule: dict[str, Any]) -> None:
    """Severity decides who is woken."""
    severity = rule["labels"]["severity"]
    receiver = {"critical": "pager", "warning": "chat", "info": "tickets", "none": "watchdog"}[severity]
    labels = [f"alertname={rule['alert']}", f"severity={severity}", "service=crm"]
    done = run(
        "amtool", "config", "routes", "test", f"--config.file={ROUTES}", f"--verify.receivers={receiver}", *labels
    )
    assert done.returncode == 0, done.stdout


def test_what_is_unknown_still_reaches_somebody() -> None:
    """An alert without a severity must not fall on the floor."""
    done = run(
        "amtool", "config", "routes", "test", f"--config.file={ROUTES}", "--verify.receivers=tickets", "alertname=X"
    )
    assert done.returncode == 0, done.stdout
