"""Every `hub` command that the deployment runs, or tells people to run at 3 a.m., is one that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from hub.cli.app import app
from hub.cli.common import parse_time
from hub.cli.tasks import TASKS
from hub.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, documents

HUB: Any = typer.main.get_command(app)
PAGES = sorted([*DEPLOY.rglob("*.md"), ROOT / "grafana" / "README.md"])
STANDS_FOR = {"SERVICE": "crm", "RULE": "to-crm", "ID": "7", "TASK_ID": "7", "SESSION": "7"}


def written(text: str) -> Iterator[str]:
    """Commands in code blocks and in inline code, without their comments."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (re.sub(r"\s#\s.*", "", line) for line in re.sub(r"\\\n\s*", "", block).splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def shown() -> Iterator[tuple[str, str]]:
    """File and words after `hub`."""
    for page in PAGES:
        for line in written(page.read_text()):
            if found := re.search(r"(?:^|entrypoint\.sh |/)hub((?: [^\s>|;&]+)+)", line.strip()):
                yield page.name, found[1].strip()
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        for found in re.findall(r"^Exec\w+=.*/bin/hub (.*)$", unit.read_text(), re.MULTILINE):
            yield unit.name, found
    for name, service in documents(DEPLOY / "compose.yaml")[0]["services"].items():
        if service.get("command", [None])[0] == "hub":
            yield f"compose {name}", " ".join(service["command"][1:])
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for words in re.findall(r"args: \[hub, ([^\]]+)\]", path.read_text()):
            yield path.name, words.replace(",", "")


SHOWN = sorted(set(shown()))


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command, and the words that are its arguments."""
    command, rest = HUB, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no `hub {' '.join(words)}`"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_there_is_something_to_check() -> None:
    """Runbooks, units, compose, manifests: each is read."""
    places = {place for place, _ in SHOWN}
    assert len(places & {path.name for path in (DEPLOY / "runbooks").glob("*.md")}) >= 14
    assert {"README.md", "hub-worker@.service", "compose worker", "worker.yaml", "migrate.yaml"} <= places


@pytest.mark.parametrize(("place", "words"), SHOWN, ids=[f"{p}: {w}" for p, w in SHOWN])
def test_a_command_exists_with_its_options(place: str, words: str) -> None:
    """Parsed by the hub's own command line; a name alone in prose stands for its whole command."""
    command, rest = leaf([STANDS_FOR.get(word, word) for word in shlex.split(words)])
    if rest == ["--version"]:
        return
    if not rest and place.endswith(".md"):
        return
    with command.make_context(command.name, rest) as context:
        if since := context.params.get("since"):
            parse_time(since)
        if task := context.params.get("task"):
            assert task in TASKS or str(task).isdigit()


def test_each_deployed_process_is_a_command() -> None:
    """One image, one command line for each of the hub's processes."""
    for kind in ("compose ", ".service", ".yaml"):
        used = {words.split()[0] for place, words in SHOWN if kind in place}
        assert {"web", "worker", "scheduler", "exporter", "migrate"} <= used, kind


NOT_SETTINGS = {
    "HUB_IMAGE",
    "HUB_WEB_BIND",  # compose's own
    "HUB_DB_HOST",
    "HUB_BROKER_HOST",  # of make-secrets.sh
    "HUB_BUILD_COMMIT",  # of the build hook
    "HUB_DB_PASSWORD",
    "HUB_PASSWORD",  # of the scripts that make users
}


@pytest.mark.parametrize("folder", ["", "systemd", "kubernetes", "runbooks", "rabbitmq", "postgres", "prometheus"])
def test_every_variable_named_in_a_file_is_a_setting(folder: str) -> None:
    """The hub ignores a variable that it does not know, and nobody notices."""
    known = {f"HUB_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    for path in (DEPLOY / folder).iterdir():
        if path.is_file() and path.name != ".env":
            named = set(re.findall(r"\bHUB_[A-Z]+(?:_[A-Z]+)*\b(?![_<*])", path.read_text()))
            assert {name.removesuffix("_FILE") for name in named} <= known, path.name


def test_the_deployment_starts_from_the_hubs_own_defaults() -> None:
    """Numbers that were measured once and copied go stale."""
    given = dict(re.findall(r"^(HUB_[A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    (config,) = documents(DEPLOY / "kubernetes" / "configmap.yaml")
    for name in ("processes", "threads", "db_pool"):
        default = str(Settings.model_fields[name].default)
        variable = f"HUB_{name.upper()}"
        assert given[variable] == config["data"][variable] == default
        assert f"{variable}: ${{{variable}:-{default}}}" in (DEPLOY / "compose.yaml").read_text()
