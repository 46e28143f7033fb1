"""Run before the tests by `make test`: sees to it that there is a RabbitMQ to start nodes from.

`python -m tests.support.provision` installs the distribution's package when it may; the service that
comes with it is neither started nor enabled, for the tests only want its programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

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
apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install rabbitmq-server
if command -v systemctl > /dev/null; then
    systemctl --quiet disable rabbitmq-server || true
fi
"""


def main() -> int:
    """0: there is a RabbitMQ now. 1: there is none, and what to do was printed."""
    if os.environ.get("HUB_TEST_BROKER_URL") or binaries():
        return 0
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    allowed = not become or (
        shutil.which("sudo") and subprocess.run([*become, "true"], capture_output=True, check=False).returncode == 0
    )
    if not allowed or not shutil.which("apt-get"):
        print(MISSING, file=sys.stderr)
        return 1
    print("RabbitMQ is not installed: installing the package rabbitmq-server (its service stays off)", file=sys.stderr)
    done = subprocess.run([*become, "sh", "-c", _INSTALL], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode or not binaries():
        print(done.stderr.decode(errors="replace")[-2000:], MISSING, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
