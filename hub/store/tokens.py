"""API tokens: what a program may do. A secret is shown once; only its SHA-256 is stored.

Tokens, session cookies and login links are 256 random bits, so a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from psycopg.rows import class_row

from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.store.audit import record
from hub.store.database import Database
from hub.store.security_log import SecurityLog

Scope = Literal["ingest", "view", "manage"]

_COLUMNS = "id, name, scope, expires_at, revoked_at, last_used_at, created_at"
_DELETE_ENDED = "DELETE FROM api_tokens WHERE name = %s AND (revoked_at IS NOT NULL OR expires_at < now())"
_TAKEN = "SELECT 1 FROM api_tokens WHERE name = %s"
_INSERT = f"""
INSERT INTO api_tokens (name, hash, scope, expires_at) VALUES (%(name)s, %(hash)s, %(scope)s, %(expires_at)s)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_LIST = f"SELECT {_COLUMNS} FROM api_tokens ORDER BY name"  # noqa: S608 - constants
_REVOKE = "UPDATE api_tokens SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
# `last_used_at` is exact to a minute, so that most uses do not write.
_USE = f"""
SELECT {_COLUMNS}, (last_used_at IS NULL OR last_used_at < now() - interval '1 minute') AS stale,
       coalesce(expires_at > now() + interval '1 minute', true) AS lasting
FROM api_tokens
WHERE hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""  # noqa: S608 - constants
_USED = "UPDATE api_tokens SET last_used_at = now() WHERE id = %s"
_MAX_NAME = 100  # characters


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret."""

    id: int
    name: str
    scope: Scope
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class Tokens:
    """Reads and writes API tokens."""

    def __init__(self, db: Database, trace: SecurityLog) -> None:
        self._db = db
        self._trace = trace
        self.revocations = 0
        """Tokens that this process has revoked."""

    def add(self, name: str, scope: Scope, *, expires_at: datetime | None = None) -> tuple[Token, str]:
        """Create a token. Returns it and its secret, which cannot be read again.

        Raises:
            ConflictError: a live token has that name.
            ConfigError: the name or scope is not valid.
        """
        check_name(name)
        if scope not in get_args(Scope):
            raise ConfigError("must be ingest, view or manage", field="scope")
        secret = "hub_" + secrets.token_urlsafe(32)
        values = {"name": name, "hash": hashed(secret), "scope": scope, "expires_at": expires_at}
        with self._db.transaction() as conn, conn.cursor(row_factory=class_row(Token)) as cur:
            cur.execute(_DELETE_ENDED, [name])
            if conn.execute(_TAKEN, [name]).fetchone():
                raise ConflictError(f"there is a token named {name!r} already")
            token = cur.execute(_INSERT.encode(), values).fetchone()
            assert token is not None
            after = {"scope": scope, "expires_at": expires_at}
            record(conn, "token.add", "token", id=token.id, name=name, after=after)
        self._trace.happened("token", "added", token=name, scope=scope)
        return token, secret

    def list(self) -> list[Token]:
        """Every token, by name."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Token)) as cur:
            return cur.execute(_LIST.encode()).fetchall()

    def get(self, name: str) -> Token:
        """The token of that name; raises `NotFoundError`."""
        for token in self.list():
            if token.name == name:
                return token
        raise NotFoundError(f"no token named {name!r}")

    def revoke(self, name: str) -> None:
        """End a token at once; raises `NotFoundError`."""
        token = self.get(name)
        with self._db.transaction() as conn:
            if conn.execute(_REVOKE, [token.id]).rowcount == 0:
                return
            record(conn, "token.revoke", "token", id=token.id, name=name, before={"scope": token.scope})
        self.revocations += 1
        self._trace.happened("token", "revoked", token=name)

    def use(self, secret: str) -> Token | None:
        """The live token with that secret; None: there is none."""
        found = self.find(secret)
        return None if found is None else found[0]

    def find(self, secret: str) -> tuple[Token, bool] | None:
        """The live token with that secret, and whether it stays valid for a minute unless it is changed."""
        row = self._db.one(_USE, [hashed(secret)])
        if row is None:
            return None
        lasting = row.pop("lasting")
        if row.pop("stale"):
            self._db.run(_USED, [row["id"]])
        return Token(**row), lasting


def hashed(secret: str) -> bytes:
    """SHA-256 of a secret: what is stored of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def check_name(name: str) -> None:
    """Raise `ConfigError` unless `name` is fit for a token or user: 1 to 100 printable characters."""
    valid = isinstance(name, str) and 1 <= len(name) <= _MAX_NAME and name.isprintable() and name == name.strip()
    if not valid:
        raise ConfigError("must have 1 to 100 printable characters", field="name")
