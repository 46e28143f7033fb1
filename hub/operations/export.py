"""Export services, sources, rules and schedules as a file for `hub apply`, without defaults and secrets."""

from __future__ import annotations

import re
from typing import Any

from hub.config.definitions import RuleSpec, ServiceSpec
from hub.config.documents import rule_document, service_document
from hub.config.sources import SourceSpec, source_document
from hub.config.yaml_file import Reference, dump
from hub.models import Service, Source
from hub.scheduling.schedule import Schedule
from hub.store.registry import Registry


def export(registry: Registry, schedule: Schedule) -> tuple[str, list[str]]:
    """(text of the file, names of the variables that it needs). Secrets become `${NAME}`."""
    names: dict[str, None] = {}  # in the order of the file
    services = [_exported(service, names) for service in registry.configuration.services()]
    plain = RuleSpec.model_construct(name="x", event="x", service="x").model_dump()
    rules = [
        {k: v for k, v in rule_document(rule).items() if k in ("name", "event", "service") or v != plain[k]}
        for rule in registry.configuration.rules()
    ]
    schedules: dict[str, Any] = {
        task.name: task.cron if task.enabled else {"cron": task.cron, "enabled": False} for task in schedule.list()
    }
    parts: dict[str, Any] = {"services": services}
    if sources := [_exported_source(source, names) for source in registry.sources.sources()]:
        parts["sources"] = sources
    return dump(parts | {"rules": rules, "schedules": schedules}, list(names)), list(names)


def _exported_source(source: Source, names: dict[str, None]) -> dict[str, Any]:
    document = source_document(source, mask=lambda key: _variable(source.name, key, names))
    plain = SourceSpec.model_construct(name="x", url="x").model_dump()
    return {k: v for k, v in document.items() if k in ("name", "type", "url") or v != plain[k]}


def _variable(owner: str, key: str, names: dict[str, None]) -> Reference:
    """A variable of its own for a secret; adds its name to `names`."""
    name = re.sub(r"[^A-Z0-9]+", "_", f"{owner}_{key}".upper()).strip("_")
    name = f"_{name}" if name[0].isdigit() else name
    while name in names:
        name += "_"
    names[name] = None
    return Reference(name)


def _exported(service: Service, names: dict[str, None]) -> dict[str, Any]:
    document = service_document(service, mask=lambda key: _variable(service.name, key, names))
    plain = ServiceSpec.model_construct(name="x", base_url="x").model_dump()
    if document["auth"] == {"type": "none"}:
        del document["auth"]
    return {k: v for k, v in document.items() if k in ("name", "type", "base_url", "auth") or v != plain.get(k)}
