"""Sessions of signed-in browsers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from hub.errors import NotFoundError
from hub.store.audit import actor, record
from hub.store.database import Database
from hub.store.security_log import SecurityLog
from hub.store.tokens import hashed
from hub.store.users import Role

SESSION_SECONDS = 12 * 3600.0

_DELETE_EXPIRED = "DELETE FROM sessions WHERE expires_at < now()"
_INSERT = """
INSERT INTO sessions (hash, user_id, csrf, origin, expires_at)
VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s))
"""
_GET = """
SELECT s.id, u.id AS user_id, u.name, u.role, s.csrf, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.hash = %s AND s.expires_at > now() AND u.enabled
"""
_LIST = """
SELECT s.id, u.name AS user, s.origin, s.created_at, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.expires_at > now() AND u.enabled AND (%(name)s::text IS NULL OR u.name = %(name)s) ORDER BY s.id DESC
"""
_END = "DELETE FROM sessions WHERE hash = %s"
_REVOKE = """
DELETE FROM sessions s USING users u
WHERE u.id = s.user_id AND s.id = %(id)s AND (%(name)s::text IS NULL OR u.name = %(name)s) RETURNING u.name
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. Every form must carry `csrf`."""

    id: int
    user_id: int
    name: str
    role: Role
    csrf: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session as listings show it."""

    id: int
    user: str
    origin: str | None
    created_at: datetime
    expires_at: datetime


class Sessions:
    """Reads and writes sessions."""

    def __init__(self, db: Database, trace: SecurityLog) -> None:
        self._db = db
        self._trace = trace

    def start(self, user_id: int, *, seconds: float = SESSION_SECONDS) -> str:
        """Sign a browser in. Returns the secret for its cookie, always a new one."""
        secret = secrets.token_urlsafe(32)
        with self._db.transaction() as conn:
            conn.execute(_DELETE_EXPIRED)
            conn.execute(_INSERT, [hashed(secret), user_id, secrets.token_urlsafe(32), actor().origin, seconds])
        return secret

    def get(self, secret: str) -> Session | None:
        """The live session with that secret."""
        row = self._db.one(_GET, [hashed(secret)])
        return Session(**row) if row else None

    def end(self, secret: str) -> None:
        """Sign out."""
        if self._db.run(_END, [hashed(secret)]):
            self._trace.happened("session", "ended")

    def list(self, name: str | None = None) -> list[OpenSession]:
        """Live sessions of a user, or of all users, newest first."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(OpenSession)) as cur:
            return cur.execute(_LIST, {"name": name}).fetchall()

    def revoke(self, number: int, *, name: str | None = None) -> None:
        """End a session; with `name` only one of that user. Raises `NotFoundError`."""
        with self._db.transaction() as conn:
            row = conn.execute(_REVOKE, {"id": number, "name": name}).fetchone()
            if row is None:
                raise NotFoundError(f"no session {number}")
            record(conn, "session.revoke", "session", id=number, name=row[0])
        self._trace.happened("session", "revoked", user=row[0])
