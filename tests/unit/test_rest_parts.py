"""The pure parts of the REST transport."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidPayloadError
from hub.transports.http.message import head
from hub.transports.http.text import decode, retry_after
from hub.transports.signing import signer

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 50, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Tuesday, 24-Nov-26 12:01:00 GMT", 60.0),
        ("Tue Nov 24 12:01:00 2026", 60.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_breaks_a_delivery(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.binary(), st.text())
def test_any_answer_becomes_text_that_can_be_stored(body: bytes, content_type: str) -> None:
    text = decode(body, content_type)
    assert "\x00" not in text
    text.encode()


@pytest.mark.parametrize("charset", ["utf-16", "UTF-7", "rot13", "zip", "idna", "unicode_escape", "latin1", "x" * 99])
def test_no_named_charset_breaks_it(charset: str) -> None:
    decode(b"+2AA-\xff\x00abc", f"text/plain; charset={charset}").encode()


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_headers_are_as_many_as_were_given(headers: dict[str, str]) -> None:
    """Whatever is given, no header smuggles in another, and none takes part in framing."""
    try:
        raw = head("POST", "/x", "crm", headers, b"{}")
    except InvalidPayloadError:
        return
    lines = raw.split(b"\r\n")
    assert len(lines) == len(headers) + 5
    assert raw.count(b"\n") == raw.count(b"\r") == len(lines) - 1
    assert lines[:2] == [b"POST /x HTTP/1.1", b"Host: crm"]
    assert lines[-3:] == [b"Content-Length: 2", b"", b""]


def test_signatures_are_made_only_with_a_secret() -> None:
    assert signer({"signing_secret_old": "whsec_AAAA", "token": "x"}) is None
    made = signer({"signing_secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
    assert made is not None
    assert made.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', datetime.fromtimestamp(1614265330, UTC)
    ) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
