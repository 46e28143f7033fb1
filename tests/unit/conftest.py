"""Unit tests need no servers; a busy machine must not fail a property for being slow."""

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
