"""The keys that encrypt stored secrets."""

from __future__ import annotations

from hub.settings import Settings


def vault_keys(settings: Settings) -> list[str]:
    """Fernet keys, newest first: those of `HUB_SECRET_KEYS`, else the key file under `HUB_HOME`, made if missing."""
    if settings.secret_keys:
        return [key.strip() for key in settings.secret_keys.get_secret_value().split(",") if key.strip()]
    from hub.embedded import load_or_create_key

    return [load_or_create_key(settings.home)]
