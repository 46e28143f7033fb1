"""Small parts of the web that need no server: rate limits, passwords."""

from __future__ import annotations

import pytest

from hub.errors import ConfigError
from hub.web.limits import Busy, Limiter, Places
from hub.web.passwords import hash_password, verify_password


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_limiter_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    limiter = Limiter(2.0, 3.0, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limiter.take("b") == 0, "keys do not share"
    clock.now = 0.5
    assert limiter.wait("a") == 0 and limiter.take("a") == 0 and limiter.take("a") == 0.5
    clock.now = 100
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than the burst is saved up"
    limiter.forget("a")
    assert limiter.take("a") == 0


def test_a_limiter_forgets_the_oldest_keys_and_so_stays_small() -> None:
    limiter = Limiter(0.001, 1.0, clock=Clock())
    limiter.take(-1)
    for n in range(20_000):
        limiter.take(n)
    assert limiter.take(-1) == 0


def test_places_are_so_many_and_come_free_also_after_a_failure() -> None:
    places = Places(2)
    with places.one():
        with pytest.raises(ZeroDivisionError), places.one():
            _ = 1 / 0
        with places.one(), pytest.raises(Busy), places.one():
            pass
    with places.one(), places.one():
        pass


def test_passwords_are_hashed_with_salt_and_checked() -> None:
    one, two = hash_password("a long password"), hash_password("a long password")
    assert one != two and one.startswith("$argon2id$")
    assert verify_password(one, "a long password") and not verify_password(one, "another password")
    assert not verify_password(None, "nobody has this password"), "no user: never right, whatever is typed"
    assert not verify_password("not a hash", "x")


@pytest.mark.parametrize("password", ["short", "x" * 1001, "half a pair \ud800"])
def test_passwords_that_are_no_good_are_refused(password: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        hash_password(password)
