"""Passwords of the console's users: argon2id, never logged, always compared at the same price."""

from __future__ import annotations

from functools import lru_cache

import argon2

from hub.errors import ConfigError

LEAST = 10  # characters
_hasher = argon2.PasswordHasher()


def hash_password(password: str) -> str:
    """What is stored; raises `ConfigError` for a password that is too short or too long."""
    if not LEAST <= len(password) <= 1000:
        raise ConfigError(f"must have at least {LEAST} characters", field="password")
    try:
        return _hasher.hash(password)
    except UnicodeEncodeError:
        raise ConfigError("has characters that cannot be typed", field="password") from None


def verify_password(stored: str | None, password: str) -> bool:
    """Whether it is the password. With no stored one it takes as long, so that names cannot be guessed."""
    try:
        _hasher.verify(stored or _nobodys(), password[:1000])
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, UnicodeEncodeError):
        return False
    return stored is not None


@lru_cache(1)
def _nobodys() -> str:
    return _hasher.hash("nobody has this password")
