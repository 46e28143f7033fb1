"""The configuration file as text: YAML into data with its variables resolved, and data back into YAML.

`${NAME}` stands for a variable of the environment. It is resolved after the YAML is parsed, so no value can
break the file; `$${NAME}` stands for itself. While the YAML is parsed, a mark with a random number drawn for
this call stands for each variable: no text of a file, escaped or not, can contain one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from hub.codec import INT_DIGITS, TOO_LONG
from hub.errors import ConfigError

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PARTS = ("services", "sources", "rules", "schedules")
_MAX_VALUES = 1_000_000  # keys and values of a file
_MAX_DEPTH = 200
# libyaml, which the wheels of PyYAML contain, parses 20 times as fast as Python. Its composer recurses in C without
# a limit: `_check_size` must see a text first.
_Parser: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Reference:
    """What `dump` writes as `before${NAME}after`. An object, so no stored text can be taken for a reference."""

    name: str
    before: str = ""
    after: str = ""


class _Loader(_Parser):  # type: ignore[misc, valid-type]
    """YAML limited to what JSON can express: no dates, sets or bytes, and no duplicate key."""


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


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > INT_DIGITS:
        raise yaml.constructor.ConstructorError(None, None, TOO_LONG, node.start_mark)
    number: int = loader.construct_yaml_int(node)
    return number


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
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
    nonce = secrets.token_hex(16)

    def mark(match: re.Match[str]) -> str:
        key = f"HUBVAR{nonce}N{len(marks)}X"
        marks[key] = match[2], bool(match[1])
        return key

    document = _load(_VARIABLE.sub(mark, text))
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"expected an object with {', '.join(_PARTS)}")
    if unknown := sorted(str(key) for key in document if key not in _PARTS):
        raise ConfigError(f"unknown part; known: {', '.join(_PARTS)}", field=unknown[0])
    pattern = re.compile(rf"HUBVAR{nonce}N[0-9]+X") if marks else None
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
        if nodes > _MAX_VALUES:
            raise ConfigError(f"has more than {_MAX_VALUES} values, aliases counted")
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


def _load(text: str) -> Any:
    try:
        _check_size(text)
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as e:
        at = getattr(e, "problem_mark", None)
        where = f" at line {at.line + 1} column {at.column + 1}" if at else ""
        raise ConfigError(f"not YAML{where}: {getattr(e, 'problem', None) or 'cannot be read'}") from None
    except (ValueError, LookupError):  # `!!int a`
        raise ConfigError("not YAML: a value does not match its tag") from None


def _check_size(text: str) -> None:
    """Read the events of a YAML text, which takes constant memory; raises `ConfigError` for too many or too deep."""
    values = depth = 0
    for event in yaml.parse(text, _Parser):
        if isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            values += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            values += 1
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if values > _MAX_VALUES:
            raise ConfigError(f"has more than {_MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            raise ConfigError(f"nested more than {_MAX_DEPTH} deep")


def dump(document: dict[str, Any], variables: list[str]) -> str:
    """The file as text, headed by the variables it needs. A `Reference` becomes `${NAME}`."""
    text = yaml.dump(
        {part: _literal(value) for part, value in document.items()},
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    needs = "".join(f"#   {name}\n" for name in variables)
    head = (
        f"# Written by `hub export`; `hub apply` reads it.\n{'# It needs these variables:' + chr(10) if needs else ''}"
    )
    return head + needs + text


def _literal(value: Any) -> Any:
    """The same for the file: references as variables, and text that looks like a variable escaped."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: f"{match[1]}$${{{match[2]}}}", value)
    if isinstance(value, Reference):
        return f"{_literal(value.before)}${{{value.name}}}{_literal(value.after)}"
    if isinstance(value, dict):
        return {_literal(k): _literal(v) for k, v in value.items()}
    return [_literal(v) for v in value] if isinstance(value, list) else value
