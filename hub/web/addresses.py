"""Client addresses: the key that limits count by, and the set of trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

_LONGEST = 100  # characters of a text that is not an IP address


@lru_cache(maxsize=4096)
def client_key(address: str) -> str:
    """The key that limits count by: an IPv4 address, or the /64 network of an IPv6 address, which one customer owns."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Networks:
    """A set of addresses and networks, as `HUB_TRUSTED_PROXIES` lists them; `*` is every address."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._all = "*" in listed
        self._networks = [found for text in listed if (found := _network(text)) is not None]
        self._has = lru_cache(maxsize=4096)(self._look)

    def __contains__(self, address: str) -> bool:
        return self._all or self._has(address)

    def _look(self, address: str) -> bool:
        found = _network(address)
        return found is not None and any(
            network.version == found.version and found.network_address in network for network in self._networks
        )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
