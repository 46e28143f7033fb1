"""Apply a file of services, sources, rules and schedules: `plan` compares it with the ledger, `execute` writes it.

The file is checked as a whole before anything is written, and written in one transaction. Applying it again changes
nothing. `hub.config.yaml_file` reads the file, `hub.operations.export` writes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.documents import (
    check_rule,
    check_service,
    rule_document,
    service_document,
)
from hub.config.sources import SourceSpec, check_source
from hub.domain.text import MASK
from hub.errors import ConfigError, HubError
from hub.models import Service
from hub.operations.apply_sources import pruned_sources, source_changes, write_sources
from hub.operations.changes import Change, compare
from hub.scheduling.schedule import Schedule, parse_cron
from hub.store.configuration import Snapshot
from hub.store.registry import Registry
from hub.transports.masking import masked_url


@dataclass(slots=True)
class Plan:
    """What `execute` will do."""

    services: list[ServiceSpec]
    rules: list[RuleSpec]
    schedules: dict[str, tuple[str | None, bool | None]]
    changes: list[Change]
    sources: list[SourceSpec]


def plan(document: Mapping[str, Any], registry: Registry, schedule: Schedule, *, prune: bool = False) -> Plan:
    """Compare the file with the ledger. Writes nothing.

    Args:
        prune: delete objects that the file does not name, see `_pruned`.

    Raises:
        ConfigError: names the place in the file.
    """
    services = _specs(document.get("services"), "services", ServiceSpec)
    rules = _specs(document.get("rules"), "rules", RuleSpec)
    sources = _specs(document.get("sources"), "sources", SourceSpec)
    wanted = _schedules(document.get("schedules"), schedule)
    now = registry.configuration.snapshot()
    known = {s.name: s for s in now.services}
    new = {s.name: s for s in services}
    pruned = _pruned(document, now, set(new), {r.name for r in rules}) if prune else []
    leaving = {change.name for change in pruned if change.kind == "service"}
    changes: list[Change] = []
    for i, service_spec in enumerate(services):
        _at(f"services[{i}]", lambda spec=service_spec: check_service(spec))  # type: ignore[misc]
        changes.append(_service_change(known.get(service_spec.name), service_spec))
    for i, source_spec in enumerate(sources):
        _at(f"sources[{i}]", lambda spec=source_spec: check_source(spec))  # type: ignore[misc]
    known_sources = registry.sources.sources() if "sources" in document else []
    changes += source_changes(sources, known_sources)
    pruned += pruned_sources(document, sources, known_sources) if prune else []
    existing = {r.name: r for r in now.rules}
    for i, rule_spec in enumerate(rules):
        where = f"rules[{i}]"
        if rule_spec.service in new:
            type_: str = new[rule_spec.service].type
            url = new[rule_spec.service].base_url
        elif rule_spec.service in leaving:
            raise ConfigError(
                f"the file does not name service {rule_spec.service!r}, which is to be deleted",
                field=f"{where}.service",
            )
        elif rule_spec.service in known:
            type_ = known[rule_spec.service].type.value
            url = known[rule_spec.service].base_url
        else:
            raise ConfigError(
                f"there is no service {rule_spec.service!r} in the file or the hub", field=f"{where}.service"
            )
        _at(where, lambda spec=rule_spec, type_=type_, url=url: check_rule(spec, type_, url))  # type: ignore[misc]
        old = existing.get(rule_spec.name)
        before = rule_document(old) if old else {}  # not checked: the file may correct what an older release accepted
        changes.append(compare("rule", rule_spec.name, bool(old), before, rule_spec.model_dump()))
    for name, (cron, enabled) in wanted.items():
        task = schedule.show(name)
        before = {"cron": task.cron, "enabled": task.enabled}
        after = {"cron": cron or task.cron, "enabled": task.enabled if enabled is None else enabled}
        changes.append(compare("schedule", name, True, before, after))
    return Plan(services, rules, wanted, changes + pruned, sources)


def _pruned(document: Mapping[str, Any], now: Snapshot, services: set[str], rules: set[str]) -> list[Change]:
    """Deletions of objects that the file's lists do not name. A missing list deletes nothing.

    A deleted service deletes its rules. Schedules are never deleted.
    """
    listed = {part for part in ("services", "rules") if isinstance(document.get(part), list)}
    leaving = {s.name for s in now.services if s.name not in services} if "services" in listed else set()
    return [
        Change("rule", r.name, "delete")
        for r in now.rules
        if r.name not in rules and ("rules" in listed or r.service in leaving)
    ] + [Change("service", name, "delete") for name in sorted(leaving)]


def execute(what: Plan, registry: Registry, schedule: Schedule) -> None:
    """Write all changes in one transaction, services first."""
    with registry.together():
        _write(what, registry, schedule)


def _write(what: Plan, registry: Registry, schedule: Schedule) -> None:
    actions = {(change.kind, change.name): change.action for change in what.changes}
    for spec in what.services:
        action = actions["service", spec.name]
        if action == "add":
            registry.services.add(spec)
        elif action == "change":
            registry.services.update(spec.name, spec.model_dump())
    write_sources(registry.sources, what.sources, what.changes)
    registry.rules.write(
        [rule for rule in what.rules if actions["rule", rule.name] == "add"],
        [rule for rule in what.rules if actions["rule", rule.name] == "change"],
    )
    for name, (cron, enabled) in what.schedules.items():
        if cron is not None:
            schedule.set(name, cron)
        if enabled is not None:
            schedule.enable(name, enabled)
    for change in what.changes:  # last: a rule may have moved away from a service that is deleted
        if change.action == "delete" and change.kind == "rule":
            registry.rules.delete(change.name)
        elif change.action == "delete" and change.kind == "service":
            registry.services.delete(change.name)


def _specs(items: Any, part: str, kind: type[Any]) -> list[Any]:
    if items is None:
        return []
    if not isinstance(items, list):
        raise ConfigError("expected a list", field=part)
    specs = [parse_spec(kind, item, where=f"{part}[{i}]") for i, item in enumerate(items)]
    seen: set[str] = set()
    for i, spec in enumerate(specs):
        if spec.name in seen:
            raise ConfigError(f"{spec.name!r} is defined twice", field=f"{part}[{i}].name")
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
        shown = _flat(after) | dict.fromkeys(after_secrets, MASK)
        given = {k: v for k, v in shown.items() if v not in (None, {}, [])}
        return Change("service", spec.name, "add", {k: (None, _shown(k, v)) for k, v in given.items()})
    try:
        before, before_secrets = parse_spec(ServiceSpec, service_document(old, secrets=True)).split()
    except ConfigError:  # accepted by an older release; the file may correct it
        before, before_secrets = {"options": {}}, {}
    change = compare("service", spec.name, True, _flat(before), _flat(after))
    fields = {k: (_shown(k, was), _shown(k, value)) for k, (was, value) in change.fields.items()}
    for key in sorted({*before_secrets, *after_secrets}):
        if before_secrets.get(key) != after_secrets.get(key):
            fields[key] = (
                MASK if key in before_secrets else None,
                f"{MASK} (changed)" if key in after_secrets else None,
            )
    return Change("service", spec.name, "change" if fields else "same", fields)


def _shown(field: str, value: Any) -> Any:
    """The value of a column, without secrets in URLs."""
    if field == "base_url" and isinstance(value, str):
        return masked_url(value)
    if field == "oauth2" and isinstance(value, dict) and isinstance(value.get("token_url"), str):
        return value | {"token_url": masked_url(value["token_url"])}
    return value


def _flat(columns: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in columns.items() if k != "options"}, **columns["options"]}
