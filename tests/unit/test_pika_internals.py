"""Names of pika that are not public: an upgrade that moves them must fail here, not in production."""

from __future__ import annotations

import hashlib

import pika
import pytest
from pika import frame, spec

from hub.transports.amqp import pika_internals


def test_this_pika_has_every_private_name_that_is_used() -> None:
    assert pika_internals.check_names() == []


def test_a_name_that_moved_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pika.connection.Connection._terminate_stream")
    assert pika_internals.check_names() == ["Connection._terminate_stream"]


def deliver() -> frame.Method[spec.Basic.Deliver]:
    return frame.Method(1, spec.Basic.Deliver("tag", 1, False, "", "queue"))


def test_a_body_over_the_limit_keeps_its_beginning_size_and_hash() -> None:
    assembler = pika_internals._Assembler(keep=4, ceiling=100)
    assembler.process(deliver())
    assert assembler.process(frame.Header(1, 10, pika.BasicProperties())) is None
    assert assembler.process(frame.Body(1, b"01234")) is None
    found = assembler.process(frame.Body(1, b"56789"))
    assert found is not None
    body = found[2]
    assert isinstance(body, pika_internals.CutBody)
    assert (bytes(body), body.size, body.sha256) == (b"0123", 10, hashlib.sha256(b"0123456789").hexdigest())


def test_a_body_within_the_limit_is_plain() -> None:
    assembler = pika_internals._Assembler(keep=4, ceiling=100)
    assembler.process(deliver())
    assembler.process(frame.Header(1, 4, pika.BasicProperties()))
    found = assembler.process(frame.Body(1, b"0123"))
    assert found is not None and type(found[2]) is bytes and found[2] == b"0123"


def test_a_size_over_the_ceiling_is_refused_at_the_header() -> None:
    assembler = pika_internals._Assembler(keep=4, ceiling=100)
    assembler.process(deliver())
    with pytest.raises(pika_internals.MessageTooLargeError, match="101"):
        assembler.process(frame.Header(1, 101, pika.BasicProperties()))
