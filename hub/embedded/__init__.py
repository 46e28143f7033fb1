"""Embedded mode's own servers: a hub on a machine that has none. What `hub up` and `make demo` stand on."""

from hub.embedded.home import load_or_create_key
from hub.embedded.programs import binaries
from hub.embedded.server import PrivatePostgres

__all__ = ["PrivatePostgres", "binaries", "load_or_create_key"]
