"""Changes of services: checked, versioned, audited, with their secrets encrypted. `Configuration` reads them."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import check_replaced, check_service, merge, service_document
from hub.errors import ConfigError, ConflictError, StaleError
from hub.models import Service
from hub.store.audit import record, record_many
from hub.store.configuration import Configuration
from hub.store.database import Connection, Database, Row
from hub.store.vault import Vault

_INSERT = """
INSERT INTO services (name, type, base_url, enabled, auth_type, timeout, max_retries, retry_backoff,
    cb_failure_threshold, cb_cooldown, response_queue, options, secrets)
VALUES (%(name)s, %(type)s, %(base_url)s, %(enabled)s, %(auth_type)s, %(timeout)s, %(max_retries)s, %(retry_backoff)s,
    %(cb_failure_threshold)s, %(cb_cooldown)s, %(response_queue)s, %(options)s, %(secrets)s)
RETURNING *
"""
_INSERT_BREAKER = "INSERT INTO breakers (service_id) VALUES (%s)"
_INSERT_RATE_LIMIT = "INSERT INTO service_flow (service_id) VALUES (%s)"
_UPDATE = """
UPDATE services SET name = %(name)s, type = %(type)s, base_url = %(base_url)s, enabled = %(enabled)s,
    auth_type = %(auth_type)s, timeout = %(timeout)s, max_retries = %(max_retries)s, retry_backoff = %(retry_backoff)s,
    cb_failure_threshold = %(cb_failure_threshold)s, cb_cooldown = %(cb_cooldown)s, response_queue = %(response_queue)s,
    options = %(options)s, secrets = %(secrets)s, version = version + 1, updated_at = now()
WHERE id = %(id)s AND version = %(seen)s AND deleted_at IS NULL
RETURNING *
"""
_ENABLE = "UPDATE services SET enabled = %s, version = version + 1, updated_at = now() WHERE id = %s"
# Tasks that were held while the service was disabled must not expire as soon as it is enabled.
_EXTEND_HELD = """
UPDATE tasks SET expires_at = now() + interval '1 hour'
WHERE service_id = %s AND expires_at < now() + interval '1 hour'
"""
_DELETE = """
UPDATE services SET deleted_at = now(), secrets = NULL, version = version + 1
WHERE id = %(id)s AND deleted_at IS NULL AND version = coalesce(%(version)s, version)
"""
_DELETE_RULES = """
UPDATE rules SET deleted_at = now(), version = version + 1
WHERE service_id = %s AND deleted_at IS NULL RETURNING id, name
"""
_SECRETS: LiteralString = "SELECT id, name, secrets FROM services WHERE secrets IS NOT NULL ORDER BY name FOR UPDATE"
_SET_SECRETS = "UPDATE services SET secrets = %s WHERE id = %s"


class ServiceStore:
    """Writes services."""

    def __init__(self, db: Database, vault: Vault, configuration: Configuration) -> None:
        self._db = db
        self._vault = vault
        self._configuration = configuration

    def add(self, spec: ServiceSpec) -> Service:
        """Create a service.

        Raises:
            ConflictError: the name is taken.
            ConfigError: the definition is not valid.
        """
        check_service(spec)
        columns, secrets = spec.split()
        with self._db.transaction() as conn:
            row = self._insert(conn, columns, secrets, spec.name)
            service = self._configuration.to_service(row)
            record(conn, "service.add", "service", id=service.id, name=service.name, after=service_document(service))
        return service

    def _insert(self, conn: Connection, columns: Row, secrets: dict[str, str], name: str) -> Row:
        values = {**columns, "options": Jsonb(columns["options"]), "secrets": self._vault.seal(secrets)}
        with conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(_INSERT, values).fetchone()
            except psycopg.errors.UniqueViolation:
                raise _taken(name) from None
            assert row is not None
            cur.execute(_INSERT_BREAKER, [row["id"]])
            cur.execute(_INSERT_RATE_LIMIT, [row["id"]])
        self._configuration.invalidate()
        return row

    def update(self, name: str, changes: dict[str, Any], version: int | None = None) -> Service:
        """Change fields of a service (those of `ServiceSpec`). Secrets that are not named stay.

        A change of a service whose secrets cannot be decrypted must name all of them: it replaces what is stored.

        Raises:
            StaleError: the service has changed since `version`.
            ConflictError: the new name is taken.
            ConfigError: the result would not be a valid service.
        """
        current = self._configuration.current_service(name, version)
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
                row = cur.execute(_UPDATE, values).fetchone()
            except psycopg.errors.UniqueViolation:
                raise _taken(spec.name) from None
            if row is None:
                raise _stale(name)
            if spec.enabled and not current.enabled:
                cur.execute(_EXTEND_HELD, [current.id])
            service = self._configuration.to_service(row)
            changed = [n for n in {**current.secrets, **secrets} if current.secrets.get(n) != secrets.get(n)]
            before = {**service_document(current), "changed_secrets": []}
            after = {**service_document(service), "changed_secrets": sorted(changed)}
            record(conn, "service.change", "service", id=service.id, name=service.name, before=before, after=after)
        self._configuration.invalidate()
        return service

    def enable(self, name: str, enabled: bool) -> None:
        """Enable or disable a service. Tasks of a disabled service are held, not lost."""
        service = self._configuration.service(name)
        with self._db.transaction() as conn:
            conn.execute(_ENABLE, [enabled, service.id])
            if enabled:
                conn.execute(_EXTEND_HELD, [service.id])
            before, after = {"enabled": service.enabled}, {"enabled": enabled}
            record(conn, "service.change", "service", id=service.id, name=name, before=before, after=after)
        self._configuration.invalidate()

    def delete(self, name: str, version: int | None = None) -> int:
        """Delete a service and its rules. Their tasks become orphans. Returns the number of deleted rules.

        Raises:
            StaleError: the service has changed since `version`.
        """
        service = self._configuration.current_service(name, version)
        with self._db.transaction() as conn:
            if not conn.execute(_DELETE, {"id": service.id, "version": version}).rowcount:
                raise _stale(name)
            rules = conn.execute(_DELETE_RULES, [service.id]).fetchall()
            record(conn, "service.delete", "service", id=service.id, name=name, before=service_document(service))
            record_many(conn, "rule.delete", "rule", [(id_, rule, {"service": name}, None) for id_, rule in rules])
        self._configuration.invalidate()
        return len(rules)

    def rotate_secrets(self) -> tuple[int, list[str]]:
        """Encrypt the secrets of every service with the newest key.

        Returns:
            The number of services, and the names of those whose secrets no key decrypts.
        """
        unreadable: list[str] = []
        with self._db.transaction() as conn:
            rows = conn.execute(_SECRETS).fetchall()
            for row_id, name, sealed in rows:
                try:
                    rotated = self._vault.rotate(sealed)
                except ConfigError:
                    unreadable.append(name)
                    continue
                conn.execute(_SET_SECRETS, [rotated, row_id])
            if rows:
                after = {"services": len(rows) - len(unreadable), "unreadable": unreadable}
                record(conn, "secrets.rotate", "secrets", after=after)
        return len(rows) - len(unreadable), unreadable


def _taken(name: str) -> ConflictError:
    return ConflictError(f"there is a service named {name!r} already")


def _stale(name: str) -> StaleError:
    return StaleError(f"service {name!r} was changed by somebody else; read it again")
