"""Services and rules in memory, in every process and the same in all of them: what an event is matched against.

A change is announced by a trigger (`NOTIFY hub_config`) when it commits; a listener thread drops the
snapshot. A process without a listener (a CLI command) reads it once.
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

log = structlog.get_logger("hub.configuration")

_AS_THEY_ARE = (
    "id", "name", "base_url", "enabled", "auth_type", "timeout", "max_retries", "retry_backoff", "cb_failure_threshold",
    "cb_cooldown", "response_queue", "options", "version", "created_at", "updated_at",
)  # fmt: skip
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
_LISTEN_RETRY = 1.0


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
    """Reads services and rules, and hears when they change."""

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
        """The current configuration; a query only after a change."""
        snapshot = self._snapshot
        if snapshot is not None:
            return snapshot
        with self._lock:
            if self._snapshot is None:
                generation = self._generation
                loaded = self._load()
                if generation == self._generation and self._listener is not None:
                    self._snapshot = loaded  # without a listener nobody would tell us of a change
                return loaded
            return self._snapshot

    def _load(self) -> Snapshot:
        with self._db.transaction() as conn, conn.cursor(row_factory=dict_row) as cur:
            if not self._db.joined:  # a transaction under way has its level already
                cur.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            services = tuple(self._to_service(row) for row in cur.execute(_SELECT_SERVICES).fetchall())
            rules = tuple(to_rule(row) for row in cur.execute(_SELECT_RULES).fetchall())
        unreadable = frozenset(s.name for s in services if s.secrets_unreadable)
        if unreadable - self._unreadable:
            log.warning("no key in HUB_SECRET_KEYS opens the secrets of some services", services=sorted(unreadable))
        self._unreadable = unreadable
        return Snapshot(
            services, rules, {s.id: s for s in services}, {r.id: r for r in rules}, {s.name: s for s in services},
            {r.name: r for r in rules},
        )  # fmt: skip

    def _to_service(self, row: Row) -> Service:
        """A service; one whose secrets no key opens is marked, and does not take the others with it."""
        fields = {column: row[column] for column in _AS_THEY_ARE}
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
        return self.snapshot().by_service_id.get(service_id)

    def rule_by_id(self, rule_id: int) -> Rule | None:
        return self.snapshot().by_rule_id.get(rule_id)

    def service(self, name: str) -> Service:
        """The service of that name; raises `NotFoundError`."""
        if self._db.joined:  # many changes in one transaction: a snapshot for each would take quadratic time
            row = self._db.one(_SELECT_SERVICE, [name])
            service = None if row is None else self._to_service(row)
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

    # Hearing of changes

    def listen(self) -> None:
        """Start the thread that hears of changes; until then every read asks the database."""
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
                    conn.execute("LISTEN hub_config")
                    self.invalidate()  # whatever changed while nobody listened
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
    """A rule of a row that names its service, too."""
    return Rule(**{k: row[k] for k in Rule.__dataclass_fields__})
