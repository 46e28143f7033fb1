"""Adds and replaces many rules with a constant number of round trips per thousand, for `hub apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from hub.config.definitions import RuleSpec
from hub.config.documents import check_rule
from hub.errors import ConflictError, NotFoundError
from hub.store.database import Connection

_SERVICES = "SELECT name, id, type, base_url FROM services WHERE deleted_at IS NULL AND name = ANY(%s)"
_LOCK_RULES = "SELECT name, id, enabled FROM rules WHERE deleted_at IS NULL AND name = ANY(%s) ORDER BY id FOR UPDATE"
_INSERT = """
INSERT INTO rules (name, event, service_id, endpoint, method, payload, conditions, strict, enabled)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_UPDATE = """
UPDATE rules SET name = %s, event = %s, service_id = %s, endpoint = %s, method = %s, payload = %s, conditions = %s,
    strict = %s, enabled = %s, version = version + 1, updated_at = now()
WHERE id = %s"""
# What was held must not die of age the moment it may run again.
_EXTEND_HELD = """
UPDATE tasks SET expires_at = now() + interval '1 hour'
WHERE rule_id = ANY(%s) AND expires_at < now() + interval '1 hour'"""


def rule_values(spec: RuleSpec, service_id: int) -> list[Any]:
    """The parameters of a rule's columns: name, event, service_id, endpoint, method, payload, conditions, flags."""
    conditions = None if spec.conditions is None else Jsonb(spec.conditions)
    return [
        spec.name, spec.event, service_id, spec.endpoint, spec.method, spec.template(), conditions, spec.strict,
        spec.enabled,
    ]  # fmt: skip


def write_rules(conn: Connection, added: Sequence[RuleSpec], replaced: Sequence[RuleSpec]) -> None:
    """Add rules, and replace those that have the names of `replaced`, within `conn`'s transaction.

    Raises:
        NotFoundError: a service or a replaced rule does not exist.
        ConflictError: the name of an added rule is taken.
        ConfigError: a rule does not fit its service's type.
    """
    names = list({spec.service for spec in (*added, *replaced)})
    services = {name: (id_, type_, url) for name, id_, type_, url in conn.execute(_SERVICES, [names]).fetchall()}

    def values(spec: RuleSpec) -> list[Any]:
        if spec.service not in services:
            raise NotFoundError(f"no service named {spec.service!r}; `hub service list` shows what there is")
        service_id, type_, base_url = services[spec.service]
        check_rule(spec, type_, base_url)
        return rule_values(spec, service_id)

    with conn.cursor() as cur:
        if replaced:
            rows = cur.execute(_LOCK_RULES, [[spec.name for spec in replaced]]).fetchall()
            known = {name: (id_, enabled) for name, id_, enabled in rows}
            for spec in replaced:
                if spec.name not in known:
                    raise NotFoundError(f"no rule named {spec.name!r}; `hub rule list` shows what there is")
            cur.executemany(_UPDATE, [[*values(spec), known[spec.name][0]] for spec in replaced])
            enabled_now = [known[spec.name][0] for spec in replaced if spec.enabled and not known[spec.name][1]]
            if enabled_now:
                cur.execute(_EXTEND_HELD, [enabled_now])
        try:
            cur.executemany(_INSERT, [values(spec) for spec in added])
        except psycopg.errors.UniqueViolation:
            raise ConflictError("a rule of that name exists already; read the configuration again") from None
