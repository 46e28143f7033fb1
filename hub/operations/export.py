"""What there is, as the file that `hub apply` reads: services, rules and schedules, but no defaults and no secrets."""

from __future__ import annotations

import re
from typing import Any

from hub.config.definitions import RuleSpec, ServiceSpec
from hub.config.documents import rule_document, service_document
from hub.config.yaml_file import Reference, dump
from hub.models import Service
from hub.scheduling.schedule import Schedule
from hub.store.registry import Registry


def export(registry: Registry, schedule: Schedule) -> tuple[str, list[str]]:
    """(the file that `apply` takes, the variables it needs). Secrets stand in it as `${NAME}`."""
    names: dict[str, None] = {}  # in the order in which the file asks for them
    services = [_exported(service, names) for service in registry.configuration.services()]
    plain = RuleSpec.model_construct(name="x", event="x", service="x").model_dump()
    rules = [
        {k: v for k, v in rule_document(rule).items() if k in ("name", "event", "service") or v != plain[k]}
        for rule in registry.configuration.rules()
    ]
    schedules: dict[str, Any] = {
        task.name: task.cron if task.enabled else {"cron": task.cron, "enabled": False} for task in schedule.list()
    }
    return dump({"services": services, "rules": rules, "schedules": schedules}, list(names)), list(names)


def _exported(service: Service, names: dict[str, None]) -> dict[str, Any]:
    def variable(key: str) -> Reference:
        name = re.sub(r"[^A-Z0-9]+", "_", f"{service.name}_{key}".upper()).strip("_")
        name = f"_{name}" if name[0].isdigit() else name
        while name in names:
            name += "_"
        names[name] = None
        return Reference(name)

    document = service_document(service, mask=variable)
    plain = ServiceSpec.model_construct(name="x", base_url="x").model_dump()
    if document["auth"] == {"type": "none"}:
        del document["auth"]
    return {k: v for k, v in document.items() if k in ("name", "type", "base_url", "auth") or v != plain.get(k)}
