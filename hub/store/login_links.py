"""One-time login links: they create the first user, or one for a person who forgot the password."""

from __future__ import annotations

import secrets

from hub.store.audit import record
from hub.store.database import Database
from hub.store.security_log import SecurityLog
from hub.store.tokens import hashed
from hub.store.users import User, insert_user

LINK_SECONDS = 3600.0

_LOCK = "LOCK TABLE login_links IN SHARE ROW EXCLUSIVE MODE"
_DELETE_ALL = "DELETE FROM login_links"
_INSERT = "INSERT INTO login_links (hash, expires_at) VALUES (%s, now() + make_interval(secs => %s))"
_VALID = "SELECT 1 AS x FROM login_links WHERE hash = %s AND expires_at > now()"
_USE = "DELETE FROM login_links WHERE hash = %s AND expires_at > now()"


class LoginLinks:
    """Reads and writes login links."""

    def __init__(self, db: Database, trace: SecurityLog) -> None:
        self._db = db
        self._trace = trace

    def add(self, *, seconds: float = LINK_SECONDS) -> str:
        """Create a link, valid for one use, and end all others. Returns its secret."""
        secret = secrets.token_urlsafe(32)
        with self._db.transaction() as conn:
            conn.execute(_LOCK)
            conn.execute(_DELETE_ALL)
            conn.execute(_INSERT, [hashed(secret), seconds])
            record(conn, "link.add", "link")
        self._trace.happened("link", "added")
        return secret

    def is_valid(self, secret: str) -> bool:
        """Whether the link can still be used. Does not use it up."""
        return self._db.one(_VALID, [hashed(secret)]) is not None

    def use(self, secret: str, name: str, password_hash: str) -> User | None:
        """Create the user who may manage the hub, once. None: the link is not valid.

        Raises:
            ConfigError: the name is not valid; the link stays valid.
            ConflictError: there is a user of that name; the link stays valid.
        """
        with self._db.transaction() as conn:
            if conn.execute(_USE, [hashed(secret)]).rowcount != 1:
                return None
            user = insert_user(conn, name, password_hash, "manage")
        self._trace.happened("link", "used", user=name)
        self._trace.happened("user", "added", user=name, role="manage")
        return user
