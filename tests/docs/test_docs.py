"""The pages build, and the commands, fields, routes and links in them exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from hub.app.lifecycle import build
from hub.cli.app import app
from hub.config.definitions import RuleSpec, ServiceSpec
from hub.config.sources import SourceSpec
from hub.settings import Settings
from hub.web.server import make_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PATIENCE = 300  # seconds, on a machine that has a lot to do


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )


def test_the_generated_reference_is_up_to_date() -> None:
    """Settings, commands and metrics are listed as the code has them."""
    done = _run("scripts/reference.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """A broken link or reference is a warning, and a warning is an error."""
    done = _run("-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "first-rule" in (tmp_path / "index.html").read_text("utf-8")


def _code(text: str) -> Iterator[str]:
    """Lines of shell blocks, and inline code."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if not language:
            yield from re.sub(r"\\\n\s*", "", block).splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose))


def _commands(text: str) -> Iterator[list[str]]:
    """The words after `hub` of every command shown."""
    for line in _code(text):
        for piece in re.split(r" (?:&|&&|·|\|) ?|\$\(", re.sub(r"\s#\s.*", "", line)):
            if match := re.fullmatch(r"(?:\.venv/bin/)?hub((?: [^\s)]+)+)\)?.*", piece.strip()):
                yield match[1].split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_page_exists(page: Path) -> None:
    """Command, subcommand and options."""
    root: Any = typer.main.get_command(app)
    for words in _commands(page.read_text("utf-8")):
        command, names = root, list(words)
        while hasattr(command, "commands") and names and not names[0].startswith("-"):
            assert names[0] in command.commands, f"hub {' '.join(words)}"
            command = command.commands[names.pop(0)]
        options = {o for parameter in command.params for o in [*parameter.opts, *parameter.secondary_opts]}
        given = {word.partition("=")[0] for word in names if word.startswith("--")}
        assert given <= options | {"--help"}, f"hub {' '.join(words)}"


@pytest.mark.parametrize(("page", "spec"), [("services", ServiceSpec), ("rules", RuleSpec), ("sources", SourceSpec)])
def test_every_field_of_a_definition_is_explained(page: str, spec: type[BaseModel]) -> None:
    """With its default, where that is a number."""
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text("utf-8")
    rows = text.split("\n\n")[1].splitlines()[2:]
    explained = {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(explained) == set(spec.model_fields)
    for name, field in spec.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"| {field.default:g} |" in explained[name], name


def test_every_make_target_shown_exists() -> None:
    """In any page."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        target
        for page in PAGES
        for line in _code(page.read_text("utf-8"))
        if (match := re.match(r"make ((?:[a-z]+ ?)+)", line))
        for target in match[1].split()
    }
    assert {"demo", "up", "test", "docs"} <= shown <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    """Pages outside of docs/ are not seen by the generator."""
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text("utf-8")):
        if not link.startswith("https://"):
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_the_http_api_page_names_every_collection(settings: Settings) -> None:
    """And no path that does not exist."""
    with build(settings, role="web") as hub:
        paths = set(make_app(hub).openapi()["paths"])
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    shown = set(re.findall(r"/(?:api/v1|webhook|healthz|readyz|metrics)[\w/{}-]*", page))
    assert {path.rstrip("/") for path in shown} - {"/api/v1"} <= paths
    collections = {path.split("/")[3] for path in paths if path.startswith("/api/v1/")}
    assert collections <= set(re.findall(r"[\w-]+", page))
