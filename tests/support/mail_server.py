"""A real SMTP server (aiosmtpd) that keeps what it receives."""

from __future__ import annotations

import logging
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as ServerSession

from tests.support.rabbit import free_ports

logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # it would log what it receives, secrets too


class MailServer:
    """Listens on loopback. `refuse` maps a command (`MAIL`, `RCPT`, `DATA`) to the reply that it gets."""

    def __init__(
        self, *, user: str | None = None, password: str = "", starttls: ssl.SSLContext | None = None, tls: bool = False
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.refuse: dict[str, str] = {}
        self._user, self._password = user, password
        [self.port] = free_ports(1)
        options: dict[str, Any] = {"hostname": "127.0.0.1", "port": self.port, "ready_timeout": 60}
        if user is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True, "auth_require_tls": False}
        if starttls is not None and not tls:
            options |= {"tls_context": starttls, "require_starttls": True}
        if tls:
            options["ssl_context"] = starttls
        self._controller = Controller(self, **options)

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (
            str(self._user).encode(),
            self._password.encode(),
        )
        return AuthResult(success=right, handled=False)

    async def handle_MAIL(
        self, server: Any, session: ServerSession, envelope: Envelope, address: str, options: Any
    ) -> str:
        envelope.mail_from = address
        return self.refuse.get("MAIL", "250 OK")

    async def handle_RCPT(
        self, server: Any, session: ServerSession, envelope: Envelope, address: str, options: Any
    ) -> str:
        if (reply := self.refuse.get("RCPT")) is None:
            envelope.rcpt_tos.append(address)
        return reply or "250 OK"

    async def handle_DATA(self, server: Any, session: ServerSession, envelope: Envelope) -> str:
        if (reply := self.refuse.get("DATA")) is not None:
            return reply
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.envelopes.append(envelope)
        return "250 queued"

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()
