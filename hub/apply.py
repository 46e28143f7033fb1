"""One file says what there should be: services, rules and schedules. Read, compare, write; and back to a file.

`${NAME}` stands for a variable of the environment. It is put in after the YAML was parsed, so no value can
break the file; `$${NAME}` stands for itself. The whole file is checked before anything is written, and written
in one transaction; applying it again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from hub.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.errors import ConfigError, HubError
from hub.models import Service
from hub.schedule import Schedule, parse_cron
from hub.store.registry import Registry, check_rule, check_service, rule_document, service_document

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile("\ue000(\\w+)\ue001")
_PARTS = ("services", "rules", "schedules")
_MASK = "***"
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


@dataclass(frozen=True, slots=True)
class Change:
    """One thing the file changes. `fields`: name -> (before, after), secrets masked."""

    kind: str
    name: str
    action: str  # add, change, same
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What applying the file would do."""

    services: list[ServiceSpec]
    rules: list[RuleSpec]
    schedules: dict[str, tuple[str | None, bool | None]]
    changes: list[Change]


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


def plan(document: Mapping[str, Any], registry: Registry, schedule: Schedule) -> Plan:
    """Compare the file with what there is; writes nothing.

    Raises:
        ConfigError: names the place in the file.
    """
    services = _specs(document.get("services"), "services", ServiceSpec)
    rules = _specs(document.get("rules"), "rules", RuleSpec)
    wanted = _schedules(document.get("schedules"), schedule)
    now = registry.snapshot()
    known = {s.name: s for s in now.services}
    new = {s.name: s for s in services}
    changes: list[Change] = []
    for i, service_spec in enumerate(services):
        _at(f"services[{i}]", lambda spec=service_spec: check_service(spec))  # type: ignore[misc]
        changes.append(_service_change(known.get(service_spec.name), service_spec))
    existing = {r.name: r for r in now.rules}
    for i, rule_spec in enumerate(rules):
        where = f"rules[{i}]"
        if rule_spec.service in new:
            type_ = new[rule_spec.service].type
        elif rule_spec.service in known:
            type_ = known[rule_spec.service].type.value
        else:
            raise ConfigError(
                f"there is no service {rule_spec.service!r}, here or in the hub", field=f"{where}.service"
            )
        _at(where, lambda spec=rule_spec, type_=type_: check_rule(spec, type_))  # type: ignore[misc]
        old = existing.get(rule_spec.name)
        before = parse_spec(RuleSpec, rule_document(old)).model_dump() if old else {}
        changes.append(_change("rule", rule_spec.name, bool(old), before, rule_spec.model_dump()))
    for name, (cron, enabled) in wanted.items():
        task = schedule.show(name)
        before = {"cron": task.cron, "enabled": task.enabled}
        after = {"cron": cron or task.cron, "enabled": task.enabled if enabled is None else enabled}
        changes.append(_change("schedule", name, True, before, after))
    return Plan(services, rules, wanted, changes)


def execute(what: Plan, registry: Registry, schedule: Schedule) -> None:
    """Write the changes, services first: all of them, or none."""
    with registry.together():
        _write(what, registry, schedule)


def _write(what: Plan, registry: Registry, schedule: Schedule) -> None:
    actions = {(change.kind, change.name): change.action for change in what.changes}
    for spec in what.services:
        action = actions["service", spec.name]
        if action == "add":
            registry.add_service(spec)
        elif action == "change":
            registry.update_service(spec.name, spec.model_dump())
    for rule in what.rules:
        action = actions["rule", rule.name]
        if action == "add":
            registry.add_rule(rule)
        elif action == "change":
            registry.update_rule(rule.name, rule.model_dump())
    for name, (cron, enabled) in what.schedules.items():
        if cron is not None:
            schedule.set(name, cron)
        if enabled is not None:
            schedule.enable(name, enabled)


def export(registry: Registry, schedule: Schedule) -> tuple[str, list[str]]:
    """(the file that `apply` takes, the variables it needs). Secrets stand in it as `${NAME}`."""
    names: list[str] = []
    services = [_exported(service, names) for service in registry.services()]
    plain = RuleSpec.model_construct(name="x", event="x", service="x").model_dump()
    rules = [
        {k: _literal(v) for k, v in rule_document(rule).items() if k in ("name", "event", "service") or v != plain[k]}
        for rule in registry.rules()
    ]
    schedules: dict[str, Any] = {
        task.name: task.cron if task.enabled else {"cron": task.cron, "enabled": False} for task in schedule.list()
    }
    text = yaml.dump(
        {"services": services, "rules": rules, "schedules": schedules},
        Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=100,
    )  # fmt: skip
    needs = "".join(f"#   {name}\n" for name in names)
    head = (
        f"# Written by `hub export`; `hub apply` reads it.\n{'# It needs these variables:' + chr(10) if needs else ''}"
    )
    return head + needs + text, names


def _exported(service: Service, names: list[str]) -> dict[str, Any]:
    def variable(key: str) -> str:
        name = re.sub(r"[^A-Z0-9]+", "_", f"{service.name}_{key}".upper()).strip("_")
        name = f"_{name}" if name[0].isdigit() else name
        while name in names:
            name += "_"
        names.append(name)
        return f"\ue000{name}\ue001"

    document = service_document(service, mask=variable)
    plain = ServiceSpec.model_construct(name="x", base_url="x").model_dump()
    if document["auth"] == {"type": "none"}:
        del document["auth"]
    return {
        k: _literal(v) for k, v in document.items() if k in ("name", "type", "base_url", "auth") or v != plain.get(k)
    }


def _literal(value: Any) -> Any:
    """The same for the file: secrets as variables, and what only looks like a variable marked as none."""
    if isinstance(value, str):
        return _SECRET.sub(r"${\1}", _VARIABLE.sub(lambda match: f"{match[1]}$${{{match[2]}}}", value))
    if isinstance(value, dict):
        return {_literal(k): _literal(v) for k, v in value.items()}
    return [_literal(v) for v in value] if isinstance(value, list) else value


def _specs(items: Any, part: str, kind: type[Any]) -> list[Any]:
    if items is None:
        return []
    if not isinstance(items, list):
        raise ConfigError("expected a list", field=part)
    specs = [parse_spec(kind, item, where=f"{part}[{i}]") for i, item in enumerate(items)]
    seen: set[str] = set()
    for i, spec in enumerate(specs):
        if spec.name in seen:
            raise ConfigError(f"{spec.name!r} comes twice", field=f"{part}[{i}].name")
        seen.add(spec.name)
    return specs


def _schedules(items: Any, schedule: Schedule) -> dict[str, tuple[str | None, bool | None]]:
    if items is None:
        return {}
    if not isinstance(items, dict):
        raise ConfigError("expected names with cron expressions", field="schedules")
    wanted: dict[str, tuple[str | None, bool | None]] = {}
    for name, value in items.items():
        where = f"schedules.{name}"
        _at(where, lambda name=name: schedule.show(name))  # type: ignore[misc]
        if isinstance(value, str):
            value = {"cron": value}
        if not isinstance(value, dict) or set(value) - {"cron", "enabled"}:
            raise ConfigError("expected a cron expression, or an object with cron and enabled", field=where)
        cron, enabled = value.get("cron"), value.get("enabled")
        if enabled is not None and not isinstance(enabled, bool):
            raise ConfigError("must be true or false", field=f"{where}.enabled")
        if cron is not None:
            _at(where, lambda cron=cron: parse_cron(cron))  # type: ignore[misc]
            cron = schedule.tidy(name, cron)
        wanted[name] = (cron, enabled)
    return wanted


def _at(where: str, act: Callable[[], object]) -> None:
    try:
        act()
    except HubError as e:
        raise ConfigError(str(e), field=where) from None


def _service_change(old: Service | None, spec: ServiceSpec) -> Change:
    after, after_secrets = spec.split()
    if old is None:
        shown = _flat(after) | dict.fromkeys(after_secrets, _MASK)
        return Change("service", spec.name, "add", {k: (None, v) for k, v in shown.items() if v not in (None, {}, [])})
    before, before_secrets = parse_spec(ServiceSpec, service_document(old, secrets=True)).split()
    change = _change("service", spec.name, True, _flat(before), _flat(after))
    fields = dict(change.fields)
    for key in sorted({*before_secrets, *after_secrets}):
        if before_secrets.get(key) != after_secrets.get(key):
            fields[key] = (
                _MASK if key in before_secrets else None,
                f"{_MASK} (other)" if key in after_secrets else None,
            )
    return Change("service", spec.name, "change" if fields else "same", fields)


def _flat(columns: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in columns.items() if k != "options"}, **columns["options"]}


def _change(kind: str, name: str, exists: bool, before: dict[str, Any], after: dict[str, Any]) -> Change:
    if not exists:
        return Change(kind, name, "add", {k: (None, v) for k, v in after.items() if v not in (None, {}, [], "")})
    fields = {
        key: (before.get(key), after.get(key)) for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    }
    return Change(kind, name, "change" if fields else "same", fields)
