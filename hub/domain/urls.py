"""URLs as text: user information taken out and put back, literals checked."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit


def check_brackets(netloc: str) -> None:
    """Raises `ValueError` for text around an IPv6 literal, which `urlsplit` drops: `foo[::1]` would lead to `::1`."""
    host = netloc.rpartition("@")[2]
    if ("[" in host or "]" in host) and not re.fullmatch(r"\[[^\[\]]*\](:[0-9]*)?", host):
        raise ValueError("an IPv6 address in brackets has text around it")


def split_password(url: str) -> tuple[str, str | None]:
    """A URL without its password, and the password percent-decoded (None: it had none)."""
    parts = urlsplit(url)
    userinfo, at, hostport = parts.netloc.rpartition("@")
    if not at or ":" not in userinfo:
        return url, None
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}@{hostport}")), unquote(password)


def join_password(url: str, password: str) -> str:
    """The reverse of `split_password`, for exports: `password` goes in percent-encoded."""
    before, after = around_password(url)
    return f"{before}{password}{after}"


def around_password(url: str) -> tuple[str, str]:
    """What precedes and what follows the password in a URL that `split_password` returned."""
    parts = urlsplit(url)
    user, _, hostport = parts.netloc.rpartition("@")
    whole = urlunsplit(parts._replace(netloc=f"{user}:@{hostport}"))
    at = len(f"{parts.scheme}://{user}:")
    return whole[:at], whole[at:]
