"""`--set key=value`: fields of a service or rule on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import read_text, usage
from hub.codec import loads
from hub.errors import PayloadError

if TYPE_CHECKING:
    from hub.config.definitions import RuleSpec, ServiceSpec

Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other field, dotted: auth.header=X-Key, rate_limit=5."),
]


def collect(fields: list[str] | None, **options: Any) -> dict[str, Any]:
    """Given options and `--set` fields. A value is parsed as JSON if it is JSON, else it is text."""
    found = {key: value for key, value in options.items() if value is not None}
    for pair in fields or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise usage(f"--set {pair!r}: expected key=value")
        node = found
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise usage(f"--set {key}: {parent} is not an object")
        text = secret(text)
        try:
            node[last] = text if _TEXT.search(key) else loads(text)
        except PayloadError:
            node[last] = text
    return found


# Fields that are always text, such as a key of digits or a header `true`.
_TEXT = re.compile(
    r"^(auth|inbound|headers|secret_headers)\.|^(name|event|service|endpoint|base_url|response_queue)$"
    r"|_(secret|secret_old|file|cert|key)$"
)


def keep_others(fields: list[str] | None, given: dict[str, Any], current: dict[str, Any]) -> None:
    """Keep the other headers: `--set headers.X=1` changes one, `--set headers={}` replaces all."""
    for part in ("headers", "secret_headers"):
        if part in given and not any(pair.startswith(f"{part}=") for pair in fields or []):
            given[part] = {**current.get(part, {}), **given[part]}


def secret(text: str) -> str:
    """The value, or the content of the file (`@FILE`) or variable (`env:NAME`), so that `ps` shows no secret."""
    if text.startswith("env:"):
        from hub.settings import from_environment

        value = from_environment(text[4:])
        if value is None:
            raise usage(f"the environment has no {text[4:]}")
        return value
    return read_text(text).rstrip("\r\n") if text.startswith("@") else text


_REQUIRED = re.compile(r"([a-z_.]+): Field required")
_OPTIONS = {"base_url": "--base-url", "auth.token": "--token", "event": "--event", "service": "--service"}


def spec(kind: type[ServiceSpec] | type[RuleSpec], values: dict[str, Any]) -> Any:
    """Check a service or rule. Raises `ConfigError`, which names missing fields by their options."""
    from hub.config.definitions import parse_spec
    from hub.errors import ConfigError

    def option(match: re.Match[str]) -> str:
        return f"{match[1]}: required; give {_OPTIONS.get(match[1], f'--set {match[1]}=VALUE')}"

    try:
        return parse_spec(kind, values)
    except ConfigError as e:
        raise ConfigError(_REQUIRED.sub(option, str(e)), field=e.field) from None
