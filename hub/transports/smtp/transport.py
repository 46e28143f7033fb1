"""Sends one e-mail message per request.

`base_url` is `smtp[s]://user:password@host:port?from=…&to=…`. STARTTLS is required unless
`starttls=off`. Every try of a task has the same Message-ID, so a mail system can recognise a repeat.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from hub.domain.text import bounded
from hub.errors import ConfigError, InvalidPayloadError, NotSentError
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports import egress, tls
from hub.transports.base import CONFIG_RECHECK, Deadline
from hub.transports.masking import without_secrets
from hub.transports.smtp.message import build, spec
from hub.transports.smtp.session import Session, opened, refused
from hub.transports.smtp.uri import SmtpUri, parse


class SmtpTransport:
    """Sends to SMTP servers; implements `base.Transport`. Safe to call from many threads.

    A connection lasts for one message: mail is rare beside other deliveries, and servers close idle sessions.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Send the message to all recipients or to none; the response's body is the server's last reply.

        Raises:
            InvalidPayloadError: the payload is not a message. Nothing was sent.
            NotSentError: a TLS file is unusable.
            ConnectError, TimedOutError, AuthenticationError: no session.
            MailRefusedError: the server refuses the sender, a recipient or the message.
        """
        uri = self._uri(service)
        message, recipients = build(uri, request)
        with self._session(service, uri, deadline) as session:
            _expect(session.mail(spec(uri.sender)), service)
            for recipient in recipients:
                _expect(session.rcpt(recipient), service)
            said = _expect(session.data(message.as_bytes()), service)
        return Response(body=bounded(said, self._settings.body_limit))

    def check(self, service: Service, deadline: Deadline) -> str:
        """Open a session and log in; sends nothing."""
        uri = self._uri(service)
        with self._session(service, uri, deadline) as session:
            session.noop()
            encrypted = "encrypted" if uri.tls or uri.starttls == "required" else "in plain text"
        return f"{uri.host}:{uri.port} takes mail, {encrypted}{', logged in' if uri.user else ''}"

    def close(self) -> None:
        """Nothing is kept open."""

    def _uri(self, service: Service) -> SmtpUri:
        try:
            return parse(service.base_url)
        except ConfigError as e:
            raise InvalidPayloadError(str(e)) from None

    def _session(self, service: Service, uri: SmtpUri, deadline: Deadline) -> AbstractContextManager[Session]:
        o = service.options
        try:
            context = tls.context(
                self._settings.tls_folder, o.get("ca_file"), o.get("client_cert"), o.get("client_key"), alpn=()
            )
        except ConfigError as e:
            raise NotSentError(str(e), retry_after=CONFIG_RECHECK) from None
        sock = egress.connect(uri.host, uri.port, self._settings, deadline)
        return opened(sock, uri, context, service.secrets.get("password") or uri.password, deadline)


def _expect(reply: tuple[int, bytes], service: Service) -> str:
    """The text of a positive reply; raises `MailRefusedError` for any other."""
    code, text = reply
    said = without_secrets(text.decode("utf-8", "replace"), service)
    if code not in (250, 251, 252):
        raise refused(code, said)
    return said
