"""Embedded mode: a private PostgreSQL under `HUB_HOME`, used by `hub up` and `make demo`."""

from hub.embedded.home import load_or_create_key
from hub.embedded.programs import binaries
from hub.embedded.server import PrivatePostgres

__all__ = ["PrivatePostgres", "binaries", "load_or_create_key"]
