"""Tokens, users, sessions and links in PostgreSQL: only hashes are kept, and nobody locks everybody out."""

from __future__ import annotations

from collections.abc import Iterator
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
    token, secret = accounts.add_token("ci", "view")
    used = accounts.use_token(secret)
    assert used is not None and used.id == token.id and accounts.token("ci").last_used_at is not None
    assert accounts.use_token(secret + "x") is None and accounts.use_token("") is None
    assert secret.encode() not in bytes(db.all("SELECT hash FROM api_tokens")[0]["hash"])
    with pytest.raises(ConflictError, match="already"):
        accounts.add_token("ci", "view")
    accounts.revoke_token("ci")
    assert accounts.use_token(secret) is None
    assert accounts.add_token("ci", "manage")[0].scope == "manage", "a name is free again once its token is dead"


def test_an_expired_token_opens_nothing(accounts: Accounts) -> None:
    _, secret = accounts.add_token("old", "view", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert accounts.use_token(secret) is None


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 101, "\ud800"])
def test_names_nobody_can_type_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        accounts.add_token(name, "view")
    with pytest.raises(ConfigError, match="name"):
        accounts.add_user(name, "hash", "view")


def test_there_is_always_somebody_who_may_manage(accounts: Accounts) -> None:
    accounts.add_user("ada", "h", "manage")
    accounts.add_user("bob", "h", "view")
    for change in (
        lambda: accounts.set_role("ada", "view"),
        lambda: accounts.enable_user("ada", False),
        lambda: accounts.delete_user("ada"),
    ):
        with pytest.raises(ConflictError, match="last"):
            change()
    accounts.set_role("bob", "manage")
    accounts.delete_user("ada")
    with pytest.raises(NotFoundError):
        accounts.user("ada")


def test_sessions_end_with_the_password_the_user_or_the_time(accounts: Accounts) -> None:
    ada = accounts.add_user("ada", "h", "manage")
    bob = accounts.add_user("bob", "h", "view")
    mine, other, bobs = (accounts.start_session(u.id) for u in (ada, ada, bob))
    assert accounts.session(accounts.start_session(ada.id, seconds=-1)) is None
    session = accounts.session(mine)
    assert session is not None and session.name == "ada" and session.csrf
    accounts.set_password("ada", "h2", keep=mine)
    assert accounts.session(mine) is not None and accounts.session(other) is None
    accounts.enable_user("bob", False)
    assert accounts.session(bobs) is None and accounts.password_hash("bob") is None
    accounts.end_session(mine)
    assert accounts.session(mine) is None


def test_a_changed_role_ends_the_sessions(accounts: Accounts) -> None:
    ada, bob = accounts.add_user("ada", "h", "manage"), accounts.add_user("bob", "h", "manage")
    hers, his = accounts.start_session(ada.id), accounts.start_session(bob.id)
    accounts.set_role("bob", "view")
    assert accounts.session(his) is None and accounts.session(hers) is not None


def test_a_link_is_good_once(accounts: Accounts) -> None:
    secret = accounts.add_link()
    ada = accounts.use_link(secret, "ada", "h")
    assert ada is not None and ada.role == "manage"
    assert not accounts.link_is_good(secret) and accounts.use_link(secret, "bob", "h") is None
    assert not accounts.link_is_good(accounts.add_link(seconds=-1))
    assert [user.name for user in accounts.users()] == ["ada"]


def test_what_fails_does_not_use_a_link_up(accounts: Accounts) -> None:
    accounts.add_user("bob", "h", "view")
    secret = accounts.add_link()
    for name, problem in (("", ConfigError), ("x" * 101, ConfigError), ("bob", ConflictError)):
        with pytest.raises(problem):
            accounts.use_link(secret, name, "h")
    assert accounts.use_link(secret, "ada", "h") is not None


def test_one_link_at_a_time_and_none_beside_an_administrator(accounts: Accounts) -> None:
    first, second = accounts.add_link(), accounts.add_link()
    assert not accounts.link_is_good(first) and accounts.link_is_good(second)
    accounts.add_user("bob", "h", "view")
    assert accounts.link_is_good(second)
    accounts.add_user("ada", "h", "manage")
    assert not accounts.link_is_good(second)
    third = accounts.add_link()
    accounts.set_role("bob", "manage")
    assert not accounts.link_is_good(third)
