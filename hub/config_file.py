"""The configuration file as text: YAML into data with its variables put in, and data back into YAML.

`${NAME}` stands for a variable of the environment. It is put in after the YAML was parsed, so no value can
break the file; `$${NAME}` stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from hub.errors import ConfigError

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile("\ue000(\\w+)\ue001")
_PARTS = ("services", "rules", "schedules")
_MOST_NODES = 200_000


class _Loader(yaml.SafeLoader):
    """YAML that says what JSON can say: no dates, sets or bytes, and no key twice."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} comes twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _refuse(loader: _Loader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(None, None, f"{node.tag} is nothing that JSON can say", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse)


def parse(text: str, variable: Callable[[str], str | None]) -> dict[str, Any]:
    """The file as data, with its variables put in.

    Args:
        variable: gives a variable's value, None when it is not set.

    Raises:
        ConfigError: not YAML, a variable that is not set, or an unknown part.
    """
    marks: dict[str, tuple[str, bool]] = {}

    def mark(match: re.Match[str]) -> str:
        key = f"HUBVAR{len(marks)}X{match[2]}X"
        while key in text:
            key += "X"
        marks[key] = match[2], bool(match[1])
        return key

    marked = _VARIABLE.sub(mark, text)
    try:
        document = yaml.load(marked, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as e:
        at = getattr(e, "problem_mark", None)
        where = f" at line {at.line + 1} column {at.column + 1}" if at else ""
        raise ConfigError(f"not YAML{where}: {getattr(e, 'problem', None) or 'cannot be read'}") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except (ValueError, LookupError):  # `!!int a`
        raise ConfigError("not YAML: a value is not what its tag says") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"expected an object with {', '.join(_PARTS)}")
    if unknown := sorted(str(key) for key in document if key not in _PARTS):
        raise ConfigError(f"unknown part; known: {', '.join(_PARTS)}", field=unknown[0])
    pattern = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True)))) if marks else None
    missing: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        name, literal = marks[match[0]]
        if literal:
            return f"${{{name}}}"
        value = variable(name)
        if value is None:
            missing.append(name)
        return value or ""

    nodes = 0

    def fill(node: Any) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > _MOST_NODES:
            raise ConfigError(f"has more than {_MOST_NODES} values, aliases counted")
        if isinstance(node, str):
            return pattern.sub(value_of, node) if pattern else node
        if isinstance(node, dict):
            return {fill(key): fill(value) for key, value in node.items()}
        return [fill(value) for value in node] if isinstance(node, list) else node

    filled: dict[str, Any] = fill(document)
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise ConfigError(f"the environment does not set {names}, which the file asks for as ${{{missing[0]}}}")
    return filled


def dump(document: dict[str, Any], variables: list[str]) -> str:
    """The file as text, headed by the variables it needs. A secret is what `reference` gave for it."""
    text = yaml.dump(
        {part: _literal(value) for part, value in document.items()},
        Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=100,
    )  # fmt: skip
    needs = "".join(f"#   {name}\n" for name in variables)
    head = (
        f"# Written by `hub export`; `hub apply` reads it.\n{'# It needs these variables:' + chr(10) if needs else ''}"
    )
    return head + needs + text


def reference(name: str) -> str:
    """What `dump` writes as `${NAME}`."""
    return f"\ue000{name}\ue001"


def _literal(value: Any) -> Any:
    """The same for the file: secrets as variables, and what only looks like a variable marked as none."""
    if isinstance(value, str):
        return _SECRET.sub(r"${\1}", _VARIABLE.sub(lambda match: f"{match[1]}$${{{match[2]}}}", value))
    if isinstance(value, dict):
        return {_literal(k): _literal(v) for k, v in value.items()}
    return [_literal(v) for v in value] if isinstance(value, list) else value
