"""Run before the tests by `make test`: installs RabbitMQ, MariaDB, Prometheus, Chromium, libfaketime, PgBouncer.

`python -m tests.support.provision` installs the distribution's packages when it may; the services that
come with them are neither started nor enabled, for the tests only want the programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support import clocks, mariadb, pgbouncer, prometheus
from tests.support.rabbit import MISSING, binaries

_INSTALL = """
set -e
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@"
if command -v systemctl > /dev/null; then
    systemctl --quiet disable "$@" || true
fi
"""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_EYES = ["prometheus", "prometheus-alertmanager"]


def main() -> int:
    """0: the tests can run. 1: there is no RabbitMQ, and what to do was printed."""
    if not prometheus.installed() and not (install(_EYES) and prometheus.installed()):
        print(prometheus.MISSING, file=sys.stderr)  # those tests are skipped, and say so
    if not browser() and not (install(["chromium"]) and browser()):
        print("no Chromium: the console's tests are skipped; install one: apt-get install chromium", file=sys.stderr)
    if not clocks.library() and not (install(["libfaketime"]) and clocks.library()):
        print(clocks.MISSING, file=sys.stderr)
    if not mariadb.installed() and not (install(["mariadb-server"]) and mariadb.installed()):
        print(mariadb.MISSING, file=sys.stderr)
    if not pgbouncer.program() and not (install(["pgbouncer"]) and pgbouncer.program()):
        print(pgbouncer.MISSING, file=sys.stderr)
    if os.environ.get("HUB_TEST_BROKER_URL") or binaries() or (install(["rabbitmq-server"]) and binaries()):
        return 0
    print(MISSING, file=sys.stderr)
    return 1


def browser() -> str | None:
    """A Chromium of the system; Playwright brings its own only where it may download it."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def install(packages: list[str]) -> bool:
    """Install packages, as root or with a sudo that asks nothing; whether that worked."""
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    allowed = not become or (
        shutil.which("sudo") and subprocess.run([*become, "true"], capture_output=True, check=False).returncode == 0
    )
    if not allowed or not shutil.which("apt-get"):
        return False
    print(f"installing {', '.join(packages)} (no service is started)", file=sys.stderr)
    command = [*become, "sh", "-c", _INSTALL, "sh", *packages]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        print(done.stderr.decode(errors="replace")[-2000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
