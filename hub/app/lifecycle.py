"""The composition root: `build(settings)` makes the hub of one process."""

from __future__ import annotations

from hub.app.hub import Hub
from hub.app.modes import Role
from hub.embedded import PrivatePostgres
from hub.hooks import Hooks
from hub.settings import Settings
from hub.store.migrate import check_schema

__all__ = ["Hub", "build"]


def build(settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, check: bool = True) -> Hub:
    """Build the hub of one process.

    Args:
        role: what this process is.
        check: whether the database's schema is checked (an empty one is made).

    Raises:
        ConfigError: a setting is wrong, or the database needs `hub migrate`.
        UnavailableError: the database does not respond.
    """
    postgres = PrivatePostgres(settings.home) if settings.embedded else None
    hub = Hub(settings, role=role, hooks=hooks, postgres=postgres)
    if not check:
        return hub
    try:
        hub.db.connect().close()  # says at once, and why, that there is no database
        hub.clock.sync()
        check_schema(hub.db, embedded=settings.embedded)
    except BaseException:
        hub.close()
        raise
    return hub
