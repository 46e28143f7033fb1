"""Services and rules as people change them: checked, one version after the other, secrets sealed.

`Configuration` is what the way of an event reads of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.documents import (
    check_replaced,
    check_rule,
    check_service,
    merge,
    rule_document,
    service_document,
    spec_document,
)
from hub.errors import ConfigError, ConflictError, StaleError
from hub.models import Rule, Service
from hub.store.audit import record, record_many
from hub.store.configuration import Configuration, to_rule
from hub.store.database import Connection, Row
from hub.store.rule_batches import rule_values, write_rules

# What was held must not die of age the moment it may run again.
_GRACE = {
    "services": "UPDATE tasks SET expires_at = now() + interval '1 hour'"
    " WHERE service_id = %s AND expires_at < now() + interval '1 hour'",
    "rules": "UPDATE tasks SET expires_at = now() + interval '1 hour'"
    " WHERE rule_id = %s AND expires_at < now() + interval '1 hour'",
}
Found = TypeVar("Found", Service, Rule)


class Registry(Configuration):
    """Reads and writes services and rules."""

    def together(self) -> AbstractContextManager[None]:
        """Whatever this thread changes inside is changed as one: all of it, or nothing."""
        return self._db.together()

    # Services

    def add_service(self, spec: ServiceSpec) -> Service:
        """Create a service; raises `ConflictError` when the name is taken."""
        check_service(spec)
        columns, secrets = spec.split()
        with self._db.transaction() as conn:
            row = self._insert_service(conn, columns, secrets, spec.name)
            service = self._to_service(row)
            record(conn, "service.add", "service", id=service.id, name=service.name, after=service_document(service))
        return service

    def _insert_service(self, conn: Connection, columns: Row, secrets: dict[str, str], name: str) -> Row:
        values = {**columns, "options": Jsonb(columns["options"]), "secrets": self._vault.seal(secrets)}
        with conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(
                    "INSERT INTO services (name, type, base_url, enabled, auth_type, timeout, max_retries,"
                    " retry_backoff, cb_failure_threshold, cb_cooldown, response_queue, options, secrets) VALUES"
                    " (%(name)s, %(type)s, %(base_url)s, %(enabled)s, %(auth_type)s, %(timeout)s, %(max_retries)s,"
                    " %(retry_backoff)s, %(cb_failure_threshold)s, %(cb_cooldown)s, %(response_queue)s, %(options)s,"
                    " %(secrets)s) RETURNING *",
                    values,
                ).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a service named {name!r} already") from None
            assert row is not None
            cur.execute("INSERT INTO breakers (service_id) VALUES (%s)", [row["id"]])
            cur.execute("INSERT INTO service_flow (service_id) VALUES (%s)", [row["id"]])
        self.invalidate()
        return row

    def update_service(self, name: str, changes: dict[str, Any], version: int | None = None) -> Service:
        """Change fields of a service (those of `ServiceSpec`); secrets that are not named stay.

        Where they cannot be read, a change must name all of them: it replaces what is stored.

        Raises:
            StaleError: it has changed since `version`.
            ConflictError: the new name is taken.
            ConfigError: the result would not be a valid service.
        """
        current = self._current(self.service, name, version)
        merged = merge(service_document(current, secrets=True), changes)
        spec: ServiceSpec = parse_spec(ServiceSpec, merged)
        if current.secrets_unreadable:
            check_replaced(spec, changes)
        check_service(spec, current.secrets)
        columns, secrets = spec.split()
        values = {
            **columns,
            "options": Jsonb(columns["options"]),
            "secrets": self._vault.seal(secrets),
            "id": current.id,
            "seen": version if version is not None else current.version,
        }
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(
                    "UPDATE services SET name = %(name)s, type = %(type)s, base_url = %(base_url)s,"
                    " enabled = %(enabled)s, auth_type = %(auth_type)s, timeout = %(timeout)s,"
                    " max_retries = %(max_retries)s, retry_backoff = %(retry_backoff)s,"
                    " cb_failure_threshold = %(cb_failure_threshold)s, cb_cooldown = %(cb_cooldown)s,"
                    " response_queue = %(response_queue)s, options = %(options)s, secrets = %(secrets)s,"
                    " version = version + 1, updated_at = now()"
                    " WHERE id = %(id)s AND version = %(seen)s AND deleted_at IS NULL RETURNING *",
                    values,
                ).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a service named {spec.name!r} already") from None
            if row is None:
                raise _stale("service", name)
            if spec.enabled and not current.enabled:
                cur.execute(_GRACE["services"].encode(), [current.id])
            service = self._to_service(row)
            changed = [n for n in {**current.secrets, **secrets} if current.secrets.get(n) != secrets.get(n)]
            record(
                conn, "service.change", "service", id=service.id, name=service.name,
                before={**service_document(current), "changed_secrets": []},
                after={**service_document(service), "changed_secrets": sorted(changed)},
            )  # fmt: skip
        self.invalidate()
        return service

    def enable_service(self, name: str, enabled: bool) -> None:
        """Enable or disable; tasks of a disabled service are held, not lost."""
        service = self.service(name)
        self._touch("services", service.id, name, service.enabled, enabled)

    def delete_service(self, name: str, version: int | None = None) -> int:
        """Delete a service and its rules; their tasks become orphans. Returns how many rules went.

        Raises:
            StaleError: it has changed since `version`.
        """
        service = self._current(self.service, name, version)
        with self._db.transaction() as conn:
            deleted = conn.execute(
                "UPDATE services SET deleted_at = now(), secrets = NULL, version = version + 1"
                " WHERE id = %(id)s AND deleted_at IS NULL AND version = coalesce(%(version)s, version)",
                {"id": service.id, "version": version},
            )
            if not deleted.rowcount:
                raise _stale("service", name)
            rules = conn.execute(
                "UPDATE rules SET deleted_at = now(), version = version + 1"
                " WHERE service_id = %s AND deleted_at IS NULL RETURNING id, name",
                [service.id],
            ).fetchall()
            gone = len(rules)
            record(conn, "service.delete", "service", id=service.id, name=name, before=service_document(service))
            record_many(conn, "rule.delete", "rule", [(id_, rule, {"service": name}, None) for id_, rule in rules])
        self.invalidate()
        return gone

    def _touch(self, table: str, row_id: int, name: str, before: bool, enabled: bool) -> None:
        sql = {
            "services": "UPDATE services SET enabled = %s, version = version + 1, updated_at = now() WHERE id = %s",
            "rules": "UPDATE rules SET enabled = %s, version = version + 1, updated_at = now() WHERE id = %s",
        }
        with self._db.transaction() as conn:
            conn.execute(sql[table].encode(), [enabled, row_id])
            if enabled:
                conn.execute(_GRACE[table].encode(), [row_id])
            kind = table.removesuffix("s")
            record(conn, f"{kind}.change", kind, id=row_id, name=name, before={"enabled": before},
                   after={"enabled": enabled})  # fmt: skip
        self.invalidate()

    def rotate_secrets(self) -> tuple[int, list[str]]:
        """Encrypt every service's secrets with the newest key: (how many, names of those that no key opens)."""
        unreadable: list[str] = []
        with self._db.transaction() as conn:
            rows = conn.execute(
                "SELECT id, name, secrets FROM services WHERE secrets IS NOT NULL ORDER BY name FOR UPDATE"
            ).fetchall()
            for row_id, name, sealed in rows:
                try:
                    rotated = self._vault.rotate(sealed)
                except ConfigError:
                    unreadable.append(name)
                    continue
                conn.execute("UPDATE services SET secrets = %s WHERE id = %s", [rotated, row_id])
            if rows:
                after = {"services": len(rows) - len(unreadable), "unreadable": unreadable}
                record(conn, "secrets.rotate", "secrets", after=after)
        return len(rows) - len(unreadable), unreadable

    # Rules

    def add_rule(self, spec: RuleSpec) -> Rule:
        """Create a rule; raises `ConflictError` (name taken) or `NotFoundError` (no such service)."""
        service = self.service(spec.service)
        check_rule(spec, service.type.value, service.base_url)
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(
                    "INSERT INTO rules"
                    " (name, event, service_id, endpoint, method, payload, conditions, strict, enabled)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " RETURNING *, %s::text AS service, %s::boolean AS service_enabled",
                    [*rule_values(spec, service.id), service.name, service.enabled],
                ).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a rule named {spec.name!r} already") from None
            assert row is not None
            rule = to_rule(row)
            record(conn, "rule.add", "rule", id=rule.id, name=rule.name, after=rule_document(rule))
        self.invalidate()
        return rule

    def update_rule(self, name: str, changes: dict[str, Any], version: int | None = None) -> Rule:
        """Change fields of a rule (those of `RuleSpec`); raises as `update_service` does."""
        current = self._current(self.rule, name, version)
        spec: RuleSpec = parse_spec(RuleSpec, {**rule_document(current), **changes})
        service = self.service(spec.service)
        check_rule(spec, service.type.value, service.base_url)
        seen = version if version is not None else current.version
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(
                    "UPDATE rules SET name = %s, event = %s, service_id = %s, endpoint = %s, method = %s, payload = %s,"
                    " conditions = %s, strict = %s, enabled = %s, version = version + 1, updated_at = now()"
                    " WHERE id = %s AND version = %s AND deleted_at IS NULL"
                    " RETURNING *, %s::text AS service, %s::boolean AS service_enabled",
                    [*rule_values(spec, service.id), current.id, seen, service.name, service.enabled],
                ).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a rule named {spec.name!r} already") from None
            if row is None:
                raise _stale("rule", name)
            if spec.enabled and not current.enabled:
                cur.execute(_GRACE["rules"].encode(), [current.id])
            rule = to_rule(row)
            record(conn, "rule.change", "rule", id=rule.id, name=rule.name, before=rule_document(current),
                   after=rule_document(rule))  # fmt: skip
        self.invalidate()
        return rule

    def write_rules(self, added: Sequence[RuleSpec], replaced: Sequence[RuleSpec]) -> None:
        """Add and replace many rules in one transaction; raises as `rule_batches.write_rules` does."""
        before = {rule.name: rule for rule in self.rules()} if replaced else {}
        with self._db.transaction() as conn:
            write_rules(conn, added, replaced)
            record_many(conn, "rule.add", "rule", ((None, spec.name, None, spec_document(spec)) for spec in added))
            record_many(
                conn, "rule.change", "rule",
                (
                    (rule.id, spec.name, rule_document(rule), spec_document(spec))
                    for spec in replaced if (rule := before.get(spec.name))
                ),
            )  # fmt: skip
        self.invalidate()

    def enable_rule(self, name: str, enabled: bool) -> None:
        """Enable or disable; tasks of a disabled rule are held, not lost."""
        rule = self.rule(name)
        self._touch("rules", rule.id, name, rule.enabled, enabled)

    def delete_rule(self, name: str, version: int | None = None) -> None:
        """Delete a rule; its tasks become orphans, to be purged by a person. Raises as `delete_service` does."""
        rule = self._current(self.rule, name, version)
        with self._db.transaction() as conn:
            deleted = conn.execute(
                "UPDATE rules SET deleted_at = now(), version = version + 1"
                " WHERE id = %(id)s AND deleted_at IS NULL AND version = coalesce(%(version)s, version)",
                {"id": rule.id, "version": version},
            ).rowcount
            if not deleted:
                raise _stale("rule", name)
            record(conn, "rule.delete", "rule", id=rule.id, name=name, before=rule_document(rule))
        self.invalidate()

    def _current(self, find: Callable[[str], Found], name: str, version: int | None) -> Found:
        """What is to be changed, as new as the version that somebody saw of it.

        Another process may have shown them a version of which this one has not heard yet.
        """
        if version is not None and find(name).version != version:
            self.invalidate()
        return find(name)


def _stale(kind: str, name: str) -> StaleError:
    return StaleError(f"{kind} {name!r} was changed by somebody else; read it again")
