"""Who may do what: API tokens, users, their sessions, and login links."""

from __future__ import annotations

from hub.hooks import Hooks
from hub.store.database import Database
from hub.store.login_links import LoginLinks
from hub.store.security_log import SecurityLog
from hub.store.sessions import Sessions
from hub.store.tokens import Tokens
from hub.store.users import Users


class Accounts:
    """The stores of tokens, users, sessions and login links, with one security log."""

    def __init__(self, db: Database, hooks: Hooks | None = None) -> None:
        self.trace = SecurityLog(hooks or Hooks())
        self.tokens = Tokens(db, self.trace)
        self.users = Users(db, self.trace)
        self.sessions = Sessions(db, self.trace)
        self.links = LoginLinks(db, self.trace)
