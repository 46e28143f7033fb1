"""The folder `HUB_HOME`: private files in it, and the key file of a hub that was given no keys."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

from hub.errors import ConfigError


def load_or_create_key(home: Path) -> str:
    """The Fernet key in `HOME/secret.key`, made (mode 0600) when there is none.

    Two processes that come at the same time get the same key, and a kill leaves no half a key.

    Raises:
        ConfigError: the file is no key, or others can read it.
    """
    path = make_folder(home) / "secret.key"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=home, prefix=".key.") as f:
            f.write(Fernet.generate_key())
            f.flush()
            os.fsync(f.fileno())
            give(Path(f.name), home.stat().st_uid)
            try:
                os.link(f.name, path)
            except FileExistsError:
                pass  # somebody was faster: theirs counts
        sync(home)
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; chmod 600 it, or delete it and enter all secrets anew")
        key = path.read_text("ascii").strip()
        Fernet(key)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", field="HUB_HOME") from None
    except ValueError:
        raise ConfigError(f"{path} holds no Fernet key; put the right one back, or set HUB_SECRET_KEYS") from None
    return key


def make_folder(path: Path) -> Path:
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            give(path, path.parent.stat().st_uid if path.name == "postgres" else os.geteuid())
    except OSError as e:
        what = "is not a folder" if e.errno in (errno.EEXIST, errno.ENOTDIR) else f"cannot be made: {e.strerror}"
        raise ConfigError(f"{path} {what}", field="HUB_HOME") from None
    return path


def give(path: Path, uid: int) -> None:
    """Root leaves nothing in a user's folder that the user could not open afterwards."""
    if os.geteuid() == 0 and uid != 0:
        os.chown(path, uid, -1)


def sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
