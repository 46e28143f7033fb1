"""Changes of rules: checked, versioned, audited, one or many at a time. `Configuration` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.config.definitions import RuleSpec, parse_spec
from hub.config.documents import check_rule, rule_document, spec_document
from hub.errors import ConflictError, NotFoundError, StaleError
from hub.models import Rule
from hub.store.audit import record, record_many
from hub.store.configuration import Configuration, to_rule
from hub.store.database import Connection, Database

_INSERT = """
INSERT INTO rules (name, event, service_id, endpoint, method, payload, conditions, strict, enabled,
    ordering_key, on_failure)
VALUES (%(name)s, %(event)s, %(service_id)s, %(endpoint)s, %(method)s, %(payload)s, %(conditions)s, %(strict)s,
    %(enabled)s, %(ordering_key)s, %(on_failure)s)
RETURNING *, %(service)s::text AS service, %(service_enabled)s::boolean AS service_enabled
"""
_SET = """
UPDATE rules SET name = %(name)s, event = %(event)s, service_id = %(service_id)s, endpoint = %(endpoint)s,
    method = %(method)s, payload = %(payload)s, conditions = %(conditions)s, strict = %(strict)s, enabled = %(enabled)s,
    ordering_key = %(ordering_key)s, on_failure = %(on_failure)s, version = version + 1, updated_at = now()
WHERE id = %(id)s
"""
_UPDATE = (
    _SET
    + """AND version = %(seen)s AND deleted_at IS NULL
RETURNING *, %(service)s::text AS service, %(service_enabled)s::boolean AS service_enabled
"""
)
_ENABLE = "UPDATE rules SET enabled = %s, version = version + 1, updated_at = now() WHERE id = %s"
# Tasks that were held while the rule was disabled must not expire as soon as it is enabled.
_EXTEND_HELD = """
UPDATE tasks SET expires_at = now() + interval '1 hour'
WHERE rule_id = ANY(%s) AND expires_at < now() + interval '1 hour'
"""
_DELETE = """
UPDATE rules SET deleted_at = now(), version = version + 1
WHERE id = %(id)s AND deleted_at IS NULL AND version = coalesce(%(version)s, version)
"""
_SERVICES = "SELECT name, id, type, base_url, enabled FROM services WHERE deleted_at IS NULL AND name = ANY(%s)"
_LOCK = "SELECT name, id, enabled FROM rules WHERE deleted_at IS NULL AND name = ANY(%s) ORDER BY id FOR UPDATE"


class RuleStore:
    """Writes rules."""

    def __init__(self, db: Database, configuration: Configuration) -> None:
        self._db = db
        self._configuration = configuration

    def add(self, spec: RuleSpec) -> Rule:
        """Create a rule.

        Raises:
            ConflictError: the name is taken.
            NotFoundError: no such service.
            ConfigError: the rule does not fit the type of its service.
        """
        service = self._configuration.service(spec.service)
        check_rule(spec, service.type.value, service.base_url)
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(_INSERT, _values(spec, service.id, service.enabled)).fetchone()
            except psycopg.errors.UniqueViolation:
                raise _taken(spec.name) from None
            assert row is not None
            rule = to_rule(row)
            record(conn, "rule.add", "rule", id=rule.id, name=rule.name, after=rule_document(rule))
        self._configuration.invalidate()
        return rule

    def update(self, name: str, changes: dict[str, Any], version: int | None = None) -> Rule:
        """Change fields of a rule (those of `RuleSpec`).

        Raises:
            StaleError: the rule has changed since `version`.
            ConflictError: the new name is taken.
            NotFoundError: no such rule or service.
            ConfigError: the result would not be a valid rule.
        """
        current = self._configuration.current_rule(name, version)
        spec: RuleSpec = parse_spec(RuleSpec, {**rule_document(current), **changes})
        service = self._configuration.service(spec.service)
        check_rule(spec, service.type.value, service.base_url)
        seen = version if version is not None else current.version
        values = _values(spec, service.id, service.enabled) | {"id": current.id, "seen": seen}
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(_UPDATE, values).fetchone()
            except psycopg.errors.UniqueViolation:
                raise _taken(spec.name) from None
            if row is None:
                raise _stale(name)
            if spec.enabled and not current.enabled:
                cur.execute(_EXTEND_HELD, [[current.id]])
            rule = to_rule(row)
            before, after = rule_document(current), rule_document(rule)
            record(conn, "rule.change", "rule", id=rule.id, name=rule.name, before=before, after=after)
        self._configuration.invalidate()
        return rule

    def enable(self, name: str, enabled: bool) -> None:
        """Enable or disable a rule. Tasks of a disabled rule are held, not lost."""
        rule = self._configuration.rule(name)
        with self._db.transaction() as conn:
            conn.execute(_ENABLE, [enabled, rule.id])
            if enabled:
                conn.execute(_EXTEND_HELD, [[rule.id]])
            before, after = {"enabled": rule.enabled}, {"enabled": enabled}
            record(conn, "rule.change", "rule", id=rule.id, name=name, before=before, after=after)
        self._configuration.invalidate()

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a rule. Its tasks become orphans, to be purged by a person.

        Raises:
            StaleError: the rule has changed since `version`.
        """
        rule = self._configuration.current_rule(name, version)
        with self._db.transaction() as conn:
            if not conn.execute(_DELETE, {"id": rule.id, "version": version}).rowcount:
                raise _stale(name)
            record(conn, "rule.delete", "rule", id=rule.id, name=name, before=rule_document(rule))
        self._configuration.invalidate()

    def write(self, added: Sequence[RuleSpec], replaced: Sequence[RuleSpec]) -> None:
        """Add rules, and replace those that have the names of `replaced`, in one transaction.

        The number of round trips is constant per thousand rules.

        Raises:
            NotFoundError: a service or a replaced rule does not exist.
            ConflictError: the name of an added rule is taken.
            ConfigError: a rule does not fit the type of its service.
        """
        before = {rule.name: rule for rule in self._configuration.rules()} if replaced else {}
        changed = (
            (rule.id, spec.name, rule_document(rule), spec_document(spec))
            for spec in replaced
            if (rule := before.get(spec.name))
        )
        with self._db.transaction() as conn:
            _write(conn, added, replaced)
            record_many(conn, "rule.add", "rule", ((None, spec.name, None, spec_document(spec)) for spec in added))
            record_many(conn, "rule.change", "rule", changed)
        self._configuration.invalidate()


def _write(conn: Connection, added: Sequence[RuleSpec], replaced: Sequence[RuleSpec]) -> None:
    names = list({spec.service for spec in (*added, *replaced)})
    services = {row[0]: row[1:] for row in conn.execute(_SERVICES, [names]).fetchall()}

    def values(spec: RuleSpec) -> dict[str, Any]:
        if spec.service not in services:
            raise NotFoundError(f"no service named {spec.service!r}; `hub service list` shows what there is")
        service_id, type_, base_url, enabled = services[spec.service]
        check_rule(spec, type_, base_url)
        return _values(spec, service_id, enabled)

    with conn.cursor() as cur:
        if replaced:
            rows = cur.execute(_LOCK, [[spec.name for spec in replaced]]).fetchall()
            known = {name: (id_, enabled) for name, id_, enabled in rows}
            for spec in replaced:
                if spec.name not in known:
                    raise NotFoundError(f"no rule named {spec.name!r}; `hub rule list` shows what there is")
            # Of a locked row: a further condition lets the planner read a partial index instead of the key.
            cur.executemany(_SET, [values(spec) | {"id": known[spec.name][0]} for spec in replaced])
            enabled_now = [known[spec.name][0] for spec in replaced if spec.enabled and not known[spec.name][1]]
            if enabled_now:
                cur.execute(_EXTEND_HELD, [enabled_now])
        try:
            cur.executemany(_INSERT, [values(spec) for spec in added])
        except psycopg.errors.UniqueViolation:
            raise ConflictError("a rule of that name exists already; read the configuration again") from None


def _values(spec: RuleSpec, service_id: int, service_enabled: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "event": spec.event,
        "service_id": service_id,
        "endpoint": spec.endpoint,
        "method": spec.method,
        "payload": spec.template(),
        "conditions": None if spec.conditions is None else Jsonb(spec.conditions),
        "strict": spec.strict,
        "enabled": spec.enabled,
        "ordering_key": spec.ordering_key or None,
        "on_failure": spec.on_failure,
        "service": spec.service,
        "service_enabled": service_enabled,
    }


def _taken(name: str) -> ConflictError:
    return ConflictError(f"there is a rule named {name!r} already")


def _stale(name: str) -> StaleError:
    return StaleError(f"rule {name!r} was changed by somebody else; read it again")
