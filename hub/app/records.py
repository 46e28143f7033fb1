"""What a command needs that reads or changes rows and delivers nothing: the database and its stores.

`hub.app.lifecycle` builds a whole process; that imports Dramatiq, pika and the transports, which a listing never uses.
Each store is imported when it is first used.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from hub.store.clock import Clock
from hub.store.database import Database
from hub.store.migrate import check_schema
from hub.store.views import Views

if TYPE_CHECKING:
    from hub.embedded import PrivatePostgres
    from hub.scheduling.schedule import Schedule
    from hub.settings import Settings
    from hub.store.audit import AuditLog
    from hub.store.configuration import Configuration
    from hub.store.registry import Registry


class Records:
    """The stores of one command. Close it when done.

    Args:
        set_up_logging: called before a part that may log is imported: logging costs more than most listings.

    Raises:
        ConfigError: the database needs `hub migrate`.
        UnavailableError: the database does not respond.
    """

    def __init__(self, settings: Settings, *, set_up_logging: Callable[[], object] = lambda: None) -> None:
        self.settings = settings
        self._set_up_logging = set_up_logging
        self._postgres: PrivatePostgres | None = None
        url = settings.database_url.get_secret_value() if settings.database_url else self._start_postgres()
        self.db = Database(url, direct_url=settings.direct_url, size=2)
        self.clock = Clock(self.db)
        try:
            self.db.connect().close()  # says at once, and why, that there is no database
            self.db.open()
            check_schema(self.db, embedded=settings.embedded)
        except BaseException:
            self.close()
            raise
        self.views = Views(
            self.db,
            max_attempts=settings.max_attempts,
            queue_limit=settings.queue_limit,
            park=settings.circuit_open == "park",
        )

    def _start_postgres(self) -> str:
        from hub.embedded import PrivatePostgres

        self._set_up_logging()
        self._postgres = PrivatePostgres(self.settings.home)
        return self._postgres.start()

    @cached_property
    def registry(self) -> Registry:
        """Services and rules, read and written."""
        self._set_up_logging()
        from hub.app.keys import vault_keys
        from hub.store.registry import Registry
        from hub.store.vault import Vault

        return Registry(self.db, Vault(vault_keys(self.settings)))

    @property
    def configuration(self) -> Configuration:
        """Services and rules, read."""
        return self.registry.configuration

    @cached_property
    def schedule(self) -> Schedule:
        """Scheduled tasks."""
        self._set_up_logging()
        from hub.scheduling.schedule import Schedule
        from hub.store.schedules import Schedules

        instance = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        return Schedule(Schedules(self.db, claimed_by=instance), self.settings.timezone, now=self.clock.read)

    @cached_property
    def audit(self) -> AuditLog:
        """The audit trail."""
        from hub.store.audit import AuditLog

        return AuditLog(self.db)

    def close(self) -> None:
        """Close connections, and end the private database if nobody else uses it."""
        self.db.close()
        if self._postgres is not None:
            self._postgres.stop()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
