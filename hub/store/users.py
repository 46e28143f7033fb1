"""The people who use the console. Passwords are given hashed (argon2, see `hub.web.passwords`)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from psycopg.rows import class_row

from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.store.audit import record
from hub.store.database import Connection, Database
from hub.store.security_log import SecurityLog
from hub.store.tokens import check_name, hashed

Role = Literal["view", "manage"]

_COLUMNS = "id, name, role, enabled, created_at"
_INSERT = f"INSERT INTO users (name, password, role) VALUES (%s, %s, %s) RETURNING {_COLUMNS}"  # noqa: S608 - constants
_LIST = f"SELECT {_COLUMNS} FROM users ORDER BY name"  # noqa: S608 - constants
_GET = f"SELECT {_COLUMNS} FROM users WHERE name = %s"  # noqa: S608 - constants
_GET_HASH = f"SELECT {_COLUMNS}, password FROM users WHERE name = %s AND enabled AND password IS NOT NULL"  # noqa: S608
_SET_PASSWORD = "UPDATE users SET password = %s WHERE id = %s"  # noqa: S105 - a statement
_END_OTHER_SESSIONS = "DELETE FROM sessions WHERE user_id = %s AND hash <> %s"
_LOCK = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"
_DELETE = "DELETE FROM users WHERE id = %s"
_CHANGE = "UPDATE users SET role = coalesce(%s, role), enabled = coalesce(%s, enabled) WHERE id = %s"
_END_SESSIONS = "DELETE FROM sessions WHERE user_id = %s"
_END_LINKS = "DELETE FROM login_links"
_MANAGER = "SELECT 1 FROM users WHERE role = 'manage' AND enabled LIMIT 1"


@dataclass(frozen=True, slots=True)
class User:
    """A person who uses the console."""

    id: int
    name: str
    role: Role
    enabled: bool
    created_at: datetime


class Users:
    """Reads and writes users."""

    def __init__(self, db: Database, trace: SecurityLog) -> None:
        self._db = db
        self._trace = trace

    def add(self, name: str, password_hash: str, role: Role) -> User:
        """Create a user.

        Raises:
            ConflictError: the name is taken.
            ConfigError: the name or the role is not valid.
        """
        with self._db.transaction() as conn:
            user = insert_user(conn, name, password_hash, role)
        self._trace.happened("user", "added", user=name, role=role)
        return user

    def list(self) -> list[User]:
        """Every user, by name."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(User)) as cur:
            return cur.execute(_LIST.encode()).fetchall()

    def get(self, name: str, conn: Connection | None = None) -> User:
        """The user of that name, as the transaction of `conn` sees it; raises `NotFoundError`."""
        with (
            nullcontext(conn) if conn else self._db.autocommit() as conn,
            conn.cursor(row_factory=class_row(User)) as cur,
        ):
            user = cur.execute(_GET.encode(), [name]).fetchone()
        if user is None:
            raise NotFoundError(f"no user named {name!r}")
        return user

    def password_hash(self, name: str) -> tuple[User, str] | None:
        """An enabled user and the hash of the password; None: no such user, or it has no password."""
        row = self._db.one(_GET_HASH, [name])
        if row is None:
            return None
        password = row.pop("password")
        return User(**row), password

    def set_password(self, name: str, password_hash: str, *, keep: str | None = None) -> None:
        """Set the password. Ends the user's sessions, except the one with the secret `keep`."""
        user = self.get(name)
        with self._db.transaction() as conn:
            conn.execute(_SET_PASSWORD, [password_hash, user.id])
            conn.execute(_END_OTHER_SESSIONS, [user.id, hashed(keep) if keep else b""])
            record(conn, "user.password", "user", id=user.id, name=name)
        self._trace.happened("user", "changed", user=name, what="password")

    def set_role(self, name: str, role: Role) -> None:
        """Set the role. Ends the user's sessions."""
        _check_role(role)
        if self._change(name, role=role):
            self._trace.happened("user", "changed", user=name, what="role")

    def enable(self, name: str, enabled: bool) -> None:
        """Enable or disable a user. Disabling ends the user's sessions."""
        if self._change(name, enabled=enabled):
            self._trace.happened("user", "changed", user=name, what="enabled")

    def delete(self, name: str) -> None:
        """Delete a user with all sessions."""
        with self._db.transaction() as conn:
            conn.execute(_LOCK)
            user = self.get(name, conn)
            conn.execute(_DELETE, [user.id])
            _check_manager_left(conn, user)
            before = {"role": user.role, "enabled": user.enabled}
            record(conn, "user.delete", "user", id=user.id, name=name, before=before)
        self._trace.happened("user", "deleted", user=name)

    def _change(self, name: str, *, role: Role | None = None, enabled: bool | None = None) -> bool:
        """Change a user; returns whether anything changed."""
        with self._db.transaction() as conn:
            conn.execute(_LOCK)
            user = self.get(name, conn)
            conn.execute(_CHANGE, [role, enabled, user.id])
            if enabled is False or (role is not None and role != user.role):
                conn.execute(_END_SESSIONS, [user.id])
            if role == "manage":
                conn.execute(_END_LINKS)
            _check_manager_left(conn, user)
            before = {"role": user.role, "enabled": user.enabled}
            after = {"role": role or user.role, "enabled": user.enabled if enabled is None else enabled}
            return record(conn, "user.change", "user", id=user.id, name=name, before=before, after=after)


def insert_user(conn: Connection, name: str, password_hash: str, role: Role) -> User:
    """Create a user in the transaction of `conn`. A user who may manage ends all login links.

    Login links exist to create the first such user.
    """
    check_name(name)
    _check_role(role)
    with conn.cursor(row_factory=class_row(User)) as cur:
        if cur.execute(_GET.encode(), [name]).fetchone():
            raise ConflictError(f"there is a user named {name!r} already")
        user = cur.execute(_INSERT.encode(), [name, password_hash, role]).fetchone()
    assert user is not None
    record(conn, "user.add", "user", id=user.id, name=name, after={"role": role, "enabled": True})
    if role == "manage":
        conn.execute(_END_LINKS)
    return user


def _check_role(role: str) -> None:
    if role not in get_args(Role):
        raise ConfigError("must be view or manage", field="role")


def _check_manager_left(conn: Connection, user: User) -> None:
    """Raise `ConflictError` when a change of `user` left no enabled user who may manage the hub."""
    if user.role == "manage" and user.enabled and conn.execute(_MANAGER).fetchone() is None:
        raise ConflictError(f"{user.name!r} is the last user who may manage the hub")
