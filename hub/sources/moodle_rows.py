"""Rows of a Moodle site by id: users, custom profile fields, roles, cohorts, courses. Only fixed columns are read.

Callers that ask at the same time share one query. What was read is kept for a bounded time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

from cachetools import TTLCache

from hub.errors import SourceError
from hub.models import JSON
from hub.sources.moodle_database import MoodleDatabase
from hub.store.group_commit import GroupCommit

KEPT: Final = 300.0
"""Seconds for which a row is kept."""
_MOST = 20_000  # rows kept, of each kind
_TOGETHER = 200  # ids of one query
_DOWN = 5.0  # seconds without a new attempt after the database failed

USER_COLUMNS: Final = (
    "id",
    "username",
    "idnumber",
    "firstname",
    "lastname",
    "email",
    "institution",
    "department",
    "city",
    "country",
    "lang",
    "auth",
    "suspended",
    "deleted",
)
COURSE_COLUMNS: Final = ("id", "shortname", "fullname", "idnumber", "startdate", "enddate", "visible")
_USERS = "SELECT {columns} FROM {p}user WHERE id IN ({ids})"
_PROFILES = (
    "SELECT d.userid, f.shortname, d.data FROM {p}user_info_data d JOIN {p}user_info_field f ON f.id = d.fieldid"
    " WHERE d.userid IN ({ids}) ORDER BY d.userid, f.shortname"
)
_COHORTS = (
    "SELECT m.userid, c.name FROM {p}cohort_members m JOIN {p}cohort c ON c.id = m.cohortid"
    " WHERE m.userid IN ({ids}) ORDER BY m.userid, c.name"
)
_COURSES = (
    "SELECT {columns}, g.id, g.name, g.idnumber FROM {p}course c LEFT JOIN {p}course_categories g ON g.id = c.category"
    " WHERE c.id IN ({ids})"
)
_PATHS = "SELECT id, path FROM {p}context WHERE id IN ({ids})"
_ROLES = (
    "SELECT DISTINCT r.shortname FROM {p}role_assignments a JOIN {p}role r ON r.id = a.roleid"
    " WHERE a.userid = %s AND a.contextid IN ({ids}) ORDER BY r.shortname"
)

Key = TypeVar("Key", bound=Hashable)


class _Kept(Generic[Key]):
    """Values by key: kept ones, else those that `load` gives for many keys at once."""

    def __init__(self, load: Callable[[list[Key]], dict[Key, JSON]], now: Callable[[], float]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._values: TTLCache[Key, JSON] = TTLCache(_MOST, KEPT, timer=now)
        self._together: GroupCommit[Key, JSON] = GroupCommit(self._many, limit=_TOGETHER)

    def get(self, key: Key) -> JSON:
        with self._lock:
            if key in self._values:
                return self._values[key]
        value = self._together(key)
        with self._lock:
            self._values[key] = value
        return value

    def _many(self, keys: list[Key]) -> list[JSON]:
        found = self._load(list(dict.fromkeys(keys)))
        return [found.get(key) for key in keys]


class MoodleRows:
    """Reads rows of one site. Thread-safe.

    Args:
        prefix: of Moodle's tables; letters, digits and `_`.
        now: monotonic seconds.
    """

    def __init__(self, db: MoodleDatabase, prefix: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._prefix = prefix
        self._now = now
        self._lock = threading.Lock()  # one connection
        self._down: tuple[float, str] = (float("-inf"), "")
        self._users: _Kept[int] = _Kept(self._load_users, now)
        self._profiles: _Kept[int] = _Kept(self._load_profiles, now)
        self._cohorts: _Kept[int] = _Kept(self._load_cohorts, now)
        self._courses: _Kept[int] = _Kept(self._load_courses, now)
        self._paths: _Kept[int] = _Kept(self._load_paths, now)
        self._roles: _Kept[tuple[int, int]] = _Kept(self._load_roles, now)

    def user(self, id_: int) -> dict[str, JSON] | None:
        """Columns of a user, and `fullname`; None when there is no such row. Raises `SourceError`, as all of these."""
        found: dict[str, JSON] | None = self._users.get(id_)
        return found

    def profile(self, user: int) -> dict[str, JSON]:
        """Custom profile fields of a user, by short name."""
        return self._profiles.get(user) or {}

    def cohorts(self, user: int) -> list[str]:
        """Names of the cohorts that a user belongs to."""
        return self._cohorts.get(user) or []

    def roles(self, user: int, context: int) -> list[str]:
        """Short names of the roles that a user has in a context or above it."""
        return self._roles.get((user, context)) or []

    def course(self, id_: int) -> dict[str, JSON] | None:
        """Columns of a course, with its `category`."""
        found: dict[str, JSON] | None = self._courses.get(id_)
        return found

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    def _load_users(self, ids: list[int]) -> dict[int, JSON]:
        rows = self._query(_USERS, ids, columns=", ".join(USER_COLUMNS))
        users = [dict(zip(USER_COLUMNS, row, strict=True)) for row in rows]
        return {user["id"]: user | {"fullname": f"{user['firstname']} {user['lastname']}".strip()} for user in users}

    def _load_profiles(self, ids: list[int]) -> dict[int, JSON]:
        found: dict[int, JSON] = {}
        for user, name, value in self._query(_PROFILES, ids):
            found.setdefault(user, {})[name] = value
        return found

    def _load_cohorts(self, ids: list[int]) -> dict[int, JSON]:
        found: dict[int, JSON] = {}
        for user, name in self._query(_COHORTS, ids):
            found.setdefault(user, []).append(name)
        return found

    def _load_courses(self, ids: list[int]) -> dict[int, JSON]:
        columns = ", ".join(f"c.{name}" for name in COURSE_COLUMNS)
        found: dict[int, JSON] = {}
        for row in self._query(_COURSES, ids, columns=columns):
            *values, category, name, idnumber = row
            about = None if category is None else {"id": category, "name": name, "idnumber": idnumber}
            found[row[0]] = dict(zip(COURSE_COLUMNS, values, strict=True)) | {"category": about}
        return found

    def _load_paths(self, ids: list[int]) -> dict[int, JSON]:
        return {
            id_: [int(step) for step in str(path or "").split("/") if step] for id_, path in self._query(_PATHS, ids)
        }

    def _load_roles(self, keys: list[tuple[int, int]]) -> dict[tuple[int, int], JSON]:
        found: dict[tuple[int, int], JSON] = {}
        for user, context in keys:
            contexts = self._paths.get(context) or [context]
            found[user, context] = [name for (name,) in self._query(_ROLES, contexts, before=[user])]
        return found

    def _query(
        self, sql: str, ids: Sequence[int], *, columns: str = "", before: Sequence[int] = ()
    ) -> list[tuple[Any, ...]]:
        text = sql.format(p=self._prefix, ids=", ".join(["%s"] * len(ids)), columns=columns)
        with self._lock:
            until, why = self._down
            if self._now() < until:
                raise SourceError(why)
            try:
                return self._db.query(text, [*before, *ids])
            except SourceError as e:
                self._down = self._now() + _DOWN, str(e)
                raise
