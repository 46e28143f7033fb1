"""The steps of the systemd guide, run against a real PostgreSQL and RabbitMQ; the units' commands run the hub.

Only systemd itself is missing: paths and the change of the user are replaced.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from hub.programs.supervisor import die_with_parent
from tests.deploy.files import DEPLOY, ROOT
from tests.monitoring.conftest import parse
from tests.monitoring.test_exporter import sources
from tests.support.databases import PostgresServer
from tests.support.http_target import HttpTarget
from tests.support.processes import below
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually

HUB = Path(sys.executable).with_name("hub")
STEPS = ("make-secrets.sh", "chmod 400", "create-stores.sh", "hub.env.example", "/usr/local/bin ")


def steps() -> list[str]:
    """Commands of the guide, from the secrets to the wrapper, as the page has them."""
    guide = (DEPLOY / "README.md").read_text().partition("## First start with systemd")[2]
    block = re.findall(r"^```\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)[0]
    found = [re.sub(r"\s{2,}#\s.*", "", line) for line in block.splitlines() if any(step in line for step in STEPS)]
    assert len(found) == len(STEPS)
    return found


class Machine:
    """A machine on which the guide is followed: `/etc/hub`, `/usr/local/bin` and `/run` are folders of the test."""

    def __init__(self, folder: Path, postgres: PostgresServer, rabbitmq: RabbitNode) -> None:
        self.folder = folder
        self.etc, self.bin, tools = folder / "etc", folder / "bin", folder / "tools"
        for path in (self.etc, self.bin, tools):
            path.mkdir()
        parts = conninfo_to_dict(postgres.url)
        self._hosts = {"127.0.0.1:5432": quote(str(parts["host"]), safe=""), ":5672": f":{rabbitmq.port}"}
        node = rabbitmq.ctl_command()
        self._tool(tools / "runuser", 'shift 3\nexec "$@"')  # runuser -u postgres -- COMMAND
        self._tool(tools / "rabbitmqctl", f'exec env -i {shlex.join(node)} "$@"')
        self.env = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PGHOST": str(parts["host"]),
        }
        _rename_superuser(postgres.url)

    def _tool(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def here(self, text: str) -> str:
        """Replace the paths and hosts of a real machine."""
        for there, own in {"/etc/hub": str(self.etc), "/usr/local/bin": str(self.bin), **self._hosts}.items():
            text = text.replace(there, own)
        return text

    def follow(self) -> None:
        """Run the steps in a shell, in the checkout."""
        for step in steps():
            done = subprocess.run(
                ["sh", "-c", self.here(step)], cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"

    def hub(self, *words: str, stdin: str = "") -> str:
        """Run the wrapper."""
        env = self.env | {"ETC": str(self.etc), "COMMAND": str(HUB), "RUN_AS": whoami()}
        env |= {"PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics")}
        done = subprocess.run(
            [self.bin / "hub", *words], env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def unit(self, name: str) -> Iterator[Path]:
        """Run the ExecStart of a unit with its environment and credentials; yields the file with its output."""
        text = (DEPLOY / "systemd" / f"{name}.service").read_text()
        env = dict(self.env)
        for entry in re.findall(r"^(\w+=.*)$", (self.etc / "hub.env").read_text(), re.MULTILINE):
            env.__setitem__(*entry.split("=", 1))
        for entry in re.findall(r"^Environment=(.*)$", text, re.MULTILINE):
            variable, value = entry.split("=", 1)
            env[variable] = value.replace("%d", str(self.etc / "secrets"))
        env["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "metrics")
        (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
        command = command.replace("/opt/hub/share/deploy", str(DEPLOY)).replace("/opt/hub/bin/hub", str(HUB))
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command),
                env=env,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
        try:
            yield log
            assert process.poll() is None, log.read_text()
        except BaseException:
            print(f"--- {name}\n{log.read_text()[-3000:]}")
            raise
        finally:
            process.terminate()
            process.wait(timeout=120)
            assert not below(process.pid)


def _rename_superuser(url: str) -> None:
    """Give the server the superuser `postgres`, as a distribution does; the test's own is named as the hub's role."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        conn.execute("CREATE DATABASE other")
    with psycopg.connect(url, user="postgres", dbname="other", autocommit=True) as conn:
        conn.execute("ALTER ROLE hub RENAME TO bootstrap")
        for (name,) in conn.execute("SELECT datname FROM pg_database WHERE datname = 'hub'").fetchall():
            conn.execute(sql.SQL("ALTER DATABASE {} RENAME TO before").format(sql.Identifier(name)))


def whoami() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path, postgres: PostgresServer, rabbitmq: RabbitNode) -> Machine:
    return Machine(tmp_path, postgres, rabbitmq)


def test_the_guide_ends_in_a_hub_that_delivers(machine: Machine) -> None:
    """Stores, wrapper, and each unit's command with its own credentials; `hub stats` sees all of it."""
    machine.follow()
    machine.follow()  # safe to run again
    settings = (machine.etc / "hub.env").read_text()
    settings = re.sub(r"^(HUB_\w*LISTEN)=.*", r"\1=127.0.0.1:0", settings, flags=re.MULTILINE)
    settings = settings.replace("HUB_EGRESS_ALLOW=", "HUB_EGRESS_ALLOW=127.0.0.0/8")
    settings = settings.replace("HUB_PROCESSES=2", "HUB_PROCESSES=1").replace("HUB_THREADS=64", "HUB_THREADS=4")
    (machine.etc / "hub.env").write_text(settings)
    machine.hub("migrate")
    assert json.loads(machine.hub("migrate", "--check", "--json")) == {"pending": []}
    with HttpTarget() as target, ExitStack() as units:
        logs = {name: units.enter_context(machine.unit(name)) for name in ("hub-worker@", "hub-scheduler")}
        exporter = units.enter_context(machine.unit("hub-exporter"))
        machine.hub("service", "add", "crm", "--type", "rest", "--base-url", target.url)
        machine.hub("rule", "add", "to-crm", "--event", "ok", "--service", "crm", "--endpoint", "/x")
        machine.hub("emit", "--name", "ok", "--data", '{"n": 1}')
        eventually(lambda: len(target.seen) == 1, what="the delivery")

        def stats() -> dict[str, Any]:
            now: dict[str, Any] = json.loads(machine.hub("stats", "--json"))
            return now

        def components() -> set[str]:
            return {row["component"] for row in stats()["heartbeats"] if row["alive"]}

        eventually(lambda: {"worker", "releaser"} <= components(), what=f"a heartbeat {logs}")
        assert stats()["pending"] == 0 and stats()["dead"] == 0
        address = re.compile(r"http://([\w.:]+)/metrics")
        eventually(lambda: address.search(exporter.read_text()), what="the exporter")
        found = address.search(exporter.read_text())
        assert found
        with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=120) as answer:
            shown = parse(answer.read())
        assert sources(shown) == {"ledger": 1, "rabbitmq": 1, "processes": 1}, "the monitor user may inspect queues"


def test_the_wrapper_drops_root_and_passes_secrets_and_settings(tmp_path: Path) -> None:
    """The command runs as another user, who cannot read the secret files."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    (tmp_path / "secrets").mkdir(mode=0o700)
    for name in ("database_url", "broker_url", "secret_keys"):
        (tmp_path / "secrets" / name).write_text(f"the-{name} $x 'y'\n")
    (tmp_path / "hub.env").write_text('# note\nHUB_TIMEZONE="Europe/Berlin"\nHUB_THREADS=8\nHUB_LOG_FORMAT=json\n')
    command = tmp_path / "command"
    command.write_text('#!/bin/sh\nid -un; id -Gn; env | grep -E "^(HUB_|PROM)" | sort; echo "$@"\n')
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    command.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "ETC": str(tmp_path), "COMMAND": str(command), "RUN_AS": "nobody"}
    done = subprocess.run(
        [DEPLOY / "systemd" / "hub", "stats", "a b"],
        env=env | {"SUDO_USER": "ann"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "nobody",
        "nogroup",
        "HUB_ACTOR=ann",
        "HUB_BROKER_URL=the-broker_url $x 'y'",
        "HUB_DATABASE_URL=the-database_url $x 'y'",
        "HUB_SECRET_KEYS=the-secret_keys $x 'y'",
        "HUB_THREADS=8",
        "HUB_TIMEZONE=Europe/Berlin",
        "PROMETHEUS_MULTIPROC_DIR=/run/hub/metrics",
        "stats a b",
    ], done.stderr


def test_the_wrapper_without_rights_says_what_to_do(tmp_path: Path) -> None:
    """Without the URL the command would start in embedded mode."""
    env = {"PATH": os.environ["PATH"], "ETC": str(tmp_path)}
    done = subprocess.run([DEPLOY / "systemd" / "hub", "stats"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "run it as root" in done.stderr
