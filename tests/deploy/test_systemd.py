"""deploy/systemd: checked by systemd itself where it is installed, and by rules everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hub.settings import Settings
from tests.deploy.files import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROCESSES = ("web", "worker@", "scheduler", "exporter")
MOST_EXPOSED = 15  # tenths; systemd calls up to 4.0 OK, an unhardened service has 9.6
unit = pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def values(path: Path, key: str) -> list[str]:
    """All values of a key."""
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.M)


def test_every_process_has_a_unit() -> None:
    """And the target starts what comes before them."""
    names = {p.name for p in UNITS}
    assert names == {f"hub-{p}.service" for p in (*PROCESSES, "migrate", "metrics")}


@needs_systemd
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    """systemd ignores lines that it does not understand: a typing error in a hardening line switches it off."""
    for path in [*UNITS, DEPLOY / "systemd" / "hub.target"]:
        text = path.read_text().replace("/opt/hub/share/deploy/entrypoint.sh", "/bin/sh")
        (tmp_path / path.name.replace("@.", "@1.")).write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "hub" in line]
    assert not complaints
    assert done.returncode == 0, done.stderr


@needs_systemd
@unit
def test_systemd_rates_every_unit_as_hardened(path: Path) -> None:
    """The worst that a broken-in process can do is what the hub itself can."""
    if "offline" not in subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True).stdout:
        pytest.skip("this systemd rates running units only")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@unit
def test_secrets_come_as_credentials(path: Path) -> None:
    """`systemctl show` prints the environment to everybody."""
    for entry in values(path, "Environment"):
        name, _, value = entry.partition("=")
        if name.startswith("HUB_"):
            assert (
                name.endswith("_FILE")
                and name.removesuffix("_FILE").removeprefix("HUB_").lower() in Settings.model_fields
            )
            assert value.removeprefix("%d/") in {c.partition(":")[0] for c in values(path, "LoadCredential")}
    for entry in values(path, "LoadCredential"):
        assert re.fullmatch(r"(\w+):/etc/hub/secrets/\1", entry)


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_are_started_again_and_may_finish_their_work(name: str) -> None:
    """The master of the workers ends when one worker is killed; a database may be away for hours."""
    path = DEPLOY / "systemd" / f"hub-{name}.service"
    assert values(path, "Restart") == ["always"] and values(path, "StartLimitIntervalSec") == ["0"]
    assert values(path, "KillSignal") == ["SIGTERM"] and values(path, "KillMode") == ["mixed"]
    assert int(values(path, "TimeoutStopSec")[0]) >= 15
    assert values(path, "User") == ["hub"]
    assert values(path, "ExecStart") == [
        f"/opt/hub/share/deploy/entrypoint.sh /opt/hub/bin/hub {name.removesuffix('@')}"
    ]


def test_counters_survive_the_restart_of_one_process() -> None:
    """Only the target's start empties the shared folder."""
    for name in PROCESSES:
        path = DEPLOY / "systemd" / f"hub-{name}.service"
        assert values(path, "RuntimeDirectoryPreserve") == ["yes"]
        assert "PROMETHEUS_MULTIPROC_DIR=/run/hub/metrics" in values(path, "Environment")
        assert "hub-metrics.service" in values(path, "After")[0]
    assert values(DEPLOY / "systemd" / "hub-metrics.service", "RemainAfterExit") == ["yes"]


def test_every_variable_of_the_example_is_a_setting() -> None:
    """A misspelt variable is silently ignored by the hub."""
    names = re.findall(r"^HUB_([A-Z_]+)=", (DEPLOY / "systemd" / "hub.env.example").read_text(), re.M)
    assert names and {n.lower() for n in names} <= set(Settings.model_fields)
