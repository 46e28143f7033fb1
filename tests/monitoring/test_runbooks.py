"""The commands of each runbook, run against a hub with that fault: they succeed and show the cause; fixes fix it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from hub.embedded.programs import binaries
from hub.settings import Settings
from hub.store.audit import Actor, acting
from hub.store.vault import Vault
from hub.web.passwords import hash_password
from tests.conftest import GIVEN_BROKER, remove_queues
from tests.monitoring.conftest import KEY
from tests.monitoring.story import Deployment, deployment
from tests.monitoring.test_alerts import DEPLOY, NAMES
from tests.support import clocks
from tests.support.databases import Template
from tests.support.hubs import add_rule, add_service, attempt, count, emit, emit_many
from tests.support.rabbit import RabbitNode, free_ports
from tests.support.waiting import eventually

RUN = ("hub", "psql", "curl", "rabbitmqctl")  # systemctl, journalctl and amtool need their servers


@dataclass(frozen=True)
class Fault:
    """What is wrong in the test's hub.

    Args:
        service: the service that the alert names.
        shown: expressions that the output of the commands must match.
        env: name of an environment: `usual`, `clock`, `no_database`, `read_only`.
        fails: whether `hub` itself fails, since its database is away.
    """

    service: str = "crm"
    shown: tuple[str, ...] = ()
    env: str = "usual"
    fails: bool = False


NO_WORKER, NO_TICK = r"no worker has sent a heartbeat", r"no tick within 180 s"
FAULTS = {
    "HubExporterDown": Fault(shown=(r"collector_up\{collector=\"ledger\"\} 1", r"^ok$")),
    "HubExporterInstanceDown": Fault(shown=(r"^ok$", r"health")),
    "HubCollectorFailing": Fault(env="no_database", fails=True, shown=(r"database", r"refused|No such file|failed")),
    "HubCollectorInstanceFailing": Fault(shown=(r"collector_up\{collector=\"rabbitmq\"\} 1",)),
    "HubSchedulerStale": Fault(shown=(NO_TICK, r"consume_responses_task")),
    "HubConsumerStale": Fault(service="lms", shown=(NO_WORKER, NO_TICK, r"consume_responses_task.*true|enabled")),
    "HubNoWorkers": Fault(shown=(NO_WORKER, r"queue depth +6", r"\.dispatch\s+\d+\s+0$")),
    "HubLedgerReadOnly": Fault(env="read_only", shown=(r"accepts no writes", r"read-only transaction")),
    "HubRelayStale": Fault(shown=(r"no outbox relay leads",)),
    "HubClockOff": Fault(env="clock", shown=(r"clock of this machine is 90 s ahead",)),
    "HubTasksTooOld": Fault(shown=(r"crm +5 ", r"max retries")),
    "HubSecretsUnreadable": Fault(service="vault", shown=(r"secrets unreadable",)),
    "HubSourceLagging": Fault(service="moodle", shown=(r"moodle.*starting", r"refused|cannot connect")),
    "HubFailedLogins": Fault(shown=(r"grace.*203\.0\.113\.9",)),
    "HubQueueGrowing": Fault(shown=(r"crm +5 ", r"dispatch")),
    "HubBreakerOpen": Fault(service="erp", shown=(r"erp.*open", r"refused")),
    "HubBreakerFlapping": Fault(service="erp", shown=(r"erp.*open", r"refused")),
    "HubDeliveryErrorBudgetBurnFast": Fault(service="billing", shown=(r"422", r"attempts")),
    "HubDeliveryErrorBudgetBurnSlow": Fault(service="billing", shown=(r"422",)),
    "HubDeadLettersArriving": Fault(service="billing", shown=(r"422", r"attempts")),
    "HubDeadLettersUnhandled": Fault(service="billing", shown=(r"billing", r"422")),
    "HubDbPoolExhausted": Fault(shown=(r"ClientRead|active|idle", r"health")),
    "HubVersionSkew": Fault(shown=(r"hub \d+\.\d+",)),
}


class Broken:
    """A hub with every fault that its own commands can look at, in one."""

    def __init__(self, it: Deployment, folder: Path, tools: str) -> None:
        self.it, self.folder = it, folder
        self.dead = it.hub.views.dead_letters.list(service="billing", limit=1)[0]
        self._envs = {"usual": {}, **self._other_databases()}
        if clocks.library() is not None:
            clock = clocks.WallClock(folder / "clock")
            clock.move(90)
            self._envs["clock"] = clock.environment
        self._path = tools

    def _other_databases(self) -> dict[str, dict[str, str]]:
        url = self.it.site.env["HUB_DATABASE_URL"]
        (port,) = free_ports(1)
        read_only = url + ("&" if "?" in url else "?") + "options=-c%20default_transaction_read_only%3Don"
        return {
            "no_database": {"HUB_DATABASE_URL": f"postgresql://hub@127.0.0.1:{port}/hub"},
            "read_only": {"HUB_DATABASE_URL": read_only},
        }

    def run(self, line: str, fault: Fault) -> tuple[int, str]:
        """Run a line of a runbook in a shell; exit code and both outputs."""
        for placeholder, value in {
            "TASK_ID": self.dead["task_id"],
            "SERVICE": fault.service,
            "SOURCE": fault.service,
            "RULE": f"to-{fault.service}",
            "HOST:9808": self.it.site.address("exporter"),
        }.items():
            line = line.replace(placeholder, str(value))
        line = line.replace("-p hub", f"-p {self.it.site.env['HUB_BROKER_URL'].rpartition('/')[2]}")
        line = re.sub(r"\bID\b", str(self.dead["id"]), line)
        env = self.it.site.env | self._envs[fault.env] | {"PATH": self._path, "COLUMNS": "250"}
        done = subprocess.run(
            ["sh", "-c", line],
            env=env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


def tools(folder: Path, node: RabbitNode | None) -> str:
    """A PATH with this hub, psql of the private PostgreSQL, and rabbitmqctl of the test's node."""
    found = [str(Path(sys.executable).parent), str(binaries()), os.environ["PATH"]]
    if node is not None:
        script = folder / "rabbitmqctl"
        script.write_text(f'#!/bin/sh\nexec env -i {" ".join(map(repr, node.ctl_command()))} "$@"\n')
        script.chmod(0o755)
        found.insert(0, str(folder))
    return os.pathsep.join(found)


@pytest.fixture(scope="module")
def broken(
    database_template: Template, broker_node: RabbitNode | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    """No worker and no scheduler run. `crm` has tasks that wait, `erp` an open circuit, `billing` dead letters, `lms` a
    response queue that nobody reads, `vault` secrets that no key decrypts. Web sees a guesser."""
    folder = tmp_path_factory.mktemp("runbooks")
    name, url = database_template.clone()
    settings = Settings(
        database_url=url,
        broker_url=broker_node.new_vhost() if broker_node else GIVEN_BROKER,
        secret_keys=KEY,
        queue_prefix=f"t{uuid.uuid4().hex[:10]}",
        home=folder / "home",
        max_attempts=1,
    )
    with deployment(settings, folder, "exporter") as it:
        it.services()
        hub = it.hub
        add_service(hub, it.target.url, "vault", auth={"type": "bearer", "token": "sealed"})
        add_rule(hub, "to-vault", "sealed", "vault", endpoint="/x")
        for number, event in enumerate(("away", "away", "refused", "refused")):
            (task_id,) = emit(hub, event, {"n": number})
            attempt(hub, task_id)
        emit_many(hub, 5, "ok")
        emit(hub, "sealed")
        with psycopg.connect(url) as conn:  # sealed with a key that is lost
            token = Vault([Vault.new_key()]).seal({"token": "sealed"})
            conn.execute("UPDATE services SET secrets = %s WHERE name = 'vault'", [token])
        hub.configuration.invalidate()
        (port,) = free_ports(1)
        it.site.run("source", "add", "moodle", "--url", f"postgresql://m:m@127.0.0.1:{port}/moodle")
        with acting(Actor("grace", "user", "203.0.113.9")):
            user = hub.accounts.users.add("grace", hash_password("a long password"), "manage")
            hub.accounts.sessions.start(user.id)
        yield Broken(it, folder, tools(folder, broker_node))
    remove_queues(settings.queue_prefix)
    database_template.drop(name)


def look(alert: str) -> list[str]:
    """The commands under "How to look" that can run here, without their comments."""
    text = (
        (DEPLOY / "runbooks" / f"{alert}.md").read_text().partition("## How to look")[2].partition("## How to fix")[0]
    )
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line.split(" ")[0] in RUN]


def test_every_alert_has_its_fault() -> None:
    """The watchdog's fault is that Prometheus or Alertmanager is away: no command of the hub shows it."""
    assert set(FAULTS) == set(NAMES) - {"HubWatchdog"}


@pytest.mark.monitoring
@pytest.mark.parametrize("alert", FAULTS)
def test_the_commands_of_a_runbook_show_the_cause(alert: str, broken: Broken) -> None:
    """Each command succeeds, unless it is the fault that it fails; together they show what is wrong."""
    fault = FAULTS[alert]
    if fault.env == "clock":
        clocks.needed()
    lines = look(alert)
    assert any(line.startswith("hub ") for line in lines)
    output = ""
    for line in lines:
        if line.startswith("rabbitmqctl") and "rabbitmqctl" not in os.listdir(broken.folder):
            continue
        code, text = broken.run(line, fault)
        output += text
        if not fault.fails and not re.match("hub (service|source) test", line):
            assert code == 0, f"{line}\n{text}"
        assert "Traceback" not in text
    for expression in fault.shown:
        assert re.search(expression, output, re.MULTILINE | re.DOTALL), f"{expression}\n{output}"


@pytest.mark.monitoring
def test_the_fixes_of_runbooks_fix(broken: Broken) -> None:
    """Reset a circuit, hold a service, drop what is not needed, replay what was refused, export before."""
    hub = broken.it.hub

    def fix(line: str, service: str) -> None:
        code, text = broken.run(
            f"{line} --yes" if line.startswith(("hub dlq replay", "hub dlq delete")) else line, Fault(service=service)
        )
        assert code == 0, f"{line}\n{text}"

    fix("hub breaker reset SERVICE", "erp")
    assert hub.views.overview.breaker("erp")["state"] == "closed"
    fix("hub service disable SERVICE", "crm")
    assert json.loads(broken.it.site.run("stats", "--json"))["held"] == 5
    fix("hub service enable SERVICE", "crm")
    fix("hub dlq export --service SERVICE > dead.ndjson", "billing")
    assert len((broken.folder / "dead.ndjson").read_text().splitlines()) == 2
    fix("hub dlq replay --service SERVICE --since 1h", "billing")
    assert count(hub, "dead_letters") == 2, "those of erp"
    broken.it.target.on("/refused", 200)
    fix("hub rule disable RULE", "billing")
    fix("hub rule enable RULE", "billing")
    broken.it.site.start("worker", "--processes", "1", "--threads", "4")
    fix("hub service edit SERVICE --token new", "vault")

    def delivered() -> bool:
        seen = list(broken.it.target.seen)
        return len(seen) >= 8 and "Bearer new" in {each.headers.get("authorization") for each in seen}

    eventually(delivered, "crm, billing and vault are delivered, vault with its new token")
