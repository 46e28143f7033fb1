"""What the bench needs beside the tests' things: nginx, and the peers' packages (uv's group `bench`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import provision


def ready() -> bool:
    """Whether the bench can run; installs what is missing where it may, and says what it cannot."""
    if provision.main():
        return False
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
    if not shutil.which("nginx", path=path) and not provision.install(["nginx-light"]):
        print("nginx is missing, the target that every row posts to: apt-get install nginx-light", file=sys.stderr)
        return False
    if not shutil.which("wrk") and not provision.install(["wrk"]):
        print("wrk is missing, the client of the acceptance rows: apt-get install wrk", file=sys.stderr)
        return False
    if importlib.util.find_spec("celery") is None:
        own = Path(sys.prefix) / ".uv" / "bin" / "uv"
        uv = str(own) if own.exists() else "uv"
        done = subprocess.run([uv, "sync", "--quiet", "--frozen", "--inexact", "--group", "bench"], check=False)
        importlib.invalidate_caches()
        if done.returncode:
            print("Celery is missing: uv sync --group bench", file=sys.stderr)
            return False
    return True
