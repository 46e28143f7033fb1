"""The egress guard judges addresses, in every spelling they have."""

import socket
import threading
from ipaddress import ip_address

import pytest

from hub.errors import (
    ConfigError,
    ConnectError,
    EgressRefusedError,
    TimedOutError,
)
from hub.settings import Settings
from hub.transports import egress

OPEN = Settings()
CLOSED = Settings(egress_private="deny")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.16689662",
        "169.254.43518",
        "[fd00:ec2::254]",
        "fd20:ce::254",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "2001:0:1:1:0:0:5601:5601",
        "2001:db8::5efe:a9fe:a9fe",
        "fe80::5efe:1.1.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
    ],
)
def test_metadata_and_link_local_are_never_allowed(host: str) -> None:
    """Not even when somebody allows the network: what is behind them opens the whole machine."""
    allowed = Settings(egress_private="deny", egress_allow="0.0.0.0/0,::/0")
    for settings in (OPEN, CLOSED, allowed):
        with pytest.raises(EgressRefusedError, match="never allowed"):
            egress.resolve(host, 80, settings)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "::1",
        "[::1]",
        "::",
        "fc00::1",
        "fd12::1",
        "fec0::1",
        "feff::1",
        "::ffff:10.0.0.1",
        "::ffff:7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:c0a8:0101::",
    ],
)
def test_private_addresses_are_a_setting(host: str) -> None:
    assert egress.resolve(host, 80, OPEN)
    with pytest.raises(EgressRefusedError, match="private address"):
        egress.resolve(host, 80, CLOSED)


def test_an_allowed_network_is_an_exception_for_itself_only() -> None:
    some = Settings(egress_private="deny", egress_allow="10.1.0.0/16, fd12::/16")
    assert egress.resolve("10.1.2.3", 80, some) == ["10.1.2.3"]
    assert egress.resolve("fd12::9", 80, some) == ["fd12::9"]
    assert egress.refused(ip_address("10.2.0.1"), some)


@pytest.mark.parametrize("host", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_public_addresses_are_always_allowed(host: str) -> None:
    assert egress.refused(ip_address(host), OPEN) is None
    if host != "::ffff:1.1.1.1":  # not global in itself
        assert egress.refused(ip_address(host), CLOSED) is None


def test_a_name_is_judged_by_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses only those that are allowed are used, and they are used as they were judged."""

    def answers(*addresses: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    answers("169.254.169.254", "1.1.1.1", "1.1.1.1", "10.0.0.1")
    assert egress.resolve("mixed.example", 80, OPEN) == ["1.1.1.1", "10.0.0.1"]
    assert egress.resolve("mixed.example", 80, CLOSED) == ["1.1.1.1"]
    answers("169.254.169.254")
    with pytest.raises(EgressRefusedError, match=r"rebound\.example: 169\.254"):
        egress.resolve("rebound.example", 80, OPEN)


def test_slow_dns_holds_nobody_beyond_the_deadline_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver takes up to half a minute; hundreds of workers must not each start a thread."""
    released, asked = threading.Event(), []

    def slow(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        released.wait(120)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    for _ in range(5):
        with pytest.raises(TimedOutError, match="DNS"):
            egress.resolve("slow.example", 80, OPEN, timeout=0.02)
    released.set()
    assert egress.resolve("slow.example", 80, OPEN, timeout=120) == ["1.1.1.1"]
    assert asked.count("slow.example") <= 2


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 300, "ex ample"])
def test_what_has_no_address_is_a_connect_error(host: str) -> None:
    with pytest.raises(ConnectError, match="no address"):
        egress.resolve(host, 80, OPEN, timeout=120)


def test_a_bad_network_is_named() -> None:
    with pytest.raises(ConfigError, match=r"HUB_EGRESS_ALLOW.*10\.0\.0"):
        egress.networks(("10.0.0/33",))
