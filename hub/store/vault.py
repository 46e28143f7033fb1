"""Secrets at rest: Fernet with key rotation. The first key encrypts, every key decrypts."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from hub.codec import dumps, loads
from hub.errors import ConfigError

_UNREADABLE = "none of the keys decrypts the stored secrets; add the key they were encrypted with"


class Vault:
    """Encrypts a service's secrets as one JSON object.

    Args:
        keys: Fernet keys (url-safe base64 of 32 bytes), newest first.
    """

    def __init__(self, keys: list[str]) -> None:
        if not keys:
            raise ConfigError("no key; make one with `hub keygen`", field="HUB_SECRET_KEYS")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise ConfigError("not a Fernet key; make one with `hub keygen`", field="HUB_SECRET_KEYS") from None

    @staticmethod
    def new_key() -> str:
        """A fresh key."""
        return Fernet.generate_key().decode()

    def seal(self, secrets: dict[str, str]) -> bytes | None:
        """Encrypted secrets, None when there are none."""
        return self._fernet.encrypt(dumps(secrets).encode()) if secrets else None

    def open(self, sealed: bytes | None) -> dict[str, str]:
        """Decrypted secrets.

        Raises:
            ConfigError: none of the keys fits.
        """
        if not sealed:
            return {}
        try:
            secrets: dict[str, str] = loads(self._fernet.decrypt(bytes(sealed)))
        except InvalidToken:
            raise ConfigError(_UNREADABLE, field="HUB_SECRET_KEYS") from None
        return secrets

    def rotate(self, sealed: bytes) -> bytes:
        """The same secrets under the newest key; raises as `open` does."""
        try:
            return self._fernet.rotate(bytes(sealed))
        except InvalidToken:
            raise ConfigError(_UNREADABLE, field="HUB_SECRET_KEYS") from None
