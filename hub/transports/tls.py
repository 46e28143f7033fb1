"""Stage 9: TLS contexts: certificates are always verified, TLS 1.2 at least.

A context is shared by all connections that use the same files, and made anew when a file has changed,
so a renewed certificate needs no restart.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from hub.errors import ConfigError

_contexts: dict[tuple[str | None, ...], tuple[tuple[float, ...], ssl.SSLContext]] = {}
_lock = threading.Lock()


def context(
    ca_file: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    *,
    alpn: tuple[str, ...] = ("http/1.1",),
) -> ssl.SSLContext:
    """A verifying client context.

    Args:
        ca_file: PEM file; only its authorities are trusted. None: the public ones and the machine's own.
        client_cert, client_key: PEM files for mutual TLS; the key may be in the certificate's file.
        alpn: the protocols that are offered; none for AMQP, which has no name there.

    Raises:
        ConfigError: a file is missing or holds no certificate; names the file.
    """
    files = (ca_file, client_cert, client_key)
    key = (*files, *alpn)
    times = tuple(_mtime(name) for name in files if name)
    with _lock:
        known = _contexts.get(key)
        if known is None or known[0] != times:
            known = _contexts[key] = (times, _make(*files, alpn))
        return known[1]


def _make(
    ca_file: str | None, client_cert: str | None, client_key: str | None, alpn: tuple[str, ...]
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        made.set_alpn_protocols(alpn)
    try:
        if ca_file:
            made.load_verify_locations(ca_file)
        else:
            made.load_default_certs()
            made.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{ca_file or 'the public authorities'}: {_reason(e)}", field="ca_file") from None
    if client_cert:
        try:
            made.load_cert_chain(client_cert, client_key, password=_no_password)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError(f"{client_cert}: {_reason(e)}", field="client_cert") from None
    return made


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal for the password of an encrypted key."""
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not usable ({(error.reason or 'no certificate').replace('_', ' ').lower()})"
    return (error.strerror or type(error).__name__).lower()


def _mtime(name: str) -> float:
    try:
        return Path(name).stat().st_mtime
    except OSError:
        return 0.0
