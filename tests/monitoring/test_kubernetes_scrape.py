"""The PodMonitor and the PrometheusRule, translated as the Prometheus operator does, against real exporters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.monitoring.exposition import make_scraper
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.programs.exporter import Exporter
from hub.programs.supervisor import die_with_parent
from hub.settings import Settings
from hub.store.database import Database
from tests.monitoring.conftest import KEY, parse
from tests.monitoring.test_alerts import DEPLOY
from tests.monitoring.test_exporter import ask, sources
from tests.support.prometheus import Prometheus, program
from tests.support.waiting import eventually

pytestmark = pytest.mark.monitoring
FOLDER = DEPLOY / "kubernetes" / "prometheus-operator"
SIDECAR = DEPLOY / "kubernetes" / "worker.yaml"


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def scrape_config(monitor: dict[str, Any], targets: list[str]) -> dict[str, Any]:
    """Translate an endpoint of a PodMonitor into a scrape job; `targets` stand for the pods."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    relabelings = [
        {re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), key): value for key, value in rule.items()}
        for rule in endpoint["relabelings"]
    ]
    own = {"target_label": "job", "replacement": "hub/" + monitor["metadata"]["name"]}  # the operator's default
    return {
        "job_name": "podMonitor/hub/hub/0",
        "metrics_path": endpoint["path"],
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "relabel_configs": [own, *relabelings],
        "static_configs": [{"targets": targets}],
    }


@contextmanager
def sidecar(folder: Path) -> Iterator[str]:
    """`hub exporter` with the environment of a sidecar: no database, no broker, no key. Yields its address."""
    (manifest,) = [d for d in yaml.safe_load_all(SIDECAR.read_text()) if d["kind"] == "Deployment"]
    (container,) = manifest["spec"]["template"]["spec"]["initContainers"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
    env |= {variable["name"]: variable["value"] for variable in container["env"]}
    env |= {"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"), "HUB_EXPORTER_LISTEN": "127.0.0.1:0"}
    read_only = folder / "cwd"
    read_only.mkdir(mode=0o555)
    command = [Path(sys.executable).with_name("hub"), *container["args"][1:]]
    with subprocess.Popen(
        command, env=env, cwd=read_only, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, preexec_fn=die_with_parent
    ) as process:
        try:
            assert process.stdout
            yield next(
                found[1] for line in process.stdout if (found := re.search(rb"http://([\w.:]+)/metrics", line))
            ).decode()
        finally:
            process.terminate()
        assert process.wait(timeout=120) == 0
    assert not list(read_only.iterdir())


def test_the_first_dead_letter_of_a_sidecar_raises_the_alert(db: Database, database_url: str, tmp_path: Path) -> None:
    """`increase()` does not see it: a sidecar knows no services, so its series begins at 1."""
    program("prometheus")
    settings = Settings(database_url=database_url, secret_keys=KEY, metrics_dir=tmp_path / "own")
    every = Exporter(make_scraper(settings, db, []), "127.0.0.1:0")
    every.start()
    with sidecar(tmp_path) as address:
        assert sources(parse(ask(address, "/metrics")[1])) == {"processes": 1.0}
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [scrape_config(load("podmonitor.yaml"), [address, every.address])],
        }
        rules = yaml.safe_dump(load("prometheusrule.yaml")["spec"])
        rules = re.sub(r"\b15m\b", "4s", re.sub(r"(for|interval): \d+[mh]\n", r"\1: 1s\n", rules))
        prometheus = Prometheus(yaml.safe_dump(config), {"rules.yml": rules})
        try:
            up = 'up{job="hub", environment="production"} == 1'
            eventually(lambda: len(prometheus.query(up)) == 2, what="both targets")
            eventually(lambda: prometheus.query("hub_build_info offset 4s"), what="a window of scrapes")
            alert = 'ALERTS{alertname="HubDeadLettersArriving", alertstate="firing"}'
            assert not prometheus.query(alert)
            hooks = PrometheusHooks(tmp_path / "metrics")
            hooks.dead_letter("crm", "attempts")
            hooks.close()
            eventually(lambda: prometheus.query(alert), what="the alert")
            (found,) = prometheus.query(f"last_over_time({alert}[1m])")
            assert (found["metric"]["service"], found["metric"]["environment"]) == ("crm", "production")
            assert not prometheus.query('ALERTS{alertname="HubExporterDown"}')
        finally:
            prometheus.close()
            every.stop()
