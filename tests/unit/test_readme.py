"""The README is held true: its settings, commands, targets and links are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import AliasChoices, BaseModel

from hub.cli.app import app
from hub.config.definitions import RuleSpec, ServiceSpec
from hub.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def _shown(value: Any, *, duration: bool) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    if duration:
        return next((f"{value / n:g}{unit}" for n, unit in _UNITS if value % n == 0), f"{value:g}s")
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """What the README says between its two marks."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"HUB_{name.upper()}"
        default = _shown(field.default, duration="Duration" in str(Settings.__annotations__[name]))
        rows.append(f"| `{variable}` | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(rows)


def with_settings(text: str) -> str:
    """The README with its table made anew."""
    marks = re.compile(r"(<!-- settings:[^\n]*-->\n).*?(<!-- /settings -->)", re.DOTALL)
    assert marks.search(text)
    return marks.sub(lambda m: f"{m[1]}{settings_table()}\n{m[2]}", text)


def _code() -> Iterator[str]:
    """Lines of code blocks that are no YAML or Python, and inline code."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        if not language:
            yield from re.sub(r"\\\n\s*", "", block).splitlines()
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    yield from (code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose))


def _commands() -> list[list[str]]:
    """The words after `hub` of every command shown; `list|show` stands for two."""
    found: list[list[str]] = []
    for line in _code():
        for piece in re.split(r" (?:&|&&|·) ?|\$\(", re.sub(r"\s#\s.*", "", line)):
            if match := re.match(r"(?:\.venv/bin/)?hub((?: [^\s)]+)+)", piece.strip()):
                words = match[1].split()
                found += [[*words[:1], choice, *words[2:]] for choice in (words[1].split("|") if words[1:] else [])]
                found += [words] if len(words) == 1 else []
    return found


def test_the_settings_table_is_made_of_the_settings() -> None:
    """A setting that is not documented does not exist for its users."""
    assert with_settings(README) == README, "run: .venv/bin/python -m tests.unit.test_readme"


def test_every_command_shown_exists() -> None:
    """Command, subcommand and options; and every command of the hub is shown."""
    root: Any = typer.main.get_command(app)
    commands = _commands()
    for words in commands:
        command, names = root, list(words)
        while hasattr(command, "commands") and names:
            assert names[0] in command.commands, f"hub {' '.join(words)}"
            command = command.commands[names.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in names if word.startswith("--")}
        assert given <= options, f"hub {' '.join(words)}"
    assert {words[0] for words in commands} == set(root.commands)


@pytest.mark.parametrize(("section", "spec"), [("Services", ServiceSpec), ("Rules", RuleSpec)])
def test_every_field_of_a_definition_is_explained(section: str, spec: type[BaseModel]) -> None:
    """With its default, where that is a number."""
    rows = README.split(f"\n## {section}\n")[1].split("\n\n")[0].splitlines()[2:]
    explained = {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(explained) | {"name"} == set(spec.model_fields)
    for name, field in spec.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"| {field.default:g} |" in explained[name], name


def test_every_make_target_shown_exists() -> None:
    """And every target is shown by `make help`."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {match[1] for line in _code() if (match := re.match(r"make ([a-z]+)", line))}
    assert {"demo", "up", "test"} <= shown <= targets


def test_every_link_leads_somewhere() -> None:
    """Files and folders exist, anchors are headings."""
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    for link in re.findall(r"\]\(([^)]+)\)", README):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert (ROOT / link.partition("#")[0]).exists(), link


if __name__ == "__main__":
    (ROOT / "README.md").write_text(with_settings(README), "utf-8")
