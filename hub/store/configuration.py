"""Services and rules in memory, the same in every process.

A trigger announces each change when it commits (`NOTIFY hub_config`). A listener thread then drops the snapshot. A
process without a listener, such as a CLI command, loads the configuration at every read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import psycopg
import structlog
from psycopg.rows import dict_row

from hub.errors import ConfigError, NotFoundError, UnavailableError
from hub.models import Rule, Service, ServiceType
from hub.store.database import Connection, Database, Row
from hub.store.vault import Vault

log = structlog.get_logger("hub.store.configuration")

_PLAIN_COLUMNS = (
    "id",
    "name",
    "base_url",
    "enabled",
    "auth_type",
    "timeout",
    "max_retries",
    "retry_backoff",
    "cb_failure_threshold",
    "cb_cooldown",
    "response_queue",
    "options",
    "version",
    "created_at",
    "updated_at",
)
_SELECT_SERVICES = "SELECT * FROM services WHERE deleted_at IS NULL ORDER BY name"
_SELECT_SERVICE = "SELECT * FROM services WHERE deleted_at IS NULL AND name = %s"
_SELECT_RULES = """
SELECT r.*, s.name AS service, s.enabled AS service_enabled
FROM rules r JOIN services s ON s.id = r.service_id AND s.deleted_at IS NULL
WHERE r.deleted_at IS NULL ORDER BY r.name"""
_SELECT_RULE = """
SELECT r.*, s.name AS service, s.enabled AS service_enabled
FROM rules r JOIN services s ON s.id = r.service_id AND s.deleted_at IS NULL
WHERE r.deleted_at IS NULL AND r.name = %s"""
_LISTEN = "LISTEN hub_config"
_READ_ONLY = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_LISTEN_RETRY = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All services and rules at one moment."""

    services: tuple[Service, ...]
    rules: tuple[Rule, ...]
    by_service_id: dict[int, Service]
    by_rule_id: dict[int, Rule]
    services_by_name: dict[str, Service]
    rules_by_name: dict[str, Rule]


class Configuration:
    """Reads services and rules. Caches them while `listen` reports changes."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault
        self._snapshot: Snapshot | None = None
        self._unreadable: frozenset[str] = frozenset()
        self._generation = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listener: threading.Thread | None = None
        self._listening: Connection | None = None

    # Reading

    def snapshot(self) -> Snapshot:
        """The current configuration. Queries the database only after a change."""
        snapshot = self._snapshot
        if snapshot is not None:
            return snapshot
        with self._lock:
            if self._snapshot is None:
                generation = self._generation
                loaded = self._load()
                if generation == self._generation and self._listener is not None:
                    self._snapshot = loaded  # without a listener a change would not be noticed
                return loaded
            return self._snapshot

    def _load(self) -> Snapshot:
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            if not self._db.joined:  # a transaction that has begun cannot change its isolation level
                cur.execute(_READ_ONLY)
            services = tuple(self.to_service(row) for row in cur.execute(_SELECT_SERVICES).fetchall())
            rules = tuple(to_rule(row) for row in cur.execute(_SELECT_RULES).fetchall())
        unreadable = frozenset(s.name for s in services if s.secrets_unreadable)
        if unreadable - self._unreadable:
            log.warning("no key in HUB_SECRET_KEYS decrypts the secrets of some services", services=sorted(unreadable))
        self._unreadable = unreadable
        return Snapshot(
            services,
            rules,
            by_service_id={s.id: s for s in services},
            by_rule_id={r.id: r for r in rules},
            services_by_name={s.name: s for s in services},
            rules_by_name={r.name: r for r in rules},
        )

    def to_service(self, row: Row) -> Service:
        """The service of a row. One whose secrets no key decrypts has `secrets_unreadable`."""
        fields = {column: row[column] for column in _PLAIN_COLUMNS}
        try:
            fields["secrets"] = self._vault.open(row["secrets"])
        except ConfigError:
            fields["secrets_unreadable"] = True
        return Service(type=ServiceType(row["type"]), **fields)

    def services(self) -> list[Service]:
        """Every service, by name."""
        return list(self.snapshot().services)

    def rules(self) -> list[Rule]:
        """Every rule, by name."""
        return list(self.snapshot().rules)

    def service_by_id(self, service_id: int) -> Service | None:
        """The service of that id; None: deleted, or never there."""
        return self.snapshot().by_service_id.get(service_id)

    def rule_by_id(self, rule_id: int) -> Rule | None:
        """The rule of that id; None: deleted, or never there."""
        return self.snapshot().by_rule_id.get(rule_id)

    def service(self, name: str) -> Service:
        """The service of that name; raises `NotFoundError`."""
        if self._db.joined:  # a snapshot for each of many changes would take quadratic time
            row = self._db.one(_SELECT_SERVICE, [name])
            service = None if row is None else self.to_service(row)
        else:
            service = self.snapshot().services_by_name.get(name)
        if service is None:
            raise NotFoundError(f"no service named {name!r}; `hub service list` shows what there is")
        return service

    def rule(self, name: str) -> Rule:
        """The rule of that name; raises `NotFoundError`."""
        if self._db.joined:
            row = self._db.one(_SELECT_RULE, [name])
            rule = None if row is None else to_rule(row)
        else:
            rule = self.snapshot().rules_by_name.get(name)
        if rule is None:
            raise NotFoundError(f"no rule named {name!r}; `hub rule list` shows what there is")
        return rule

    def current_service(self, name: str, version: int | None) -> Service:
        """The service of that name, not older than `version` if another process wrote that one."""
        if version is not None and self.service(name).version != version:
            self.invalidate()
        return self.service(name)

    def current_rule(self, name: str, version: int | None) -> Rule:
        """The rule of that name, not older than `version` if another process wrote that one."""
        if version is not None and self.rule(name).version != version:
            self.invalidate()
        return self.rule(name)

    # Changes

    def generation(self) -> int | None:
        """A number that increases with every announced change; None: this process does not listen for them."""
        return self._generation if self._listener is not None else None

    def listen(self) -> None:
        """Start the thread that listens for changes. Until then every read queries the database."""
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, name="hub-config", daemon=True)
            self._listener.start()

    def invalidate(self) -> None:
        """Forget the snapshot: the next read loads it again."""
        with self._lock:
            self._generation += 1
            self._snapshot = None

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                conn = self._listening = self._db.connect()
                try:
                    conn.execute(_LISTEN)
                    self.invalidate()  # changes are missed while no connection listens
                    while not self._stop.is_set():
                        for _ in conn.notifies(timeout=1.0, stop_after=1):
                            self.invalidate()
                finally:
                    conn.close()
            except (psycopg.Error, UnavailableError):
                self.invalidate()
                self._stop.wait(_LISTEN_RETRY)

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        if self._listener is not None:
            self._listener.join(timeout=3)


def to_rule(row: Row) -> Rule:
    """The rule of a row that also has `service` and `service_enabled`."""
    return Rule(**{k: row[k] for k in Rule.__dataclass_fields__})
