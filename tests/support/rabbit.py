"""A private RabbitMQ node from the installed binaries: own ports, own folder, own epmd, own cookie."""

from __future__ import annotations

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pika

MISSING = (
    "RabbitMQ is not installed. Either\n"
    "  * run `make test` as root or with passwordless sudo: it installs Debian's or Ubuntu's package, or\n"
    "  * install it: apt-get install rabbitmq-server   (its service need not run), or\n"
    "  * name a broker for the tests: HUB_TEST_BROKER_URL=amqp://user:password@host:5672/vhost"
)
_PLACES = (
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq_server-*/sbin",
)
_KEEPER = Path(__file__).with_name("keeper.py")
_VHOSTS = 20  # made at a time: one call of rabbitmqctl takes a second, whatever it does


def binaries() -> Path | None:
    """The folder of the real scripts, not of Debian's wrappers, which insist on the system's node."""
    found = sorted(p for place in _PLACES for p in glob.glob(place) if Path(p, "rabbitmq-server").exists())
    return Path(found[-1]) if found and shutil.which("erl") else None


_taken: set[int] = set()  # also those of nodes that are stopped just now


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range from which the system takes outgoing ones.

    Test runs at the same time begin at different places, so that they do not race for one port.
    """
    low, size = 20000, 12000
    begin = os.getpid() * 16
    ports: list[int] = []
    for i in range(size):
        port = low + (begin + i) % size
        if port in _taken:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            _taken.update(ports)
            return ports
    raise RuntimeError("no free ports between 20000 and 32000")


class RabbitNode:
    """One node. `url` is its default vhost; `new_vhost()` gives an empty one.

    Args:
        beside: another node, which runs: `join` can make this one a member of its cluster.
    """

    def __init__(self, *, management: bool = False, beside: RabbitNode | None = None) -> None:
        sbin = binaries()
        if sbin is None:
            raise RuntimeError(MISSING)
        self._sbin = sbin
        self.folder = Path(tempfile.mkdtemp(prefix="hub-test-rabbit-"))
        self.port, dist, epmd, web = free_ports(4)
        self.management_port = web if management else None
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._epmd_port: int = epmd if beside is None else beside._epmd_port
        self._keeper: subprocess.Popen[bytes] | None = None
        self._vhosts: list[str] = []
        self.name = name = f"hubtest{uuid.uuid4().hex[:8]}@localhost"
        plugins = ["rabbitmq_management"] if management else []
        (self.folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "default_user = guest\ndefault_pass = guest\n"
            "disk_free_limit.absolute = 10MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "log.console = false\n"
            f"load_definitions = {self.folder / 'definitions.json'}\n"
            + (f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {web}\n" if management else "")
        )
        (self.folder / "definitions.json").write_text(json.dumps(_definitions(self._vhosts)))
        home = self.folder / "home"
        home.mkdir()
        if beside is not None:
            shutil.copy2(beside.folder / "home" / ".erlang.cookie", home)
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    @property
    def pid(self) -> int:
        """The process that started the node's processes, while it runs."""
        assert self._keeper is not None
        return self._keeper.pid

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        if self._keeper is not None:
            return
        epmd = shutil.which("epmd", path=self._env["PATH"]) or _erlang_epmd()
        with (self.folder / "output").open("ab") as output:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_KEEPER),
                    str(self.folder),
                    epmd,
                    "-port",
                    str(self._epmd_port),
                    "-address",
                    "127.0.0.1",
                    "--",
                    str(self._sbin / "rabbitmq-server"),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._answers():
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                text = self._output()
                self.close()
                raise RuntimeError(f"RabbitMQ did not start:\n{text}")
            time.sleep(0.05)

    def join(self, other: RabbitNode) -> None:
        """Become a member of the cluster of `other`; what this node held is lost."""
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("join_cluster", other.name)
        self.ctl("start_app")

    def stop(self) -> None:
        """A clean stop: durable queues and persistent messages stay."""
        if self._keeper is None:
            return
        self.ctl("stop", str(self.folder / "pid"), check=False)  # with the file's name it waits for the end
        self._end(keep=True)

    def kill(self) -> None:
        """SIGKILL: what the node had not written is lost."""
        self._end(keep=True)

    def restart(self) -> None:
        """Stop and start; the URL stays the same."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good and remove the folder."""
        self._end(keep=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *args: str, check: bool = True) -> str:
        """Run `rabbitmqctl`; takes about a second."""
        done = subprocess.run(
            [str(self._sbin / "rabbitmqctl"), "--quiet", *args],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def ctl_command(self) -> list[str]:
        """`rabbitmqctl` of this node as arguments of `env -i`: its environment, then the program."""
        return [*(f"{name}={value}" for name, value in self._env.items()), str(self._sbin / "rabbitmqctl")]

    def new_vhost(self) -> str:
        """The URL of a vhost that nobody has used yet."""
        if not self._vhosts:
            names: list[str] = []
            (self.folder / "more.json").write_text(json.dumps(_definitions(names)))
            self.ctl("import_definitions", str(self.folder / "more.json"))
            self._vhosts = names
        return self.url + self._vhosts.pop()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    def _output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-3000:]

    def _end(self, *, keep: bool) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        try:
            if keep:
                keeper.stdin.write(b"k")
            keeper.stdin.close()
        except BrokenPipeError:
            pass
        keeper.wait(timeout=30)


def _definitions(names: list[str]) -> dict[str, object]:
    """RabbitMQ definitions with a batch of new vhosts; adds their names to `names`."""
    names += [f"t{uuid.uuid4().hex[:10]}" for _ in range(_VHOSTS)]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
        "vhosts": [{"name": name} for name in ["/", *names]],
        "permissions": [{"user": "guest", "vhost": name, **everything} for name in ["/", *names]],
    }


def _erlang_epmd() -> str:
    found = sorted(glob.glob("/usr/lib/erlang/erts-*/bin/epmd") + glob.glob("/usr/lib64/erlang/erts-*/bin/epmd"))
    if not found:
        raise RuntimeError("Erlang's epmd was not found; install the package erlang-base")
    return found[-1]
