"""Who may do what: the people who use the console, their sessions and one-time login links; and `tokens`.

Passwords come here already hashed (argon2, see `web.passwords`).
"""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.rows import class_row

from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.store.audit import actor, record
from hub.store.database import Connection
from hub.store.tokens import Tokens, check_name, hashed

Role = Literal["view", "manage"]
SESSION_SECONDS = 12 * 3600.0
LINK_SECONDS = 3600.0

_USER = "id, name, role, enabled, created_at"
_SESSION = """
SELECT s.id, u.id AS user_id, u.name, u.role, s.csrf, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.hash = %s AND s.expires_at > now() AND u.enabled
"""


_SESSIONS = """
SELECT s.id, u.name AS user, s.origin, s.created_at, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.expires_at > now() AND u.enabled AND (%(name)s::text IS NULL OR u.name = %(name)s) ORDER BY s.id DESC
"""
_REVOKE = """
DELETE FROM sessions s USING users u
WHERE u.id = s.user_id AND s.id = %(id)s AND (%(name)s::text IS NULL OR u.name = %(name)s) RETURNING u.name
"""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session as people see it."""

    id: int
    user: str
    origin: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person who uses the console."""

    id: int
    name: str
    role: Role
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `csrf` must come back with every form."""

    id: int
    user_id: int
    name: str
    role: Role
    csrf: str
    expires_at: datetime


class Accounts(Tokens):
    """Reads and writes tokens, users, sessions and links."""

    # Users

    def add_user(self, name: str, password_hash: str, role: Role) -> User:
        """A new user; raises `ConflictError` when the name is taken."""
        with self._db.transaction() as conn:
            user = self._insert(conn, name, password_hash, role)
        self.trace.happened("user", "added", user=name, role=role)
        return user

    def _insert(self, conn: Connection, name: str, password_hash: str, role: Role) -> User:
        """A new user. An administrator ends all login links, which are there to make the first one."""
        check_name(name)
        if role not in ("view", "manage"):
            raise ConfigError("must be view or manage", field="role")
        with conn.cursor(row_factory=class_row(User)) as cur:
            if conn.execute("SELECT 1 FROM users WHERE name = %s", [name]).fetchone():
                raise ConflictError(f"there is a user named {name!r} already")
            user = cur.execute(
                "INSERT INTO users (name, password, role) VALUES (%s, %s, %s)"
                " RETURNING id, name, role, enabled, created_at",
                [name, password_hash, role],
            ).fetchone()
        assert user is not None
        record(conn, "user.add", "user", id=user.id, name=name, after={"role": role, "enabled": True})
        if role == "manage":
            conn.execute("DELETE FROM login_links")
        return user

    def users(self) -> list[User]:
        """Every user, by name."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(User)) as cur:
            return cur.execute(f"SELECT {_USER} FROM users ORDER BY name".encode()).fetchall()  # noqa: S608

    def user(self, name: str, conn: Connection | None = None) -> User:
        """The user of that name, as the transaction of `conn` sees it; raises `NotFoundError`."""
        with (
            nullcontext(conn) if conn else self._db.autocommit() as conn,
            conn.cursor(row_factory=class_row(User)) as cur,
        ):
            user = cur.execute(f"SELECT {_USER} FROM users WHERE name = %s".encode(), [name]).fetchone()  # noqa: S608
        if user is None:
            raise NotFoundError(f"no user named {name!r}")
        return user

    def password_hash(self, name: str) -> tuple[User, str] | None:
        """An enabled user and the hash of the password; None: no such user, or none who may sign in."""
        row = self._db.one("SELECT * FROM users WHERE name = %s AND enabled AND password IS NOT NULL", [name])
        if row is None:
            return None
        password = row.pop("password")
        return User(**row), password

    def set_password(self, name: str, password_hash: str, *, keep: str | None = None) -> None:
        """Another password; ends the user's sessions but the one with the secret `keep`."""
        user = self.user(name)
        with self._db.transaction() as conn:
            conn.execute("UPDATE users SET password = %s WHERE id = %s", [password_hash, user.id])
            conn.execute(
                "DELETE FROM sessions WHERE user_id = %s AND hash <> %s", [user.id, hashed(keep) if keep else b""]
            )
            record(conn, "user.password", "user", id=user.id, name=name)
        self.trace.happened("user", "changed", user=name, what="password")

    def set_role(self, name: str, role: Role) -> None:
        """Another role; ends the user's sessions."""
        self._change(name, role=role)

    def enable_user(self, name: str, enabled: bool) -> None:
        """Let in, or lock out at once."""
        self._change(name, enabled=enabled)

    def delete_user(self, name: str) -> None:
        """Remove a user with all sessions."""
        self._change(name, delete=True)

    def _change(
        self, name: str, *, role: Role | None = None, enabled: bool | None = None, delete: bool = False
    ) -> None:
        """Change a user, but never leave the hub without anybody who may manage it."""
        if role is not None and role not in ("view", "manage"):
            raise ConfigError("must be view or manage", field="role")
        with self._db.transaction() as conn:
            conn.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
            user = self.user(name, conn)
            if delete:
                conn.execute("DELETE FROM users WHERE id = %s", [user.id])
            else:
                conn.execute(
                    "UPDATE users SET role = coalesce(%s, role), enabled = coalesce(%s, enabled) WHERE id = %s",
                    [role, enabled, user.id],
                )
            if enabled is False or (role is not None and role != user.role):
                conn.execute("DELETE FROM sessions WHERE user_id = %s", [user.id])
            if role == "manage":
                conn.execute("DELETE FROM login_links")
            managers = conn.execute("SELECT 1 FROM users WHERE role = 'manage' AND enabled LIMIT 1").fetchone()
            if user.role == "manage" and user.enabled and managers is None:
                raise ConflictError(f"{name!r} is the last user who may manage the hub")
            before = {"role": user.role, "enabled": user.enabled}
            if delete:
                changed = record(conn, "user.delete", "user", id=user.id, name=name, before=before)
            else:
                after = {"role": role or user.role, "enabled": user.enabled if enabled is None else enabled}
                changed = record(conn, "user.change", "user", id=user.id, name=name, before=before, after=after)
        if delete:
            self.trace.happened("user", "deleted", user=name)
        elif changed:
            self.trace.happened("user", "changed", user=name, what="role" if role else "enabled")

    # Sessions

    def start_session(self, user_id: int, *, seconds: float = SESSION_SECONDS) -> str:
        """Sign a browser in; returns the cookie's secret, always a new one."""
        secret = secrets.token_urlsafe(32)
        with self._db.transaction() as conn:
            conn.execute("DELETE FROM sessions WHERE expires_at < now()")
            conn.execute(
                "INSERT INTO sessions (hash, user_id, csrf, origin, expires_at)"
                " VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s))",
                [hashed(secret), user_id, secrets.token_urlsafe(32), actor().origin, seconds],
            )
        return secret

    def session(self, secret: str) -> Session | None:
        """The live session with that secret."""
        row = self._db.one(_SESSION, [hashed(secret)])
        return Session(**row) if row else None

    def end_session(self, secret: str) -> None:
        """Sign out."""
        if self._db.run("DELETE FROM sessions WHERE hash = %s", [hashed(secret)]):
            self.trace.happened("session", "ended")

    def sessions(self, name: str | None = None) -> list[OpenSession]:
        """Live sessions of a user, or of all, newest first."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(OpenSession)) as cur:
            return cur.execute(_SESSIONS, {"name": name}).fetchall()

    def revoke_session(self, number: int, *, name: str | None = None) -> None:
        """End a session; with `name` only one of that user. Raises `NotFoundError`."""
        with self._db.transaction() as conn:
            row = conn.execute(_REVOKE, {"id": number, "name": name}).fetchone()
            if row is None:
                raise NotFoundError(f"no session {number}")
            record(conn, "session.revoke", "session", id=number, name=row[0])
        self.trace.happened("session", "revoked", user=row[0])

    # Login links: the way in for the first user, or for one who forgot the password

    def add_link(self, *, seconds: float = LINK_SECONDS) -> str:
        """The secret of a new link, good for one use; links made before end."""
        secret = secrets.token_urlsafe(32)
        with self._db.transaction() as conn:
            conn.execute("LOCK TABLE login_links IN SHARE ROW EXCLUSIVE MODE")
            conn.execute("DELETE FROM login_links")
            conn.execute(
                "INSERT INTO login_links (hash, expires_at) VALUES (%s, now() + make_interval(secs => %s))",
                [hashed(secret), seconds],
            )
            record(conn, "link.add", "link")
        self.trace.happened("link", "added")
        return secret

    def link_is_good(self, secret: str) -> bool:
        """Whether the link may still be used; looking does not use it up."""
        row = self._db.one("SELECT 1 AS x FROM login_links WHERE hash = %s AND expires_at > now()", [hashed(secret)])
        return row is not None

    def use_link(self, secret: str, name: str, password_hash: str) -> User | None:
        """The administrator that a link makes, once; None when the link is not good.

        Raises:
            ConfigError: the name is not usable; the link stays good.
            ConflictError: there is a user of that name; the link stays good.
        """
        with self._db.transaction() as conn:
            sql = "DELETE FROM login_links WHERE hash = %s AND expires_at > now()"
            if conn.execute(sql, [hashed(secret)]).rowcount != 1:
                return None
            user = self._insert(conn, name, password_hash, "manage")
        self.trace.happened("link", "used", user=name)
        self.trace.happened("user", "added", user=name, role="manage")
        return user
