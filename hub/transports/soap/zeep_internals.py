"""Access to names of zeep that are not public. No other module of the hub uses one.

tests/integration/test_internals.py fails when an upgrade moves them.
"""

from __future__ import annotations

from typing import Any


def call_operation(client: Any, port: Any, operation: str, arguments: dict[str, Any]) -> Any:
    """Call an operation with keyword arguments; returns zeep's result.

    The public `port[operation](**arguments)` does the same, but fails with an argument named `self`, which a WSDL
    may define.

    Args:
        client: a `zeep.Client`.
        port: what `client.bind` returned.
    """
    return port._binding.send(client, port._binding_options, operation, (), arguments)
