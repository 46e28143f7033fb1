"""TLS contexts: certificates are always verified, at least TLS 1.2.

The files of a service are in one folder (`HUB_TLS_DIR`); files outside are refused. A context is shared by all
connections that use the same files, and rebuilt when a file has changed: a renewed certificate needs no restart.
"""

from __future__ import annotations

import os
import ssl
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from hub.errors import ConfigError

FILE_LIMIT = 1_048_576  # bytes of one file
_MOST = 256  # contexts kept
_FDS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

Stamp = tuple[tuple[int, ...], ...]


class _Kept:
    """The context of one set of files. Its lock is held while the files are read; other sets do not wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stamp: Stamp | None = None
        self.context: ssl.SSLContext | None = None


_contexts: dict[tuple[str | None, ...], _Kept] = {}
_lock = threading.Lock()


def context(
    folder: Path,
    ca_file: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    *,
    alpn: tuple[str, ...] = ("http/1.1",),
) -> ssl.SSLContext:
    """Return a client context that verifies certificates.

    Args:
        folder: the folder that contains the files, at any depth; their names are relative to it or absolute.
        ca_file: PEM file; only its authorities are trusted. None: the public ones and those of this machine.
        client_cert, client_key: PEM files for mutual TLS; the key may be in the file of the certificate.
        alpn: the protocols to offer; none for AMQP, which has no ALPN name.

    Raises:
        ConfigError: a file is outside the folder, missing, not a regular file, larger than `FILE_LIMIT`, or contains
            no certificate. The text for a file outside does not depend on whether it exists.
    """
    names = {"ca_file": ca_file, "client_cert": client_cert, "client_key": client_key}
    paths = {field: _inside(folder, name, field) for field, name in names.items() if name}
    key = (*(paths.get(field) for field in names), *alpn)
    with _lock:
        kept = _contexts.get(key)
        if kept is None:
            while len(_contexts) >= _MOST:
                del _contexts[next(iter(_contexts))]
            kept = _contexts[key] = _Kept()
    with kept.lock:
        stamp = tuple(_stamp(path) for path in paths.values())
        if kept.context is None or kept.stamp != stamp:
            kept.context, kept.stamp = _make(names, paths, alpn), stamp
        return kept.context


def _make(names: dict[str, str | None], paths: dict[str, str], alpn: tuple[str, ...]) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        made.set_alpn_protocols(alpn)
    if "ca_file" in paths:
        with _failing("ca_file", names["ca_file"]), _opened(paths["ca_file"]) as fd:
            pem = b"".join(iter(lambda: os.read(fd, FILE_LIMIT), b""))
            made.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    else:
        with _failing("ca_file", "the public authorities"):
            made.load_default_certs()
            made.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    if "client_cert" in paths:
        with ExitStack() as files:
            with _failing("client_cert", names["client_cert"]):
                cert = files.enter_context(_opened(paths["client_cert"]))
            with _failing("client_key", names["client_key"]):
                key = files.enter_context(_opened(paths.get("client_key", paths["client_cert"])))
            with _failing("client_cert", names["client_cert"]):  # OpenSSL takes only names: use those of the open files
                made.load_cert_chain(f"{_FDS}/{cert}", f"{_FDS}/{key}", password=_no_password)
    return made


def _inside(folder: Path, name: str, field: str) -> str:
    """The path of a file with links resolved. Does not access anything outside the folder."""
    root = os.path.realpath(folder)
    given = os.path.normpath(folder.absolute())
    path = os.path.normpath(folder.absolute() / name)
    for start in {given, root}:
        if path.startswith(start + os.sep):
            path = os.path.realpath(path)
            break
    if not path.startswith(root + os.sep):
        raise ConfigError("is not a file in the hub's folder for TLS files (HUB_TLS_DIR)", field=field)
    return path


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open a regular file of at most `FILE_LIMIT` bytes. Does not block on FIFOs and devices."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(0, "not a regular file")
        if info.st_size > FILE_LIMIT:
            raise OSError(0, f"more than {FILE_LIMIT} bytes")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _failing(field: str, name: str | None) -> Iterator[None]:
    try:
        yield
    except OSError as e:  # ssl.SSLError too
        raise ConfigError(f"{name}: {_reason(e)}", field=field) from None


def _no_password() -> str:
    """An empty password. Without it OpenSSL prompts on the terminal for the password of an encrypted key."""
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not usable ({(error.reason or 'no certificate').replace('_', ' ').lower()})"
    return (error.strerror or type(error).__name__).lower()


def _stamp(path: str) -> tuple[int, ...]:
    """Values that change when the file changes; empty for a file that cannot be read."""
    try:
        info = Path(path).stat()
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_size, info.st_ino
