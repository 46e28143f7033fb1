"""API tokens: what a program may do. The secret is shown once and kept only as SHA-256, as every secret here.

Tokens, session cookies and links are 256 random bits, so a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.rows import class_row

from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.hooks import Hooks
from hub.store.audit import record
from hub.store.database import Database
from hub.store.security_log import SecurityLog

Scope = Literal["ingest", "view", "manage"]
_TOKEN = "id, name, scope, expires_at, revoked_at, last_used_at, created_at"  # noqa: S105 - column names
_ADD_TOKEN = f"""
INSERT INTO api_tokens (name, hash, scope, expires_at) VALUES (%(name)s, %(hash)s, %(scope)s, %(expires_at)s)
RETURNING {_TOKEN}
"""  # noqa: S608 - constants
# last_used_at is for people: once a minute is exact enough, and keeps reads from becoming writes.
_USE_TOKEN = f"""
SELECT {_TOKEN}, (last_used_at IS NULL OR last_used_at < now() - interval '1 minute') AS stale FROM api_tokens
WHERE hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as people see it; the secret itself is shown once, when it is made."""

    id: int
    name: str
    scope: Scope
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class Tokens:
    """Reads and writes API tokens."""

    def __init__(self, db: Database, hooks: Hooks | None = None) -> None:
        self._db = db
        self.trace = SecurityLog(hooks or Hooks())

    def add_token(self, name: str, scope: Scope, *, expires_at: datetime | None = None) -> tuple[Token, str]:
        """A new token and its secret, which nobody can read again.

        Raises:
            ConflictError: a live token has that name.
            ConfigError: the name or scope is not usable.
        """
        check_name(name)
        if scope not in ("ingest", "view", "manage"):
            raise ConfigError("must be ingest, view or manage", field="scope")
        secret = "hub_" + secrets.token_urlsafe(32)
        values = {"name": name, "hash": hashed(secret), "scope": scope, "expires_at": expires_at}
        with self._db.transaction() as conn, conn.cursor(row_factory=class_row(Token)) as cur:
            cur.execute(
                "DELETE FROM api_tokens WHERE name = %s AND (revoked_at IS NOT NULL OR expires_at < now())", [name]
            )
            taken = conn.execute("SELECT 1 FROM api_tokens WHERE name = %s", [name]).fetchone()
            if taken:
                raise ConflictError(f"there is a token named {name!r} already")
            token = cur.execute(_ADD_TOKEN.encode(), values).fetchone()
            assert token is not None
            record(conn, "token.add", "token", id=token.id, name=name,
                   after={"scope": scope, "expires_at": expires_at})  # fmt: skip
        self.trace.happened("token", "added", token=name, scope=scope)
        return token, secret

    def tokens(self) -> list[Token]:
        """Every token, by name."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Token)) as cur:
            return cur.execute(f"SELECT {_TOKEN} FROM api_tokens ORDER BY name".encode()).fetchall()  # noqa: S608

    def token(self, name: str) -> Token:
        """The token of that name; raises `NotFoundError`."""
        for token in self.tokens():
            if token.name == name:
                return token
        raise NotFoundError(f"no token named {name!r}")

    def revoke_token(self, name: str) -> None:
        """End a token at once; raises `NotFoundError`."""
        token = self.token(name)
        with self._db.transaction() as conn:
            sql = "UPDATE api_tokens SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
            if conn.execute(sql, [token.id]).rowcount == 0:
                return
            record(conn, "token.revoke", "token", id=token.id, name=name, before={"scope": token.scope})
        self.trace.happened("token", "revoked", token=name)

    def use_token(self, secret: str) -> Token | None:
        """The live token with that secret, None when there is none."""
        row = self._db.one(_USE_TOKEN, [hashed(secret)])
        if row is None:
            return None
        if row.pop("stale"):
            self._db.run("UPDATE api_tokens SET last_used_at = now() WHERE id = %s", [row["id"]])
        return Token(**row)


def hashed(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def check_name(name: str) -> None:
    """Names of tokens and users: printable, not too long; raises `ConfigError`."""
    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise ConfigError("must have 1 to 100 printable characters", field="name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError("must have 1 to 100 printable characters", field="name") from None
