"""The small scripts of deploy/: run as containers and units run them."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hub.settings import Settings
from tests.deploy.files import DEPLOY
from tests.support.databases import Template
from tests.support.rabbit import free_ports

ENTRYPOINT = DEPLOY / "entrypoint.sh"
HEALTH = DEPLOY / "healthcheck.py"
PATH = {"PATH": os.environ["PATH"]}


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env={**PATH, **env}, capture_output=True, text=True, check=False, timeout=120)


def test_secret_files_become_variables_of_the_command(tmp_path: Path) -> None:
    """Quotes, dollars, spaces and backslashes arrive as they are; only the newline at the end goes."""
    secret = "postgresql://u:p%40'\"$(id)`id`\\n *;@h/db"
    (tmp_path / "url").write_text(secret + "\n")
    done = run(
        ENTRYPOINT,
        "sh",
        "-c",
        'printf %s "$HUB_DATABASE_URL"; env | grep -c _FILE',
        HUB_DATABASE_URL_FILE=str(tmp_path / "url"),
    )
    assert done.stdout == secret + "0\n"


@pytest.mark.parametrize("case", ["missing", "empty", "both"])
def test_a_secret_that_cannot_be_had_stops_the_start(tmp_path: Path, case: str) -> None:
    """Without its database URL the hub would start in embedded mode, and look healthy."""
    path = tmp_path / "keys"
    if case != "missing":
        path.write_text("" if case == "empty" else "s3cret")
    env = {"HUB_SECRET_KEYS_FILE": str(path), **({"HUB_SECRET_KEYS": "other"} if case == "both" else {})}
    done = run(ENTRYPOINT, "echo", "started", **env)
    assert done.returncode == 2 and "started" not in done.stdout
    assert "HUB_SECRET_KEYS" in done.stderr and "s3cret" not in done.stderr and "other" not in done.stderr


def test_signals_reach_the_command_itself() -> None:
    """A shell in between would swallow SIGTERM, and the workers would be killed in the middle of their tasks."""
    process = subprocess.Popen(
        [ENTRYPOINT, "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"],
        env=PATH,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 7
    process.stdout.close()


def test_secrets_are_made_once_and_fit_where_they_are_used(tmp_path: Path) -> None:
    """A second run must not change the key that stored credentials are encrypted with."""
    folder = tmp_path / "secrets"
    assert run(DEPLOY / "make-secrets.sh", folder).returncode == 0
    first = {p.name: p.read_text() for p in folder.iterdir()}
    assert run(DEPLOY / "make-secrets.sh", folder).returncode == 0
    assert first == {p.name: p.read_text() for p in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    Fernet(first["secret_keys"].encode())
    settings = Settings(database_url=first["database_url"], broker_url=first["broker_url"])
    assert settings.database_url is not None
    parts = conninfo_to_dict(settings.database_url.get_secret_value())
    assert (parts["user"], parts["password"], parts["dbname"]) == ("hub", first["hub_db_password"], "hub")
    passwords = [value for name, value in first.items() if name.endswith("_password")]
    assert len(set(passwords)) == len(passwords) == 5 and all(len(p) == 32 for p in passwords)


def test_a_changed_password_changes_its_url(tmp_path: Path) -> None:
    """Rotation is: write the password, run the script, restart."""
    run(DEPLOY / "make-secrets.sh", tmp_path)
    (tmp_path / "hub_db_password").unlink()
    (tmp_path / "hub_db_password").write_text("rotated")
    run(DEPLOY / "make-secrets.sh", tmp_path)
    assert (tmp_path / "database_url").read_text() == "postgresql://hub:rotated@postgres:5432/hub"


@pytest.mark.skipif(not shutil.which("psql"), reason="psql is not installed")
def test_the_hubs_database_role_is_no_superuser(database_template: Template, tmp_path: Path) -> None:
    """The official image's own user is one: it reads files and starts programs on the server."""
    name, url = database_template.empty()
    role = f"r{os.getpid()}_{name[-8:]}"
    script = (DEPLOY / "postgres" / "init-hub.sh").read_text()
    script = script.replace("ROLE hub ", f"ROLE {role} ").replace("DATABASE hub", f"DATABASE {role}")
    script = script.replace("OWNER hub", f"OWNER {role}").replace("= 'hub'", f"= '{role}'")
    assert "ROLE hub" not in script and "DATABASE hub" not in script
    path, password = tmp_path / "init.sh", 'it\'s a \\"hard" $one; --'
    path.write_text(script)
    (tmp_path / "password").write_text(password + "\n")
    parts = conninfo_to_dict(url)
    env = {f"PG{key.upper()}": str(value) for key, value in parts.items() if key in ("host", "port", "password")}
    try:
        for _ in range(2):  # the second run keeps role and database
            done = run(
                "sh",
                path,
                HUB_DB_PASSWORD_FILE=str(tmp_path / "password"),
                POSTGRES_USER=str(parts.get("user", "postgres")),
                **env,
            )
            assert done.returncode == 0, done.stderr
        with psycopg.connect(make_conninfo(url, user=role, dbname=role, password=password)) as conn:
            row = conn.execute(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert row == (False, False, False, False)
            conn.execute("CREATE TABLE t (i int)")  # migrations may
            assert conn.execute(
                "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
            ).fetchone() == (False,)
        with psycopg.connect(url) as conn:
            stored = conn.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role]).fetchone()
        assert stored is not None and scram_matches(stored[0], password)
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {role} WITH (FORCE)".encode())
            conn.execute(f"DROP ROLE IF EXISTS {role}".encode())
        database_template.drop(name)


def scram_matches(stored: str, password: str) -> bool:
    """Whether PostgreSQL's SCRAM verifier is of this password: a test server may trust everybody."""
    import base64
    import hashlib
    import hmac

    _, rest = stored.split("$", 1)
    head, keys = rest.split("$")
    iterations, salt = head.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    return base64.b64encode(hashlib.sha256(client).digest()).decode() == keys.split(":")[0]


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (404, 1), (503, 1)])
def test_a_server_is_healthy_when_it_answers(status: int, code: int) -> None:
    """401 is an answer: `/metrics` may ask for a token."""
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run(sys.executable, HEALTH, "http", str(server.server_port), f"/{status}")
        server.shutdown()
    assert done.returncode == code


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    """The plain case."""
    assert run(sys.executable, HEALTH, "http", str(free_ports(1)[0]), "/healthz").returncode == 1


def test_workers_are_healthy_while_the_master_has_running_children(tmp_path: Path) -> None:
    """A stopped or dead worker process looks alive from outside."""
    word = f"hub-health-{os.getpid()}"
    loop = "echo up; while :; do sleep 0.05; done"
    master = subprocess.Popen(["sh", "-c", f"sh -c '{loop}' & echo $!; wait", word], stdout=subprocess.PIPE, text=True)
    assert master.stdout is not None
    lines = {master.stdout.readline().strip(), master.stdout.readline().strip()}
    (child,) = [int(line) for line in lines if line.isdigit()]
    try:
        check = (sys.executable, HEALTH, "processes", word)
        assert run(*check, "1").returncode == 0
        assert run(*check, "2").returncode == 1
        os.kill(child, signal.SIGSTOP)
        assert run(*check, "1").returncode == 1
        assert run(*check, "0").returncode == 0
    finally:
        os.kill(child, signal.SIGKILL)
        master.kill()
        master.wait()
        master.stdout.close()
    assert run(*check, "0").returncode == 1


def test_the_containers_init_does_not_count_as_the_process_it_started(tmp_path: Path) -> None:
    """docker-init repeats the command in its own command line and always has a child."""
    init = tmp_path / "docker-init"
    shutil.copy("/bin/sh", init)
    word = f"hub-init-{os.getpid()}"
    process = subprocess.Popen(
        [init, "-c", "sleep 60 & echo up; wait", word], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    try:
        assert run(sys.executable, HEALTH, "processes", word, "1").returncode == 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_wrong_call_says_how(tmp_path: Path) -> None:
    """Exit 2 marks a mistake in the deployment, not a sick process."""
    assert run(sys.executable, HEALTH, "nonsense").returncode == 2
