"""Services, rules and event sources that people change, together with the configuration that is read of them."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hub.store.configuration import Configuration
from hub.store.database import Database
from hub.store.rules import RuleStore
from hub.store.services import ServiceStore
from hub.store.sources import SourceStore
from hub.store.vault import Vault


class Registry:
    """The configuration of the hub.

    Attributes:
        configuration: reads services and rules.
        services: writes services.
        rules: writes rules.
        sources: reads and writes event sources.
    """

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self.configuration = Configuration(db, vault)
        self.services = ServiceStore(db, vault, self.configuration)
        self.rules = RuleStore(db, self.configuration)
        self.sources = SourceStore(db, vault)

    def together(self) -> AbstractContextManager[None]:
        """Run all changes that this thread makes inside the block in one transaction."""
        return self._db.together()
