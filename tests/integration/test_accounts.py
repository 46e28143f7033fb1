"""Tokens, users, sessions and links in PostgreSQL: only hashes are kept, and nobody locks everybody out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.store.accounts import Accounts
from hub.store.database import Database


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = Database(database_url)
    db.open()
    yield db
    db.close()


@pytest.fixture
def accounts(db: Database) -> Accounts:
    return Accounts(db)


def test_a_token_is_known_by_its_secret_until_it_is_revoked(db: Database, accounts: Accounts) -> None:
    token, secret = accounts.tokens.add("ci", "view")
    used = accounts.tokens.use(secret)
    assert used is not None and used.id == token.id and accounts.tokens.get("ci").last_used_at is not None
    assert accounts.tokens.use(secret + "x") is None and accounts.tokens.use("") is None
    assert secret.encode() not in bytes(db.all("SELECT hash FROM api_tokens")[0]["hash"])
    with pytest.raises(ConflictError, match="already"):
        accounts.tokens.add("ci", "view")
    accounts.tokens.revoke("ci")
    assert accounts.tokens.use(secret) is None
    assert accounts.tokens.add("ci", "manage")[0].scope == "manage", "a name is free again once its token is dead"


def test_an_expired_token_opens_nothing(accounts: Accounts) -> None:
    _, secret = accounts.tokens.add("old", "view", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert accounts.tokens.use(secret) is None


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 101, "\ud800"])
def test_names_nobody_can_type_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        accounts.tokens.add(name, "view")
    with pytest.raises(ConfigError, match="name"):
        accounts.users.add(name, "hash", "view")


def test_there_is_always_somebody_who_may_manage(accounts: Accounts) -> None:
    accounts.users.add("ada", "h", "manage")
    accounts.users.add("bob", "h", "view")
    changes: list[Callable[[], object]] = [
        lambda: accounts.users.set_role("ada", "view"),
        lambda: accounts.users.enable("ada", False),
        lambda: accounts.users.delete("ada"),
    ]
    for change in changes:
        with pytest.raises(ConflictError, match="last"):
            change()
    accounts.users.set_role("bob", "manage")
    accounts.users.delete("ada")
    with pytest.raises(NotFoundError):
        accounts.users.get("ada")


def test_sessions_end_with_the_password_the_user_or_the_time(accounts: Accounts) -> None:
    ada = accounts.users.add("ada", "h", "manage")
    bob = accounts.users.add("bob", "h", "view")
    mine, other, bobs = (accounts.sessions.start(u.id) for u in (ada, ada, bob))
    assert accounts.sessions.get(accounts.sessions.start(ada.id, seconds=-1)) is None
    session = accounts.sessions.get(mine)
    assert session is not None and session.name == "ada" and session.csrf
    accounts.users.set_password("ada", "h2", keep=mine)
    assert accounts.sessions.get(mine) is not None and accounts.sessions.get(other) is None
    accounts.users.enable("bob", False)
    assert accounts.sessions.get(bobs) is None and accounts.users.password_hash("bob") is None
    accounts.sessions.end(mine)
    assert accounts.sessions.get(mine) is None


def test_a_changed_role_ends_the_sessions(accounts: Accounts) -> None:
    ada, bob = accounts.users.add("ada", "h", "manage"), accounts.users.add("bob", "h", "manage")
    hers, his = accounts.sessions.start(ada.id), accounts.sessions.start(bob.id)
    accounts.users.set_role("bob", "view")
    assert accounts.sessions.get(his) is None and accounts.sessions.get(hers) is not None


def test_a_link_is_good_once(accounts: Accounts) -> None:
    secret = accounts.links.add()
    ada = accounts.links.use(secret, "ada", "h")
    assert ada is not None and ada.role == "manage"
    assert not accounts.links.is_valid(secret) and accounts.links.use(secret, "bob", "h") is None
    assert not accounts.links.is_valid(accounts.links.add(seconds=-1))
    assert [user.name for user in accounts.users.list()] == ["ada"]


def test_what_fails_does_not_use_a_link_up(accounts: Accounts) -> None:
    accounts.users.add("bob", "h", "view")
    secret = accounts.links.add()
    for name, problem in (("", ConfigError), ("x" * 101, ConfigError), ("bob", ConflictError)):
        with pytest.raises(problem):
            accounts.links.use(secret, name, "h")
    assert accounts.links.use(secret, "ada", "h") is not None


def test_one_link_at_a_time_and_none_beside_an_administrator(accounts: Accounts) -> None:
    first, second = accounts.links.add(), accounts.links.add()
    assert not accounts.links.is_valid(first) and accounts.links.is_valid(second)
    accounts.users.add("bob", "h", "view")
    assert accounts.links.is_valid(second)
    accounts.users.add("ada", "h", "manage")
    assert not accounts.links.is_valid(second)
    third = accounts.links.add()
    accounts.users.set_role("bob", "manage")
    assert not accounts.links.is_valid(third)
