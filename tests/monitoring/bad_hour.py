"""Invented data for the dashboards: `python -m tests.monitoring.bad_hour FOLDER` (needs `prometheus`, `promtool`).

Four services: `crm` fails from minute 45 on, `billing` refuses one request of eight, `erp` is slow, and the response
queue of `lms` is not read at the end. Queries against a real exporter are in tests/monitoring.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from tests.monitoring import drawing

MINUTES, SCRAPE = 70, 15
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RATES = {"crm": 12.0, "billing": 5.0, "lms": 8.0, "erp": 2.0}
SPEED = {"crm": 0.06, "billing": 0.12, "lms": 0.012, "erp": 1.7}
Store = dict[str, list[tuple[float, float]]]


class Story:
    """Simulates an hour of scrapes."""

    def __init__(self, end: float) -> None:
        self.end, self.start = end, end - MINUTES * 60
        self.series: Store = defaultdict(list)
        self.counts: dict[str, float] = defaultdict(float)
        self.dice = random.Random(7)

    def show(self, name: str, value: float, at: float, **labels: str) -> None:
        """Add a sample of a gauge."""
        inner = ",".join(f'{k}="{v}"' for k, v in labels.items())
        self.series[f"{name}{{{inner}}}"].append((at, value))

    def count(self, name: str, more: float, at: float, **labels: str) -> None:
        """Add a sample of a counter."""
        inner = ",".join(f'{k}="{v}"' for k, v in labels.items())
        whole = f"{name}{{{inner}}}"
        self.counts[whole] += more
        self.series[whole].append((at, round(self.counts[whole])))

    def observe(
        self, name: str, seconds: float, times: float, at: float, buckets: tuple[float, ...], **labels: str
    ) -> None:
        """Add samples of a histogram around `seconds`."""
        for bound in (*buckets, float("inf")):
            share = min(1.0, max(0.0, (bound / seconds) ** 2 / (1 + (bound / seconds) ** 2))) if bound < 1e9 else 1.0
            self.count(f"{name}_bucket", times * share, at, **labels, le=str(bound).replace("inf", "+Inf"))

    def simulate(self) -> None:
        """Simulate all scrapes."""
        at, waiting, dead = self.start, dict.fromkeys(RATES, 0.0), {"billing": 40.0}
        while at <= self.end:
            minute = (at - self.end) / 60
            for service in RATES:
                self._service(service, at, minute, waiting, dead)
            self._runtime(at, minute, sum(waiting.values()))
            at += SCRAPE

    def _service(
        self, service: str, at: float, minute: float, waiting: dict[str, float], dead: dict[str, float]
    ) -> None:
        down = service == "crm" and minute > -25
        n = RATES[service] * SCRAPE * self.dice.uniform(0.8, 1.2)
        bad = n * (0.13 if service == "billing" else 0.004)
        if down:
            n, bad = (30, 30) if minute < -24.5 else (0.5, 0.5)
            waiting["crm"] += RATES["crm"] * SCRAPE
        reason = {"crm": "connect_error", "billing": "http_4xx"}.get(service, "timeout")
        seconds = 5.0 if down else SPEED[service] * self.dice.uniform(0.9, 1.3)
        for outcome, times in (("success", n - bad), (reason, bad)):
            self.count("hub_dispatch_attempts_total", times, at, service=service, outcome=outcome)
            self.count(
                "hub_network_tries_total",
                times * (3 if outcome == "connect_error" else 1),
                at,
                service=service,
                outcome=outcome,
            )
        self.count("hub_dispatch_failures_total", bad, at, service=service, reason=reason)
        self.count("hub_retries_scheduled_total", bad * 0.8, at, service=service)
        gone = bad * 0.2 if service == "billing" else 0
        dead[service] = dead.get(service, 0) + gone
        self.count("hub_tasks_finished_total", n - bad, at, service=service, outcome="delivered")
        self.count("hub_tasks_finished_total", gone, at, service=service, outcome="dead")
        self.count("hub_dead_letters_total", gone, at, service=service, reason="attempts")
        self.count(
            "hub_dead_letter_replays_total",
            20 if service == "billing" and abs(minute + 40) < 0.1 else 0,
            at,
            service=service,
        )
        self.observe("hub_dispatch_attempt_duration_seconds", seconds, n, at, BUCKETS, service=service)
        self.observe("hub_task_queue_wait_seconds", 0.08 if service != "erp" else 4, n, at, BUCKETS, service=service)
        self.observe("hub_task_end_to_end_seconds", seconds + 0.2, n - bad, at, (*BUCKETS, 300, 3600), service=service)
        state = "closed" if not down else "half_open" if int(minute * 4) % 9 == 0 else "open"
        for each in ("closed", "open", "half_open"):
            self.show("hub_breaker_state", float(each == state), at, service=service, state=each)
        self.count(
            "hub_breaker_transitions_total",
            float(down and abs(minute + 24.8) < 0.13),
            at,
            service=service,
            from_state="closed",
            to_state="open",
        )
        self.count("hub_breaker_parked_total", RATES[service] * 4 if down else 0, at, service=service)
        self.count("hub_secrets_unreadable_total", 0, at, service=service)
        for kind, value in (
            ("pending", waiting[service] * 0.02 + n / 20),
            ("delayed", waiting[service] + bad * 2),
            ("running", min(8, n / 10)),
            ("held", 12.0 if service == "erp" else 0),
        ):
            self.show("hub_tasks", round(value), at, service=service, state=kind)
        if down or service == "erp":
            self.show("hub_oldest_due_task_age_seconds", 4 if not down else 25 * 60 + minute * 60, at, service=service)
        self.show("hub_dead_letters", round(dead[service]), at, service=service)
        if dead[service] > 0:
            self.show("hub_oldest_dead_letter_age_seconds", 7 * 3600 + (minute + 60) * 60, at, service=service)

    def _runtime(self, at: float, minute: float, waiting: float) -> None:
        for result, rate in (("accepted", 26.0), ("duplicate", 0.4), ("unmatched", 1.5)):
            self.count("hub_events_accepted_total", rate * SCRAPE * self.dice.uniform(0.9, 1.1), at, result=result)
        self.show("up", 1, at, job="hub", instance="exporter:9808")
        for collector in ("ledger", "rabbitmq", "processes"):
            ok = not (collector == "rabbitmq" and -50 < minute < -48)
            self.show("hub_exporter_collector_up", ok, at, collector=collector, instance="exporter:9808")
            if ok:
                self.show(
                    "hub_exporter_collector_duration_seconds", self.dice.uniform(0.008, 0.02), at, collector=collector
                )
        for queue, depth, consumers in (("dispatch", 30 + waiting / 300, 4), ("consume", 0, 2), ("tick", 0, 2)):
            self.show("hub_queue_depth", round(depth * self.dice.uniform(0.8, 1.2)), at, queue=f"hub.{queue}")
            self.show("hub_queue_consumers", consumers, at, queue=f"hub.{queue}")
            self.show("rabbitmq_detailed_queue_messages_unacked", consumers * 3, at, queue=f"hub.{queue}")
        for process, used, most in (("worker", 6, 16), ("web", 2, 8)):
            self.show("hub_db_pool_connections", used + self.dice.randint(0, 3), at, process=process)
            self.show("hub_db_pool_max_connections", most, at, process=process)
        busy = self.dice.randint(20, 40) if minute < -25 else self.dice.randint(90, 128)
        self.show("hub_worker_threads_busy", busy, at)
        self.show("hub_worker_threads", 128, at)
        self.show("environment:hub_worker_threads_busy:ratio", busy / 128, at)
        for service, left in (("crm", 0.62), ("billing", -0.4), ("lms", 0.97), ("erp", 0.88)):
            self.show("service:hub_error_budget_remaining:ratio30d", left, at, service=service)
            drain = 4.0 if service != "erp" else 300 + 4 * (minute + MINUTES)
            self.show("service:hub_tasks_drain:seconds", drain, at, service=service)
        for component in ("worker", "releaser", "scheduler", "web"):
            self.show(
                "hub_heartbeat_timestamp_seconds", at - (30 if component == "scheduler" else 2), at, component=component
            )
        late = max(0.0, minute + 12) * 60
        self.show("hub_consumer_last_success_timestamp_seconds", at - late, at, service="lms")
        self.count("hub_consumer_runs_total", 0.25 if not late else 0, at, service="lms", outcome="ok")
        self.count("hub_consumer_runs_total", 0.25 if late else 0, at, service="lms", outcome="error")
        for outcome, rate in (("stored", 3.0), ("malformed", 0.02)):
            self.count("hub_consumer_messages_total", 0 if late else rate * SCRAPE, at, service="lms", outcome=outcome)
        self.observe("hub_consumer_run_duration_seconds", 1.2, 0 if late else 0.25, at, BUCKETS, service="lms")
        self.show("hub_build_info", 1, at, version="0.1.0")
        fires = [
            ("HubBreakerOpen", "warning", "crm", -25),
            ("HubDeadLettersArriving", "warning", "billing", -70),
            ("HubConsumerStale", "critical", "lms", -7),
        ]
        for name, severity, service, since in fires:
            if minute > since:
                labels = {"alertname": name, "severity": severity, "service": service}
                self.show("ALERTS", 1, at, **labels, alertstate="firing")
                self.show("ALERTS_FOR_STATE", self.end + since * 60, at, **labels)
        for service, ratio in (("billing", 0.026), ("crm", 0.0), ("erp", 0.0), ("lms", 0.0)):
            self.show("service:hub_tasks_dead:ratio_rate1h", ratio * self.dice.uniform(0.9, 1.1), at, service=service)

    def text(self) -> str:
        """Return all samples as OpenMetrics text."""
        lines = [
            f"{name} {float(value)!r} {at:.3f}"
            for name, samples in sorted(self.series.items())
            for at, value in samples
        ]
        return "\n".join([*lines, "# EOF", ""])


def main(folder: str) -> None:
    """Load the samples into a private Prometheus and draw the dashboards."""
    end = time.time() - time.time() % SCRAPE
    story = Story(end)
    story.simulate()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "hour").write_text(story.text())
        (home / "prometheus.yml").write_text("")
        run = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", str(home / "hour"), str(home / "data")]
        subprocess.run(run, check=True)
        port = 20000 + int(end) % 12000
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            drawing.main(f"http://127.0.0.1:{port}", folder, end)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(sys.argv[1])
