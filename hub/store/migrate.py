"""Numbered SQL files, applied once each, in order, under an advisory lock, with their checksums kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources

import psycopg

from hub.errors import ConfigError, UnavailableError
from hub.store.database import Database
from hub.store.pooler import check_pooler

_LOCK = 0x48554221
_TABLE = "SELECT to_regclass('hub_migrations') AS t"
_APPLIED = "SELECT name FROM hub_migrations"
_TAKE_LOCK = "SELECT pg_advisory_lock(%s)"
_CREATE = """
CREATE TABLE IF NOT EXISTS hub_migrations (
    name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_CHECKSUMS = "SELECT name, checksum FROM hub_migrations"
_RECORD = "INSERT INTO hub_migrations (name, checksum) VALUES (%s, %s)"


def migrations() -> list[tuple[str, str, str]]:
    """(name, sha256, sql) of every migration, in order."""
    folder = resources.files("hub.store") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(f.name, hashlib.sha256(f.read_bytes()).hexdigest(), f.read_text("utf-8")) for f in files]


def pending(db: Database) -> list[str]:
    """Names of migrations that this database still lacks."""
    return _lacking(_applied(db))


def _applied(db: Database) -> set[str]:
    return {row["name"] for row in db.all(_APPLIED)} if _exists(db) else set()


def _lacking(applied: set[str]) -> list[str]:
    return [name for name, _, _ in migrations() if name not in applied]


def refuse_newer(names: Iterable[str]) -> None:
    """Raise `ConfigError` when one of these applied migrations is unknown: the tables are of a newer version."""
    if newer := sorted(set(names) - {name for name, _, _ in migrations()}):
        raise ConfigError(f"the database has migrations this version does not know ({newer[0]}): update the hub")


def check(db: Database) -> list[str]:
    """Names of the migrations that `migrate` would apply; raises `ConfigError` where it would refuse newer tables."""
    applied = _applied(db)
    refuse_newer(applied)
    return _lacking(applied)


def check_schema(db: Database, *, embedded: bool) -> None:
    """Create the tables of an empty database. Migrate the database of an embedded hub.

    Raises:
        ConfigError: the database needs `hub migrate` or is of a newer version, or there is a pooler in transaction mode
            and no direct URL.
        UnavailableError: the database does not respond.
    """
    if not embedded:
        check_pooler(db)
    missing = check(db)
    if not missing:
        return
    if embedded or not _exists(db):
        migrate(db)
    else:
        raise ConfigError(f"the database lacks {len(missing)} migration(s), first {missing[0]}: run `hub migrate`")


def _exists(db: Database) -> bool:
    row = db.one(_TABLE)
    return bool(row and row["t"])


def migrate(db: Database) -> list[str]:
    """Apply what is missing; returns the names applied. Each migration is one transaction.

    Raises:
        ConfigError: a migration that was applied has been edited since, or the database is newer.
    """
    conn = db.connect()
    applied = []
    try:
        conn.execute(_TAKE_LOCK, [_LOCK])
        conn.execute(_CREATE)
        done: dict[str, str] = dict(conn.execute(_CHECKSUMS).fetchall())
        known = migrations()
        refuse_newer(done)
        for name, checksum, sql in known:
            if name in done:
                if done[name] != checksum:
                    raise ConfigError(f"migration {name} was changed after it had been applied")
                continue
            with conn.transaction():
                conn.execute(sql.encode())  # the package's own file
                conn.execute(_RECORD, [name, checksum])
            applied.append(name)
    except psycopg.OperationalError as e:
        raise UnavailableError(f"the database does not respond: {e}") from e
    finally:
        conn.close()
    return applied
