"""Embedded mode's own servers: a hub on a machine that has none. What `hub up` and `make demo` stand on."""

from hub.embedded.programs import binaries
from hub.embedded.server import PrivatePostgres
from hub.home import load_or_create_key

__all__ = ["PrivatePostgres", "binaries", "load_or_create_key"]
