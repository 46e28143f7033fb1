"""Where requests go: no endpoint leads out of the service's base URL."""

from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidPayloadError
from hub.transports.http.urls import parse_base, target


@pytest.mark.parametrize(
    ("base", "endpoint", "expected"),
    [
        ("https://crm/api/v1", "/contacts", "/api/v1/contacts"),
        ("https://crm/api/v1/", "contacts", "/api/v1/contacts"),
        ("https://crm/api/v1/", "//evil.example/x", "/api/v1/evil.example/x"),
        ("https://crm", "", "/"),
        ("https://crm/hook/", "", "/hook/"),
        ("https://crm/hook", "/", "/hook/"),
        ("https://crm/hook?key=1", "?x=2", "/hook?key=1&x=2"),
        ("https://crm/a?k=1", "b?x=a/../b", "/a/b?k=1&x=a/../b"),
        ("https://crm/a", "b#part", "/a/b"),
        ("https://crm/a", "b c/é/100%/%41", "/a/b%20c/%C3%A9/100%25/%41"),
        ("https://crm/a", "x\r\nHost: evil", "/a/x%0D%0AHost:%20evil"),
        ("https://crm/a", "v1.2/file.tar..gz", "/a/v1.2/file.tar..gz"),
        ("https://crm/a", "https://CRM:443/a/b?x=1", "/a/b?x=1"),
        ("https://crm/a", "https://crm/a", "/a"),
        ("https://crm/a", "next/https://else", "/a/next/https://else"),
    ],
)
def test_the_endpoint_is_relative_to_the_base(base: str, endpoint: str, expected: str) -> None:
    assert target(parse_base(base), endpoint) == expected


@pytest.mark.parametrize(
    "endpoint",
    [
        "..",
        ".",
        "../admin",
        "a/../../b",
        "a/%2e%2E/b",
        "a/..%2fadmin",
        "%2e%2e%2fadmin",
        "a\\..\\b",
        "a/..%5cb",
        "..;/admin",
        "a/./b",
        "http://crm/api/x",
        "https://crm:8443/api/x",
        "https://evil.example/api",
        "https://crm@evil.example/",
        "https://joe@crm/api/x",
        "https://crm/other",
        "https://crm/apis",
        "https://crm/api/../x",
        "HTTPS://evil",
        "ftp://crm/api",
        "https://[::1/api",
    ],
)
def test_what_leads_elsewhere_is_refused(endpoint: str) -> None:
    """Values from events come into endpoints: `/users/{{name}}` with the name `..` must not delete all users."""
    with pytest.raises(InvalidPayloadError):
        target(parse_base("https://crm/api"), endpoint)


@given(st.text())
def test_no_value_in_an_endpoint_leaves_its_place(value: str) -> None:
    """Templates percent-encode values; whatever remains is refused or stays one segment under the base path."""
    try:
        line = target(parse_base("https://crm/api"), f"/users/{quote(value, safe='', errors='replace')}/mail")
    except InvalidPayloadError:
        assert any(part in (".", "..") for part in value.replace("\\", "/").replace(";", "/").split("/"))
        return
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    prefix, users, segment, mail = line.rsplit("/", 3)
    assert (prefix, users, mail) == ("/api", "users", "mail")
    assert unquote(segment) == value.encode("utf-8", "replace").decode()


@given(st.text())
def test_any_endpoint_is_one_line_under_the_base(endpoint: str) -> None:
    try:
        line = target(parse_base("https://crm/api"), endpoint)
    except InvalidPayloadError:
        return
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    path = urlsplit("https://crm" + line).path
    assert path == "/api" or path.startswith("/api/")


@pytest.mark.parametrize("url", ["", "crm", "ftp://crm", "https://", "https:///x", "https://crm:99999", "https://[x"])
def test_a_bad_base_is_refused(url: str) -> None:
    with pytest.raises(InvalidPayloadError, match="base_url"):
        parse_base(url)


def test_a_base_is_taken_apart() -> None:
    base = parse_base("HTTPS://jo%40e@Bücher.example:8443/a b?k=ü")
    assert base.origin == ("https", "xn--bcher-kva.example", 8443)
    assert (base.authority, base.user, base.path) == ("xn--bcher-kva.example:8443", "jo@e", "/a%20b")
    assert parse_base("http://[2001:DB8::1]/").authority == "[2001:db8::1]"
