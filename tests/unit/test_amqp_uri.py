"""`base_url` of AMQP services, after the RabbitMQ URI specification."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import ConfigError
from hub.transports.amqp.uri import parse

SPEC = [
    # the example table of the specification: URI, user, password, host, port, vhost (None: absent)
    ("amqp://user:pass@host:10000/vhost", "user", "pass", "host", 10000, "vhost"),
    ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "usera", "apass", "hoast", 10000, "v/host"),
    ("amqp://", None, None, None, None, None),
    ("amqp://:@/", "", "", None, None, ""),
    ("amqp://user@", "user", None, None, None, None),
    ("amqp://user:pass@", "user", "pass", None, None, None),
    ("amqp://host", None, None, "host", None, None),
    ("amqp://:10000", None, None, None, 10000, None),
    ("amqp:///vhost", None, None, None, None, "vhost"),
    ("amqp://host/", None, None, "host", None, ""),
    ("amqp://host/%2f", None, None, "host", None, "/"),
    ("amqp://[::1]", None, None, "::1", None, None),
]


@pytest.mark.parametrize(("url", "user", "password", "host", "port", "vhost"), SPEC, ids=[row[0] for row in SPEC])
def test_every_example_of_the_specification_is_read_as_it_says(
    url: str, user: str | None, password: str | None, host: str | None, port: int | None, vhost: str | None
) -> None:
    """People copy URIs between clients: each must mean the same here."""
    uri = parse(url)
    assert (uri.user, uri.password, uri.host, uri.port, uri.vhost) == (user, password, host, port, vhost)


def test_defaults_fill_what_is_absent() -> None:
    uri = parse("amqp://")
    assert uri.at == ("localhost", 5672)
    assert uri.virtual_host == "/"
    assert uri.credentials(None) == ("guest", "guest")
    assert parse("amqps://broker").at == ("broker", 5671)
    assert parse("amqp://host/").virtual_host == "/"


def test_the_stored_password_wins() -> None:
    """`hub service edit` changes the stored one; an old one left in a URI must not shadow it."""
    assert parse("amqp://u@h").credentials("s3cret") == ("u", "s3cret")
    assert parse("amqp://u:old@h").credentials("new") == ("u", "new")
    assert parse("amqp://u@h").credentials(None) == ("u", "")


def test_parameters() -> None:
    uri = parse(
        "amqp://h/v?exchange=ex&routing_key=a.b%20c&queue_declare=q&dlq=q.dead&heartbeat=0&connection_timeout=1.5"
    )
    assert (uri.exchange, uri.routing_key, uri.queue_declare, uri.dlq) == ("ex", "a.b c", "q", "q.dead")
    assert (uri.heartbeat, uri.connection_timeout) == (0, 1.5)
    assert parse("amqp://h/v?").exchange == ""


def test_routing_keys_take_precedence_endpoint_then_routing_key_then_queue() -> None:
    both, queue = parse("amqp://h?routing_key=k&queue_declare=q"), parse("amqp://h?queue_declare=q")
    assert (both.key_for("e"), both.key_for(""), queue.key_for("")) == ("e", "k", "q")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "amqp://"),
        ("amqp:h", "amqp://"),
        ("", "amqp://"),
        ("amqp://h?que=x", "unknown parameter 'que'"),
        ("amqp://h?dlq=x", "queue_declare"),
        ("amqp://h?queue_declare=x&dlq=x", "one queue"),
        ("amqp://h?routing_key=a&routing_key=b", "twice"),
        ("amqp://h?heartbeat=-1", "heartbeat"),
        ("amqp://h?heartbeat=99999999", "heartbeat"),
        ("amqp://h?connection_timeout=soon", "connection_timeout"),
        ("amqp://h?connection_timeout=0", "connection_timeout"),
        ("amqp://h/a/b", "%2F"),
        ("amqp://h/a#b", "%23"),
        ("amqp://h:0", "port 0"),
        ("amqp://h:port", "host and port"),
        ("amqp://h:70000", "host and port"),
        ("amqp://[::g]", "host and port"),
        ("amqp://[::1", "host and port"),
        ("amqp://u:50%@h", "%25"),
        ("amqp://h/%ff", "UTF-8"),
        ("amqp://h /", "blank"),
        (f"amqp://h?queue_declare={'q' * 256}", "255 bytes"),
    ],
)
def test_what_is_no_such_uri_is_refused_with_its_reason(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        parse(url)
    assert says in str(caught.value)


@pytest.mark.parametrize("tail", [":port", "/a/b", "?x=1", "#", "/%ff"])
def test_no_error_shows_the_password(tail: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"amqp://u:hunter22@h{tail}")
    assert "hunter22" not in str(caught.value)
    assert "hunter22" not in repr(parse("amqp://u:hunter22@h"))


@given(st.text(min_size=1), st.text(), st.text(min_size=1))
def test_anything_survives_percent_encoding(user: str, password: str, vhost: str) -> None:
    try:
        url = f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(vhost, safe='')}"
    except UnicodeEncodeError:
        return
    uri = parse(url)
    assert (uri.user, uri.password, uri.vhost) == (user, password, vhost)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever a person types, the answer is a URI or an error that says why."""
    try:
        parse(f"amqp://{text}")
    except ConfigError:
        pass
