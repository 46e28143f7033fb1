"""deploy/compose.yaml obeys the rules that keep a deployment safe. Docker does not run here: nothing is started."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.settings import Settings
from tests.deploy.files import DEPLOY, documents

COMPOSE = DEPLOY / "compose.yaml"
(FILE,) = documents(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("migrate", "web", "worker", "scheduler", "exporter")
every_service = pytest.mark.parametrize("name", SERVICES)


def defaults(value: str) -> str:
    """What compose makes of a value when .env is empty."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)


def test_everything_that_the_hub_needs_is_there() -> None:
    """Broker, ledger, four processes, migration, monitoring."""
    assert set(SERVICES) == {"postgres", "rabbitmq", *OURS, "prometheus", "alertmanager", "grafana"}


def test_a_security_linter_finds_nothing_serious() -> None:
    """compose-lint knows OWASP's and the CIS benchmark's list: capabilities, root, sockets, privileges."""
    linter = Path(sys.executable).with_name("compose-lint")
    done = subprocess.run([linter, "check", COMPOSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """Docker's published ports go around the host's firewall."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", defaults(port)), port


def test_ledger_and_broker_are_published_nowhere() -> None:
    """And their networks lead nowhere."""
    assert "ports" not in SERVICES["postgres"] and "ports" not in SERVICES["rabbitmq"]
    assert FILE["networks"]["ledger"]["internal"] and FILE["networks"]["broker"]["internal"]
    assert SERVICES["postgres"]["networks"] == ["ledger"]
    assert set(SERVICES["rabbitmq"]["networks"]) <= {"broker", "monitoring"}
    assert FILE["networks"]["monitoring"]["internal"]


@every_service
def test_every_service_is_checked_limited_and_pinned(name: str) -> None:
    """A service without a limit takes the others down with it; one without a tag changes overnight."""
    service = SERVICES[name]
    health = service["healthcheck"]
    assert health.get("disable") if name == "migrate" else health["test"][0] == "CMD"
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    image = defaults(service["image"])
    tag = image.rpartition(":")[2]
    assert ":" in image and tag != "latest"
    assert name in OURS or re.search(r"\d+\.\d+", tag), f"{image} names no exact version"


@every_service
def test_every_service_runs_with_as_little_as_possible(name: str) -> None:
    """Not root, nothing writable but its data, no capability, logs that end."""
    service = SERVICES[name]
    assert service["user"].split(":")[0] != "0"
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged") and service["logging"]["options"]["max-size"]


@every_service
def test_secrets_are_files(name: str) -> None:
    """`docker inspect` shows the environment to everybody who may use Docker."""
    service = SERVICES[name]
    for variable, value in (service.get("environment") or {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEY|_URL", variable) and variable != "HUB_PUBLIC_URL":
            assert variable.endswith("FILE"), f"{variable} is not read from a file"
            assert str(value).startswith("/run/secrets/") and value.rpartition("/")[2] in service["secrets"]
    assert not re.search(r"://[^/\s]*:[^/\s$]*@", yaml.safe_dump(service)), "a URL with a password"
    assert set(service.get("secrets", [])) <= set(FILE["secrets"])


def test_only_who_delivers_reaches_the_outside() -> None:
    """Workers deliver, web has the test button, Alertmanager has receivers: nobody else needs a way out."""
    assert {n for n, s in SERVICES.items() if "outside" in s["networks"]} == {"web", "worker", "alertmanager"}


@every_service
def test_what_is_mounted_from_the_repository_is_there_and_read_only(name: str) -> None:
    """Docker makes an empty folder of a missing one, and the service starts without its configuration."""
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, str) and volume.startswith("."):
            source, _, mode = volume.split(":")
            assert mode == "ro", volume
            assert (DEPLOY / source).exists(), volume


def test_every_hub_variable_is_a_setting() -> None:
    """A misspelt variable is silently ignored by the hub."""
    known = {f"HUB_{field.upper()}" for field in Settings.model_fields}
    example = re.findall(r"^(HUB_[A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.M)
    used = [v for n in OURS for v in SERVICES[n]["environment"]]
    for variable in {*used, *example} - {"HUB_IMAGE", "HUB_WEB_BIND"}:
        assert variable.removesuffix("_FILE") in known, variable


def test_the_example_environment_has_what_compose_asks_for_and_no_secret() -> None:
    """People copy it, and then commit it."""
    text = (DEPLOY / ".env.example").read_text()
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.M))
    asked = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    assert asked == set(given)
    assert not [n for n in given if re.search(r"PASSWORD|SECRET|TOKEN|KEYS", n)]


def test_the_proxy_in_front_is_believed_and_nobody_else() -> None:
    """Else every client has the address of Docker's gateway, and one attacker's wrong passwords lock out all."""
    trusted = defaults(SERVICES["web"]["environment"]["HUB_TRUSTED_PROXIES"])
    (pool,) = FILE["networks"]["outside"]["ipam"]["config"]
    network = ipaddress.ip_network(defaults(pool["subnet"]))
    assert trusted == str(network[1]), "Docker gives the gateway the first address"
    published = [n for n in SERVICES["web"]["networks"] if not (FILE["networks"][n] or {}).get("internal")]
    assert published == ["outside"], "the one network through which a published port is reached"


def test_processes_that_count_share_one_folder_in_memory() -> None:
    """The exporter sees only the counters that lie in its folder (README.md, "Metrics")."""
    for name in ("web", "worker", "scheduler", "exporter"):
        volume = SERVICES[name]["volumes"][0]
        assert (volume["source"], volume["target"]) == ("metrics", "/run/hub/metrics")
    assert FILE["volumes"]["metrics"]["driver_opts"]["type"] == "tmpfs"


def test_hub_processes_start_after_the_migration() -> None:
    """A worker on an old schema fails; a migration beside running workers is not what was tested."""
    for name in ("web", "worker", "scheduler", "exporter"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["command"] == ["hub", name]
