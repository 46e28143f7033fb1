"""The TLS files that services name: regular files of one folder, read without waiting, corrected without a restart."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from hub.app.lifecycle import Hub
from hub.errors import ConfigError, NotSentError
from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport
from hub.transports.tls import FILE_LIMIT, context
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, attempt, due_now, emit, task

PATIENCE = 120.0  # seconds; for exchanges that are expected to end by themselves


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tls"
    made.mkdir()
    return made


def problem(folder: Path, name: str, field: str = "ca_file") -> str:
    with pytest.raises(ConfigError) as caught:
        context(folder, **cast(Any, {field: name}))
    return str(caught.value)


def test_names_are_relative_to_the_folder_or_absolute_in_it(folder: Path) -> None:
    authority = Authority(folder)
    certificate, key = authority.issue("client", client=True)
    (folder / "sub").mkdir()
    (folder / "sub" / "link.pem").symlink_to("../ca.pem" if (folder / "ca.pem").exists() else authority.file)
    for name in (Path(authority.file).name, authority.file, "sub/link.pem"):
        assert context(folder, name, Path(certificate).name, key).get_ca_certs()


@pytest.mark.parametrize("field", ["ca_file", "client_cert"])
def test_nothing_outside_the_folder_is_told_or_touched(folder: Path, tmp_path: Path, field: str) -> None:
    """Whether another file exists is not for the users of the hub to ask."""
    there = tmp_path / "there.pem"
    there.write_text("x")
    (folder / "link").symlink_to(there)
    (folder / "broken").symlink_to(tmp_path / "missing")
    names = [str(there), "../there.pem", "../missing.pem", "/etc/passwd", "/etc/missing", "link", "broken", "."]
    assert len({problem(folder, name, field) for name in names}) == 1
    assert "HUB_TLS_DIR" in problem(folder, "../there.pem", field)


def test_what_is_no_small_regular_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "dir").mkdir()
    (folder / "big").write_bytes(b"x" * (FILE_LIMIT + 1))
    (folder / "text").write_text("no certificate")
    assert "not a regular file" in problem(folder, "fifo") and "not a regular file" in problem(folder, "dir")
    assert "not a regular file" in problem(folder, "fifo", "client_cert")
    assert "more than 1048576 bytes" in problem(folder, "big")
    assert "not usable" in problem(folder, "text") and "not usable" in problem(folder, "text", "client_cert")
    assert "no such file" in problem(folder, "missing")


def test_a_fifo_stops_no_other_service_and_correcting_it_heals(folder: Path) -> None:
    authority = Authority(folder)
    os.mkfifo(folder / "fifo")
    with HttpTarget(Reply(200, "secure"), tls=authority.server()) as target:
        transport = RestTransport(Settings(tls_dir=folder))

        def service(number: int, ca_file: str, version: int = 1) -> Service:
            options = {"ca_file": ca_file}
            return Service(number, f"s{number}", ServiceType.REST, target.url, options=options, version=version)

        def blocked() -> None:
            with pytest.raises(NotSentError, match="not a regular file"):
                transport.send(service(1, "fifo"), Request(), Deadline(PATIENCE))

        threads = [threading.Thread(target=blocked, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert transport.send(service(2, authority.file), Request(), Deadline(PATIENCE)).body == "secure"
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert transport.send(service(1, authority.file, 2), Request(), Deadline(PATIENCE)).body == "secure"
        transport.close()


def test_a_corrected_file_is_taken_by_the_waiting_task(hub: Hub, tls_dir: Path) -> None:
    authority = Authority(tls_dir)
    with HttpTarget(tls=authority.server()) as target:
        add_service(hub, target.url, ca_file="later.pem")
        add_rule(hub)
        (task_id,) = emit(hub)
        assert attempt(hub, task_id) == "parked" and task(hub, task_id)["attempts"] == 0
        (tls_dir / "later.pem").write_bytes(Path(authority.file).read_bytes())
        due_now(hub)
        assert attempt(hub, task_id) == "delivered"
