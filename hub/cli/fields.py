"""`--set key=value`: fields of a service or rule on the command line."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from hub.cli.common import read_text, usage
from hub.codec import loads
from hub.errors import PayloadError

Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other field, dotted: auth.header=X-Key, rate_limit=5."),
]


def collect(fields: list[str] | None, **options: Any) -> dict[str, Any]:
    """Options that were given, and `--set` fields: JSON where it is JSON, text where it is not."""
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
                raise usage(f"--set {key}: {parent} is no object")
        text = secret(text)
        try:
            node[last] = text if _TEXT.search(key) else loads(text)
        except PayloadError:
            node[last] = text
    return found


# These are texts whatever they look like: a key of digits, a header that says `true`.
_TEXT = re.compile(r"^(auth|inbound|headers|secret_headers)\.|^(name|event|service|endpoint|base_url|response_queue)$"
                   r"|_(secret|secret_old|file|cert|key)$")  # fmt: skip


def keep_others(fields: list[str] | None, given: dict[str, Any], current: dict[str, Any]) -> None:
    """`--set headers.X=1` changes one header; the others stay. `--set headers={}` replaces them all."""
    for part in ("headers", "secret_headers"):
        if part in given and not any(pair.startswith(f"{part}=") for pair in fields or []):
            given[part] = {**current.get(part, {}), **given[part]}


def secret(text: str) -> str:
    """The value, or what is in the file (`@file`) or variable (`env:NAME`) it names: secrets stay out of `ps`."""
    if text.startswith("env:"):
        from hub.settings import from_environment

        value = from_environment(text[4:])
        if value is None:
            raise usage(f"the environment has no {text[4:]}")
        return value
    return read_text(text).rstrip("\r\n") if text.startswith("@") else text
