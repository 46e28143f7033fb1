"""What every row runs on: one private PostgreSQL (fsync on), one private RabbitMQ, one nginx that answers 204."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg

from tests.bench.job import TABLE
from tests.support.databases import PostgresServer, Template
from tests.support.rabbit import RabbitNode, free_ports

_TICKS = os.sysconf("SC_CLK_TCK")
_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    keepalive_requests 1000000000;
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 204; }} }}
}}
"""


class Rig:
    """The servers. Close it when done."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub-bench-"))
        self._running: list[subprocess.Popen[bytes]] = []
        self.postgres = PostgresServer(durable=True, options={"max_connections": "300"})
        self.rabbit = RabbitNode()
        try:
            self.postgres.start()
            self.rabbit.start()
            self.template = Template(self.postgres.url)
            fast, slow = free_ports(2)
            self.fast = f"http://127.0.0.1:{fast}"
            self.slow = f"http://127.0.0.1:{slow}"
            self._start_nginx(fast)
            self.start([sys.executable, "-m", "tests.bench.target", str(slow)])
            for port in (fast, slow):
                wait_for(partial(_listens, port), 10, "a target")
        except BaseException:
            self.close()
            raise

    def _start_nginx(self, port: int) -> None:
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise RuntimeError("nginx is not installed: apt-get install nginx-light")
        config = self.folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=self.folder, port=port))
        self.start([program, "-c", str(config), "-p", str(self.folder), "-e", str(self.folder / "error.log")])

    def start(self, command: Sequence[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process that ends with the rig at the latest; what it prints goes to `output` in the folder."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        self._running.append(process)
        return process

    @contextmanager
    def running(self, commands: Sequence[Sequence[str]], env: dict[str, str]) -> Iterator[list[int]]:
        """Processes for one measurement; gives their pids."""
        processes = [self.start(command, env) for command in commands]
        try:
            yield [p.pid for p in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                self._running.remove(process)

    def database(self) -> str:
        """The URL of a migrated database that nobody has used, with a table for the peers' rows."""
        url = self.template.clone()[1]
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(TABLE)
            conn.execute("CHECKPOINT")
        return url

    def broker(self) -> str:
        """The URL of an empty vhost."""
        return self.rabbit.new_vhost()

    def output(self) -> str:
        """The end of what the processes printed."""
        return (self.folder / "output").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End everything."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.rabbit.close()
        self.postgres.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(condition: Callable[[], object], seconds: float, what: str, every: float = 0.05) -> None:
    """Poll until it holds.

    Raises:
        TimeoutError: names `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)


def memory(pids: Sequence[int]) -> float:
    """Proportional set size of processes and all of their children, MB."""
    total, left = 0, list(pids)
    while left:
        pid = left.pop()
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration):
            continue
    return total / 1024


def cpu(pids: Sequence[int]) -> float:
    """CPU time of processes and all of their children that live, s."""
    total, left = 0.0, list(pids)
    while left:
        pid = left.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / _TICKS
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
