"""One SMTP session on a guarded connection, within one deadline.

`smtplib` takes a host name, resolves it itself and applies its time-out to each read. This module gives it an open
socket and ends the session when the deadline passes. It sets `smtplib.SMTP._host`, the name that a certificate is
checked against; tests/integration/test_internals.py fails when an upgrade of Python moves it.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator

from hub.errors import AuthenticationError, ConnectError, DeliveryError, MailRefusedError, TimedOutError
from hub.transports.base import Deadline
from hub.transports.smtp.uri import SmtpUri

_HELLO = "integration-hub"


class Session(smtplib.SMTP):
    """A session on an open socket. The constructor reads the greeting."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        super().__init__(local_hostname=_HELLO, timeout=None)  # type: ignore[arg-type]
        self._host = host
        self.sock = sock
        code, text = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)


@contextlib.contextmanager
def opened(
    sock: socket.socket, uri: SmtpUri, context: ssl.SSLContext, password: str | None, deadline: Deadline
) -> Iterator[Session]:
    """A session, encrypted and logged in according to `uri`; closed on exit.

    Raises:
        ConnectError, TimedOutError: the connection was lost, is not encrypted as required, or took too long.
        AuthenticationError: the server refuses the user or the password.
        MailRefusedError: the server refuses the session.
    """
    ended = threading.Event()
    link = [sock]

    def end() -> None:
        ended.set()
        with contextlib.suppress(OSError):
            link[0].shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline.remaining, end)
    timer.daemon = True
    timer.start()
    session: Session | None = None
    try:
        sock.settimeout(None)  # the timer is the only limit
        if uri.tls:
            sock = link[0] = context.wrap_socket(sock, server_hostname=uri.host)
        session = Session(sock, uri.host)
        session.ehlo()
        if not uri.tls and uri.starttls == "required":
            if not session.has_extn("starttls"):
                raise ConnectError("the server offers no STARTTLS; ?starttls=off sends in plain text")
            session.starttls(context=context)
            if session.sock is not None:
                link[0] = session.sock
            session.ehlo()
        if uri.user:
            session.login(uri.user, password or "")
        yield session
        with contextlib.suppress(smtplib.SMTPException, OSError):
            session.quit()  # the message is accepted: how the session ends changes nothing
    except DeliveryError:
        raise
    except (smtplib.SMTPException, OSError, ValueError, UnicodeError) as e:
        if ended.is_set():
            raise TimedOutError(f"no complete response from {uri.host}:{uri.port} in time") from None
        raise _translated(e, uri) from None
    finally:
        timer.cancel()
        with contextlib.suppress(OSError):
            link[0].close()
        if session is not None:
            session.close()
        sock.close()


def _translated(error: Exception, uri: SmtpUri) -> DeliveryError:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        text = f"the server refuses the user or the password ({error.smtp_code})"
        return AuthenticationError(text, status=error.smtp_code)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return AuthenticationError("the server offers no authentication method that the hub supports")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return refused(*max(error.recipients.values()))
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code > 0:
        return refused(error.smtp_code, error.smtp_error)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or (error.reason or "not TLS").replace("_", " ").lower()
        verify = "certificate: " if isinstance(error, ssl.SSLCertVerificationError) else ""
        return ConnectError(f"no TLS connection to {uri.host}:{uri.port}: {verify}{reason}")
    text = (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else "no SMTP server"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        text = "the connection was closed"
    return ConnectError(f"the connection to {uri.host}:{uri.port} failed: {text}")


def refused(code: int, text: bytes | str) -> MailRefusedError:
    """The error for a reply that is not a success."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    message = f"the server refuses: {code} {' '.join(said.split())[:500]}"
    return MailRefusedError(message, status=code, response_body=said)
