"""One suite for every transport: whatever the protocol, the same trouble must come out as the same error."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pika
import pytest

from hub.errors import ConnectError, TimedOutError, TransportError
from hub.models import ServiceType
from hub.transports.base import Deadline, Transport
from tests.support.certificates import Authority
from tests.support.mail_server import MailServer
from tests.support.peers import SECRET, AmqpPeer, MailPeer, Peer, WebPeer, babbler, black_hole
from tests.support.proxy import Proxy, Stopwatch, unused_port
from tests.support.soap_server import WebServer

SHORT, LONG = 0.4, 20.0  # seconds: a deadline that is meant to pass, and one that is not
KINDS = [kind.value for kind in ServiceType]


@pytest.fixture(params=KINDS)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    kind = ServiceType(request.param)
    if kind is ServiceType.SMTP:
        with MailServer(user="hub", password=SECRET) as mail:
            yield MailPeer(mail)
        return
    if kind is not ServiceType.AMQP:
        with WebServer() as server:
            yield WebPeer(server, kind)
        return
    url, queue = request.getfixturevalue("broker_url"), request.getfixturevalue("queue_prefix")
    yield AmqpPeer(url, queue)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_delete(queue)
    connection.close()


@pytest.fixture
def transport(peer: Peer) -> Iterator[Transport]:
    made = peer.transport()
    yield made
    made.close()


@pytest.fixture
def proxy(peer: Peer) -> Iterator[Proxy]:
    with Proxy(peer.target) as made:
        yield made


def failure(act: Callable[[], object]) -> TransportError:
    """What `act` raises; the deadline is kept if this comes back long before a test would hang."""
    watch = Stopwatch()
    with pytest.raises(TransportError) as caught:
        act()
    assert watch.took < LONG
    return caught.value


def test_a_success_arrives_with_its_idempotency_key_on_every_try(peer: Peer, transport: Transport) -> None:
    """Receivers tell a repeat from a new message by this key alone."""
    for _ in range(2):
        transport.send(peer.service(), peer.request, Deadline(LONG))
    assert peer.keys() == ["key-1", "key-1"]


def test_a_refused_connection_is_a_connect_error(peer: Peer, transport: Transport) -> None:
    service = peer.service(port=unused_port())
    error = failure(lambda: transport.send(service, peer.request, Deadline(LONG)))
    assert type(error) is ConnectError and "refused" in str(error).lower()
    assert error.retriable and error.counts_against_breaker and error.outcome == "connect_error"


def test_a_host_without_an_address_is_a_connect_error_that_names_it(peer: Peer, transport: Transport) -> None:
    service = peer.service(host="nowhere.invalid")
    error = failure(lambda: transport.send(service, peer.request, Deadline(LONG)))
    assert type(error) is ConnectError and "nowhere.invalid" in str(error)


def test_an_unreachable_host_is_a_timeout(peer: Peer, transport: Transport) -> None:
    with black_hole() as port:
        error = failure(lambda: transport.send(peer.service(port=port), peer.request, Deadline(SHORT)))
    assert type(error) is TimedOutError
    assert error.retriable and error.counts_against_breaker and error.outcome == "timeout"


@pytest.mark.parametrize("after", [0, 7, 180], ids=["no answer", "part of a header", "part of a body"])
def test_an_answer_that_stops_is_a_timeout(peer: Peer, transport: Transport, proxy: Proxy, after: int) -> None:
    proxy.hold(after=after)
    error = failure(lambda: transport.send(peer.service(port=proxy.port), peer.request, Deadline(SHORT)))
    assert type(error) is TimedOutError


def test_an_answer_that_drips_is_a_timeout(peer: Peer, transport: Transport, proxy: Proxy) -> None:
    """A timeout per read would wait for ever; the deadline is for the whole."""
    proxy.drip()
    error = failure(lambda: transport.send(peer.service(port=proxy.port), peer.request, Deadline(SHORT)))
    assert type(error) is TimedOutError


def test_a_slow_answer_or_confirm_on_an_open_connection_is_a_timeout(
    peer: Peer, transport: Transport, proxy: Proxy
) -> None:
    """And the next send does not take the late answer for its own."""
    service = peer.service(port=proxy.port)
    transport.send(service, peer.request, Deadline(LONG))
    proxy.hold()
    assert type(failure(lambda: transport.send(service, peer.request, Deadline(SHORT)))) is TimedOutError
    proxy.release()
    transport.send(service, peer.request, Deadline(LONG))


def test_a_connection_that_breaks_before_the_answer_is_a_connect_error(
    peer: Peer, transport: Transport, proxy: Proxy
) -> None:
    service = peer.service(port=proxy.port)
    transport.send(service, peer.request, Deadline(LONG))
    proxy.hold()
    cutter = threading.Timer(0.3, proxy.cut)
    cutter.start()
    error = failure(lambda: transport.send(service, peer.request, Deadline(LONG)))
    cutter.join()
    assert type(error) is ConnectError


def test_a_connection_that_broke_while_idle_is_no_failure(peer: Peer, transport: Transport, proxy: Proxy) -> None:
    service = peer.service(port=proxy.port)
    for _ in range(3):
        transport.send(service, peer.request, Deadline(LONG))
        proxy.cut()
    assert len(peer.keys()) == 3


def test_a_no_is_neither_retried_nor_held_against_the_service(peer: Peer, transport: Transport) -> None:
    """It is alive: the circuit stays closed, and asking again within the attempt would get the same no."""
    with peer.rejecting():
        error = failure(lambda: transport.send(peer.service(version=2), peer.request, Deadline(LONG)))
    assert not isinstance(error, ConnectError)
    assert not error.retriable and not error.counts_against_breaker
    assert error.outcome == {"amqp": "unroutable", "smtp": "fault"}.get(peer.kind, "http_4xx")
    transport.send(peer.service(version=3), peer.request, Deadline(LONG))


def test_wrong_credentials_are_a_no(peer: Peer, transport: Transport) -> None:
    error = failure(lambda: transport.send(peer.service(wrong=True), peer.request, Deadline(LONG)))
    assert not isinstance(error, ConnectError)
    assert not error.retriable and not error.counts_against_breaker
    assert error.status == {"amqp": None, "smtp": 535}.get(peer.kind, 401)
    failure(lambda: transport.check(peer.service(wrong=True), Deadline(LONG)))


def test_tls_is_verified(peer: Peer, transport: Transport, tmp_path: Path) -> None:
    """Against the service's own CA, for the right host; a client certificate is shown where one is configured."""
    authority, stranger = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    client, key = authority.issue("client", client=True)
    mine = {"ca_file": authority.file}
    with Proxy(peer.target, tls=authority.server()) as tls:
        transport.send(peer.service(port=tls.port, tls=True, options=mine), peer.request, Deadline(LONG))
        for version, options in ((2, {}), (3, {"ca_file": stranger.file})):
            service = peer.service(port=tls.port, tls=True, version=version, options=options)
            error = failure(lambda s=service: transport.send(s, peer.request, Deadline(LONG)))  # type: ignore[misc]
            assert type(error) is ConnectError and "certificate" in str(error)
    with Proxy(peer.target, tls=authority.server(client_ca=True)) as tls:
        shown = {**mine, "client_cert": client, "client_key": key}
        transport.send(peer.service(port=tls.port, tls=True, version=4, options=shown), peer.request, Deadline(LONG))
        service = peer.service(port=tls.port, tls=True, version=5, options=mine)
        assert type(failure(lambda: transport.send(service, peer.request, Deadline(LONG)))) is ConnectError


def test_a_certificate_for_another_host_is_refused(peer: Peer, transport: Transport, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Proxy(peer.target, tls=authority.server("elsewhere.example")) as tls:
        service = peer.service(port=tls.port, tls=True, options={"ca_file": authority.file})
        error = failure(lambda: transport.send(service, peer.request, Deadline(LONG)))
    assert type(error) is ConnectError and "certificate" in str(error)


def test_another_protocol_at_the_port_is_a_connect_error(peer: Peer, transport: Transport) -> None:
    with babbler() as port:
        for version, tls in ((1, False), (2, True)):
            service = peer.service(port=port, tls=tls, version=version)
            error = failure(lambda s=service: transport.send(s, peer.request, Deadline(LONG)))  # type: ignore[misc]
            assert type(error) is ConnectError


def test_a_deadline_that_is_over_sends_nothing(peer: Peer, transport: Transport) -> None:
    transport.send(peer.service(), peer.request, Deadline(LONG))
    assert type(failure(lambda: transport.send(peer.service(), peer.request, Deadline(0)))) is TimedOutError
    assert len(peer.keys()) == 1


def test_check_reaches_the_service_and_leaves_no_trace(peer: Peer, transport: Transport) -> None:
    transport.send(peer.service(), peer.request, Deadline(LONG))
    assert transport.check(peer.service(), Deadline(LONG))
    assert len(peer.keys()) == 1
    failure(lambda: transport.check(peer.service(port=unused_port(), version=2), Deadline(LONG)))


def test_no_error_and_no_log_line_holds_a_secret(
    peer: Peer, transport: Transport, proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Error texts go to the log, the console, the API and mails."""
    caplog.set_level(logging.DEBUG)
    secrets = (SECRET, SECRET[::-1])
    errors: list[TransportError] = []

    def attempt(seconds: float = LONG, port: int | None = None, tls: bool = False) -> None:
        service = peer.service(wrong=True, port=port, tls=tls, version=len(errors) + 10)
        errors.append(failure(lambda: transport.send(service, peer.request, Deadline(seconds))))

    attempt()
    attempt(port=unused_port())
    contexts: list[tuple[AbstractContextManager[int], float]] = [(babbler(), LONG), (black_hole(), SHORT)]
    for context, seconds in contexts:
        with context as port:
            attempt(seconds, port)
    with Proxy(peer.target, tls=Authority(tmp_path).server()) as tls:
        attempt(port=tls.port, tls=True)
    with peer.rejecting():
        errors.append(failure(lambda: transport.send(peer.service(version=99), peer.request, Deadline(LONG))))
    proxy.hold()
    attempt(SHORT, proxy.port)
    assert len(errors) == 7
    for error in errors:
        told = "".join(traceback.format_exception(error)) + repr(error) + str(error.response_body)
        assert not any(secret in told for secret in secrets), told
    logged = "\n".join(caplog.messages)
    assert not any(secret in logged for secret in secrets)


def test_many_threads_at_once(peer: Peer, transport: Transport) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                transport.send(peer.service(), peer.request, Deadline(LONG))
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(peer.keys()) == 40
