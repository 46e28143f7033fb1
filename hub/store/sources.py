"""Event sources as people change them: checked, one version after the other, the password sealed."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.config.definitions import parse_spec
from hub.config.sources import SourceSpec, check_source, merge_source, source_document
from hub.errors import ConfigError, ConflictError, NotFoundError, StaleError
from hub.models import Source
from hub.store.audit import record
from hub.store.database import Database, Row
from hub.store.vault import Vault

_LIST = "SELECT * FROM sources WHERE deleted_at IS NULL ORDER BY name"
_ONE = "SELECT * FROM sources WHERE deleted_at IS NULL AND name = %s"
_ADD = """
INSERT INTO sources (name, type, url, enabled, options, secrets)
VALUES (%(name)s, %(type)s, %(url)s, %(enabled)s, %(options)s, %(secrets)s) RETURNING *
"""
_START = "INSERT INTO source_positions (source_id) VALUES (%s)"
_UPDATE = """
UPDATE sources SET name = %(name)s, type = %(type)s, url = %(url)s, enabled = %(enabled)s, options = %(options)s,
    secrets = %(secrets)s, version = version + 1, updated_at = now()
WHERE id = %(id)s AND version = %(seen)s AND deleted_at IS NULL RETURNING *
"""
_ENABLE = """
UPDATE sources SET enabled = %s, version = version + 1, updated_at = now()
WHERE id = %s AND deleted_at IS NULL RETURNING *
"""
_DELETE = """
UPDATE sources SET deleted_at = now(), secrets = NULL, version = version + 1
WHERE id = %(id)s AND deleted_at IS NULL AND version = coalesce(%(version)s, version)
"""
_SECRETS: LiteralString = "SELECT id, name, secrets FROM sources WHERE secrets IS NOT NULL ORDER BY name FOR UPDATE"
_SET_SECRETS = "UPDATE sources SET secrets = %s WHERE id = %s"
_FORGET = ("DELETE FROM source_positions WHERE source_id = %s", "DELETE FROM source_gaps WHERE source_id = %s")


class SourceStore:
    """Reads and writes the definitions of event sources."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault

    def sources(self) -> list[Source]:
        """Every source, by name."""
        return [self._to_source(row) for row in self._db.all(_LIST)]

    def source(self, name: str) -> Source:
        """The source of that name; raises `NotFoundError`."""
        row = self._db.one(_ONE, [name])
        if row is None:
            raise NotFoundError(f"no source named {name!r}; `hub source list` shows what there is")
        return self._to_source(row)

    def add(self, spec: SourceSpec) -> Source:
        """Create a source; raises `ConflictError` when the name is taken."""
        check_source(spec)
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(_ADD, self._values(spec)).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a source named {spec.name!r} already") from None
            assert row is not None
            cur.execute(_START, [row["id"]])
            source = self._to_source(row)
            record(conn, "source.add", "source", id=source.id, name=source.name, after=source_document(source))
        return source

    def update(self, name: str, changes: dict[str, Any], version: int | None = None) -> Source:
        """Change fields of a source (those of `SourceSpec`); a password that is not named stays.

        Raises:
            StaleError: it has changed since `version`.
            ConflictError: the new name is taken.
            ConfigError: the result would not be a valid source.
        """
        current = self.source(name)
        merged = merge_source(source_document(current, secrets=True), changes)
        spec: SourceSpec = parse_spec(SourceSpec, merged)
        if current.secrets_unreadable and "url" not in changes:
            raise ConfigError("the stored password cannot be read: give the whole URL with it", field="url")
        check_source(spec)
        values = self._values(spec) | {"id": current.id, "seen": version if version is not None else current.version}
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            try:
                row = cur.execute(_UPDATE, values).fetchone()
            except psycopg.errors.UniqueViolation:
                raise ConflictError(f"there is a source named {spec.name!r} already") from None
            if row is None:
                raise _stale(name)
            source = self._to_source(row)
            changed = ["password"] if current.secrets != source.secrets else []
            record(
                conn,
                "source.change",
                "source",
                id=source.id,
                name=source.name,
                before={**source_document(current), "changed_secrets": []},
                after={**source_document(source), "changed_secrets": changed},
            )
        return source

    def enable(self, name: str, enabled: bool) -> Source:
        """Read a source again, or no more; its position stays."""
        current = self.source(name)
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            row = cur.execute(_ENABLE, [enabled, current.id]).fetchone()
            if row is None:
                raise _stale(name)
            record(
                conn,
                "source.change",
                "source",
                id=current.id,
                name=name,
                before={"enabled": current.enabled},
                after={"enabled": enabled},
            )
        return self._to_source(row)

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a source and its position; events that were read stay. Raises `StaleError` as `update` does."""
        source = self.source(name)
        with self._db.transaction() as conn:
            if not conn.execute(_DELETE, {"id": source.id, "version": version}).rowcount:
                raise _stale(name)
            for sql in _FORGET:
                conn.execute(sql, [source.id])
            record(conn, "source.delete", "source", id=source.id, name=name, before=source_document(source))

    def rotate_secrets(self) -> tuple[int, list[str]]:
        """Encrypt the password of every source with the newest key.

        Returns:
            The number of sources, and the names of those whose password no key decrypts.
        """
        unreadable: list[str] = []
        with self._db.transaction() as conn:
            rows = conn.execute(_SECRETS).fetchall()
            for row_id, name, sealed in rows:
                try:
                    conn.execute(_SET_SECRETS, [self._vault.rotate(sealed), row_id])
                except ConfigError:
                    unreadable.append(name)
            if rows:
                after = {"sources": len(rows) - len(unreadable), "unreadable": unreadable}
                record(conn, "secrets.rotate", "secrets", after=after)
        return len(rows) - len(unreadable), unreadable

    def _values(self, spec: SourceSpec) -> Row:
        columns, secrets = spec.split()
        return {**columns, "options": Jsonb(columns["options"]), "secrets": self._vault.seal(secrets)}

    def _to_source(self, row: Row) -> Source:
        fields = {name: row[name] for name in Source.__dataclass_fields__ if name in row and name != "secrets"}
        try:
            return Source(**fields, secrets=self._vault.open(row["secrets"]))
        except ConfigError:
            return Source(**fields, secrets_unreadable=True)


def _stale(name: str) -> StaleError:
    return StaleError(f"source {name!r} was changed by somebody else; read it again")
