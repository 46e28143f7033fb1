"""Small parts of the web that need no server: rate limits, passwords."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc

import pytest

from hub.errors import ConfigError
from hub.web.failed_logins import FailedLogins
from hub.web.passwords import HashPool, hash_password, verify_password
from hub.web.rate_limits import Busy, ConcurrencyLimiter, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_limiter_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, 3.0, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limiter.take("b") == 0, "keys do not share"
    clock.now = 0.5
    assert limiter.wait("a") == 0 and limiter.take("a") == 0 and limiter.take("a") == 0.5
    clock.now = 100
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than the burst is saved up"
    limiter.forget("a")
    assert limiter.take("a") == 0


def test_a_limiter_forgets_what_was_used_least_lately_and_so_stays_small() -> None:
    limiter = RateLimiter(0.001, 2.0, clock=Clock())
    limiter.take(-1)
    for n in range(20_000):
        limiter.take(n)
    assert [limiter.take(-1) for _ in range(3)] == [0, 0, 1000], "its bucket was full again"


def test_a_limiter_never_forgets_what_is_blocked() -> None:
    """Neither junk keys free a blocked one, nor do blocked ones make room for more than there may be."""
    clock = Clock()
    limiter = RateLimiter(0.001, 2.0, clock=clock)
    assert [limiter.take("blocked") for _ in range(3)] == [0, 0, 1000]
    for n in range(10_100):
        assert limiter.take(f"junk {n}") == 0
    assert limiter.take("blocked") == 1000
    for n in range(12_000):
        limiter.take(n)
        limiter.take(n)
    assert limiter.take("blocked") == 1000 and limiter.take(0) == 1000
    assert limiter.take("new") > 0, "all buckets are blocked: new keys share one"
    clock.now = 5000
    assert limiter.take("new") == 0


def test_a_limiter_keeps_nothing_of_the_length_of_a_key() -> None:
    limiter = RateLimiter(0.001, 2.0, clock=Clock())
    tracemalloc.start()
    try:
        for n in range(20):
            limiter.take(("x" * 1_000_000 + str(n), "192.0.2.1"))
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_one_stranger_cannot_lock_a_user_out_elsewhere() -> None:
    """A wrong password a second from one address, for an hour."""
    clock = Clock()
    guesses = FailedLogins(clock=clock)
    let_in = 0
    for _ in range(3600):
        clock.now += 1
        let_in += not (guesses.address("192.0.2.1") or guesses.name("Maria", "192.0.2.1"))
    assert 100 < let_in < 150
    assert guesses.address("192.0.2.2") == 0 and guesses.name("maria", "192.0.2.2") == 0


def test_many_strangers_are_slowed_down_but_not_the_user_where_it_logged_in() -> None:
    clock = Clock()
    guesses = FailedLogins(clock=clock)
    assert guesses.name("maria", "2001:db8:1::1") == 0
    guesses.right("maria", "2001:db8:1::1")
    let_in = sum(guesses.name("maria", f"10.1.{n // 250}.{n % 250}") == 0 for n in range(1000))
    assert let_in == 50
    assert guesses.name("maria", "192.0.2.9") > 0
    assert guesses.name("maria", "2001:db8:1::2") == 0, "the same /64"


def test_a_long_name_is_refused_before_anything_of_it_is_kept() -> None:
    guesses = FailedLogins(clock=Clock())
    with pytest.raises(ValueError, match="too long"):
        guesses.name("x" * 101, "192.0.2.1")


def test_the_hash_pool_refuses_what_would_wait_too_long() -> None:
    """Two at a time; of the rest so many wait, and no longer than they may."""
    done, most, running = threading.Event(), 0, 0
    lock = threading.Lock()

    def work() -> bool:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        done.wait(120)
        with lock:
            running -= 1
        return True

    async def attack() -> list[object]:
        pool = HashPool(2, waiting=3, wait=0.5)
        calls = [asyncio.ensure_future(pool.run(work)) for _ in range(10)]
        await asyncio.sleep(0)
        refused = await asyncio.gather(*calls[5:], return_exceptions=True)
        waited = await asyncio.gather(*calls[2:5], return_exceptions=True)
        done.set()
        results: list[object] = [*await asyncio.gather(*calls[:2]), *waited, *refused, await pool.run(lambda: 1)]
        pool.close()
        return results

    results = asyncio.run(attack())
    assert results[:2] == [True, True] and most == 2
    assert all(isinstance(r, Busy) for r in results[2:10]) and results[10] == 1


def test_places_are_so_many_and_come_free_also_after_a_failure() -> None:
    places = ConcurrencyLimiter(2)
    with places.acquire():
        with pytest.raises(ZeroDivisionError), places.acquire():
            _ = 1 / 0
        with places.acquire(), pytest.raises(Busy), places.acquire():
            pass
    with places.acquire(), places.acquire():
        pass


def test_passwords_are_hashed_with_salt_and_checked() -> None:
    one, two = hash_password("a long password"), hash_password("a long password")
    assert one != two and one.startswith("$argon2id$")
    assert verify_password(one, "a long password") and not verify_password(one, "another password")
    assert not verify_password(None, "nobody has this password"), "no user: never right, whatever is typed"
    assert not verify_password("not a hash", "x")


@pytest.mark.parametrize(
    "password",
    ["short", "x" * 1001, "half a pair \ud800 of what", "aaaaaaaaaa", "1234567890", "mariamaria", "integration"],
)
def test_passwords_that_are_no_good_are_refused(password: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        hash_password(password, about=["maria"])
