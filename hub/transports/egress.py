"""Egress guard: checks the address of a service when a connection to it is opened.

A name is resolved once per connection, each address is checked, and the connection is made to a checked address, not
to the name. So a later DNS response cannot change it. Cloud metadata and link-local addresses are always refused;
private ones depend on `HUB_EGRESS_PRIVATE`, with `HUB_EGRESS_ALLOW` as the exceptions.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hub.errors import (
    ConfigError,
    ConnectError,
    EgressRefusedError,
    NotSentError,
    TimedOutError,
)
from hub.settings import Settings
from hub.transports.base import Deadline

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NEVER = tuple(
    ip_network(n)
    for n in (
        "169.254.0.0/16",  # link-local: metadata of AWS, GCP, Azure, OCI, DigitalOcean, Tencent
        "100.100.100.200/32",  # Alibaba Cloud metadata
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # OCI metadata, the older address
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",
        "fe80::/10",
        "fd00:ec2::/32",  # AWS metadata, DNS and time over IPv6
        "fd00:42::42/128",  # Scaleway metadata over IPv6
        "fd00:a9fe:a9fe::1/128",  # Akamai (Linode) metadata over IPv6
        "fd00:100::100:200/128",  # Alibaba Cloud metadata over IPv6
        "fd20:ce::254/128",  # GCP metadata over IPv6
        "fd00:c1::a9fe:a9fe/128",  # OCI metadata over IPv6
        "ff00::/8",
    )
)
_EMBEDS_LAST = tuple(IPv6Network(n) for n in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_SITE_LOCAL = IPv6Network("fec0::/10")  # deprecated, routed inside a site; Python 3.11 regards it as global
_ISATAP = re.compile(r":(?:0|200):5efe:")
_NUMBERS = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
LOCAL_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}


def resolve(host: str, port: int, settings: Settings, timeout: float | None = None) -> list[str]:
    """Resolve `host` to the addresses that the hub may connect to, as literals, in the resolver's order.

    Args:
        timeout: seconds to wait for DNS; None: no limit.

    Raises:
        EgressRefusedError: all its addresses are refused.
        ConnectError: the name is unknown.
        TimedOutError: DNS does not respond in time.
    """
    found = literal(host)
    addresses = [found] if found is not None else _lookup(host, port, timeout)
    allowed, why = [], ""
    for address in addresses:
        refusal = refused(address, settings)
        if refusal:
            why = why or refusal
        elif str(address) not in allowed:
            allowed.append(str(address))
    if not allowed:
        raise EgressRefusedError(f"the hub may not connect to {host}: {why}")
    return allowed


def refused(address: Address, settings: Settings) -> str | None:
    """The reason why the hub may not connect to `address`; None when it may."""
    forms = [address, *_embedded(address)]
    for form in forms:
        if any(form in network for network in NEVER):
            return f"{address} is a link-local, cloud metadata or multicast address, which is never allowed"
    if settings.egress_private == "allow":
        return None
    allow = networks(settings.egress_allow)
    for form in forms:
        private = not form.is_global or form in _SITE_LOCAL
        if private and not any(form in network for network in allow):
            return f"{address} is a private address, and HUB_EGRESS_PRIVATE=deny (HUB_EGRESS_ALLOW makes exceptions)"
    return None


@lru_cache(64)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse CIDR texts; raises `ConfigError` for one that is invalid."""
    try:
        return tuple(ip_network(text, strict=False) for text in texts)
    except ValueError as e:
        raise ConfigError(str(e), field="HUB_EGRESS_ALLOW") from None


def connect(host: str, port: int, settings: Settings, deadline: Deadline) -> socket.socket:
    """Open a TCP connection to a checked address of `host`; its timeout is the rest of the deadline.

    Raises:
        EgressRefusedError, ConnectError, TimedOutError: as `resolve`, or the connection is refused.
        NotSentError: this machine is out of sockets, ports or memory.
    """
    return open_first(resolve(host, port, settings, deadline.remaining), host, port, deadline)


def open_first(addresses: list[str], host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first of `addresses` that accepts; `host` is the name in error texts."""
    last: OSError | None = None
    for number, address in enumerate(addresses):
        share = deadline.remaining / (len(addresses) - number)  # one silent address must not use all the time
        if share <= 0:
            break
        sock = None
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((address, port))
            sock.settimeout(max(deadline.remaining, 0.001))
            return sock
        except OSError as e:
            if sock is not None:
                sock.close()
            if e.errno in LOCAL_ERRORS:
                raise NotSentError(f"this machine can open no more connections: {e.strerror}") from None
            last = e
    if last is None or isinstance(last, TimeoutError):
        raise TimedOutError(f"no connection to {host}:{port} in time")
    raise ConnectError(f"no connection to {host}:{port}: {(last.strerror or type(last).__name__).lower()}")


def literal(host: str) -> Address | None:
    """Parse an address literal in each form that a resolver accepts: decimal, octal, hex, shortened, bracketed."""
    host = host.strip("[]")
    try:
        return _plain(ip_address(host))
    except ValueError:
        pass
    if _NUMBERS.fullmatch(host):
        try:
            return IPv4Address(socket.inet_aton(host))
        except OSError:
            pass
    return None


def _plain(address: Address) -> Address:
    """The address without its zone (`%eth0`), which network comparison does not support."""
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) and address.scope_id else address


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses inside an IPv6 address: mapped, compatible, translated, tunnelled."""
    if isinstance(address, IPv4Address):
        return []
    number, found = int(address), []
    if any(address in network for network in _EMBEDS_LAST) and number > 1:
        found.append(IPv4Address(number & 0xFFFFFFFF))
    if address in _NAT64_LOCAL:  # RFC 6052: each network chooses its prefix length
        found += [IPv4Address(number & 0xFFFFFFFF), _split_octets(number, 48), _split_octets(number, 56)]
        found.append(_split_octets(number, 64))
    if address.sixtofour:
        found.append(address.sixtofour)
    if address.teredo:
        found += address.teredo
    if _ISATAP.search(":".join(part.lstrip("0") or "0" for part in address.exploded.split(":"))):
        found.append(IPv4Address(number & 0xFFFFFFFF))
    return list(found)


def _split_octets(number: int, prefix: int) -> IPv4Address:
    """The four octets after the prefix, without octet 8 (RFC 6052 section 2.2)."""
    octets = number.to_bytes(16, "big")
    rest = [octet for at, octet in enumerate(octets) if at != 8 and at >= prefix // 8]
    return IPv4Address(bytes(rest[:4]))


class _Lookup:
    """A DNS lookup in progress, which several threads may wait for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: list[Address] = []
        self.failed = "no address"
        self.local_error: str | None = None  # the reason why this machine could not send the query


_running: dict[str, _Lookup] = {}
_running_lock = threading.Lock()


def _lookup(host: str, port: int, timeout: float | None) -> list[Address]:
    """Resolve a name in a separate thread: the resolver takes no deadline and cannot be interrupted."""
    with _running_lock:
        lookup = _running.get(host)
        if lookup is None:
            lookup = _running[host] = _Lookup()
            try:
                threading.Thread(target=_ask, args=(host, port, lookup), name="hub-dns", daemon=True).start()
            except RuntimeError as e:
                del _running[host]
                raise NotSentError(f"this machine can start no more threads: {e}") from None
    if not lookup.done.wait(timeout):
        raise TimedOutError(f"DNS did not resolve {host} in time")
    if lookup.local_error:
        raise NotSentError(f"this machine can open no more connections: {lookup.local_error}")
    if not lookup.found:
        raise ConnectError(f"no address for {host}: {lookup.failed}")
    return lookup.found


def _ask(host: str, port: int, lookup: _Lookup) -> None:
    try:
        for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            lookup.found.append(_plain(ip_address(sockaddr[0])))
    except socket.gaierror as e:
        lookup.failed = (e.strerror or "no address").lower()
    except (OSError, UnicodeError, ValueError):
        lookup.failed = "not a host name"
    finally:
        if not lookup.found:
            lookup.local_error = _local_error()
        with _running_lock:
            _running.pop(host, None)
        lookup.done.set()


def _local_error() -> str | None:
    """The reason why this process cannot open a file. The resolver reports a lack of descriptors as an unknown host."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as e:
        return e.strerror if e.errno in LOCAL_ERRORS else None
    return None
