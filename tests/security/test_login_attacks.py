"""What a stranger does to the log-in of a running `hub web`, and what it costs in memory and in neighbours' time."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hub.programs.supervisor import die_with_parent
from hub.settings import Settings
from tests.support import clients
from tests.support.site import HUB, Site
from tests.support.waiting import eventually

_PASSWORD = "correct horse battery"
_MEMORY = 300.0  # MB that an attack may add: two hashes of 64 MB at a time, requests, threads


@pytest.fixture
def site(alone: Settings, tmp_path: Path) -> Iterator[Site]:
    with Site(alone, tmp_path) as site:
        (tmp_path / "password").write_text(_PASSWORD)
        site.run("user", "add", "maria", "--role", "manage", "--password", f"@{tmp_path / 'password'}")
        site.start("web")
        yield site


def memory(site: Site) -> float:
    """Resident memory of the web process in MB."""
    status = Path(f"/proc/{site.running['web'].pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@contextmanager
def watched(site: Site) -> Iterator[dict[str, float]]:
    """The most memory that the process had meanwhile, and the slowest response of health and metrics, in seconds."""
    seen = {"before": memory(site), "most": 0.0, "slowest": 0.0, "probes": 0}
    over = threading.Event()

    def look() -> None:
        with clients.Client(base_url=url(site)) as client:
            while not over.is_set():
                begun = time.monotonic()
                for path in ("/healthz", "/metrics"):
                    assert client.get(path).status_code == 200
                seen["slowest"] = max(seen["slowest"], time.monotonic() - begun)
                seen["probes"] += 1

    def weigh() -> None:
        while not over.wait(0.01):
            seen["most"] = max(seen["most"], memory(site))

    threads = [threading.Thread(target=work) for work in (look, weigh)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def url(site: Site) -> str:
    return f"http://{site.address('web')}"


def at_once(site: Site, count: int, send: Callable[[clients.Client, int], httpx.Response]) -> list[httpx.Response]:
    """What `count` clients get that send at the same moment."""
    gate = threading.Barrier(count)

    def one(n: int) -> httpx.Response:
        with clients.Client(base_url=url(site)) as client:
            gate.wait()
            return send(client, n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def login(client: clients.Client, name: str, password: str) -> httpx.Response:
    return client.post("/login", data={"name": name, "password": password})


def test_wrong_links_cost_no_hash_and_tell_nothing(site: Site) -> None:
    """The same response whether the user exists, the passwords differ or are short."""
    forms = [
        {"name": "maria", "password": _PASSWORD, "again": _PASSWORD},
        {"name": "nobody", "password": _PASSWORD, "again": _PASSWORD},
        {"name": "maria", "password": _PASSWORD, "again": "differs"},
        {"name": "", "password": "", "again": ""},
    ]
    with watched(site) as seen:
        responses = at_once(site, 24, lambda c, n: c.post("/login/link/not-a-link", data=forms[n % len(forms)]))
    assert {r.status_code for r in responses} == {404} and len({r.text for r in responses}) == 1
    assert seen["most"] - seen["before"] < 64, seen
    late = at_once(site, 48, lambda c, n: c.post("/login/link/not-a-link", data=forms[n % len(forms)]))
    refused = [r for r in late if r.status_code == 429]
    assert len(refused) > 30 and all(int(r.headers["retry-after"]) > 0 for r in refused)


def test_a_hundred_wrong_passwords_at_once_stay_within_bounds(site: Site) -> None:
    with watched(site) as seen:
        responses = at_once(site, 100, lambda c, n: login(c, f"user {n}", "wrong"))
    counted = Counter(r.status_code for r in responses)
    assert set(counted) <= {401, 429, 503} and counted[401] >= 2, counted
    assert all(int(r.headers["retry-after"]) > 0 for r in responses if r.status_code in (429, 503))
    assert seen["most"] - seen["before"] < _MEMORY, seen
    assert seen["probes"] > 0
    with clients.Client(base_url=url(site)) as client:
        assert client.get("/healthz").status_code == 200


def test_long_names_are_not_kept(site: Site) -> None:
    """25 requests of 2 MB, of an address that may still try and of one that is blocked."""
    with clients.Client(base_url=url(site)) as client:
        assert login(client, "nobody", "wrong").status_code == 401
        for blocked in (False, True):
            while blocked and login(client, "x" * 101, "wrong").status_code != 429:
                continue
            before = memory(site)
            got = {login(client, f"{n}" + "x" * 2_000_000, "wrong").status_code for n in range(25)}
            assert got <= {401, 413, 429}, got
            assert memory(site) - before < 40
        while login(client, "x" * 101, "wrong").status_code != 429:
            continue
        assert login(client, "maria", _PASSWORD).status_code == 429, "whatever the name and the password"


def test_a_failed_form_does_not_burn_the_link(site: Site) -> None:
    link = "/login/link/" + site.run("user", "link").strip().rpartition("/")[2]
    with clients.Client(base_url=url(site)) as client:
        for name, password in (("", _PASSWORD), ("x" * 101, _PASSWORD), ("maria", _PASSWORD), ("ada", "aaaaaaaaaa")):
            form = {"name": name, "password": password, "again": password}
            assert client.post(link, data=form).status_code == 422, (name, password)
        form = {"name": "ada", "password": _PASSWORD, "again": _PASSWORD}
        assert client.post(link, data=form).status_code == 303
        assert client.post(link, data=form).status_code == 404


def test_the_start_prints_a_link_to_a_terminal_only(alone: Settings, tmp_path: Path) -> None:
    with Site(alone, tmp_path) as site:
        site.env["ADAS"] = _PASSWORD
        site.start("web")
        eventually(lambda: "first administrator" in site.output("web"), "the hint")
        assert "/login/link/" not in site.output("web")
        first, second = (_on_a_terminal(site) for _ in range(2))
        with clients.Client(base_url=url(site)) as client:
            assert client.get(first).status_code == 404, "a newer link ends it"
            assert client.get(second).status_code == 200
            site.run("user", "add", "ada", "--role", "manage", "--password", "env:ADAS")
            assert client.get(second).status_code == 404, "there is an administrator"


def _on_a_terminal(site: Site) -> str:
    """The path of the link that another `hub web` prints when its output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [HUB, "web"],
        env=site.env,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    os.close(theirs)
    said, deadline = b"", time.monotonic() + 60
    try:
        while not (found := re.search(rb"(/login/link/[\w-]+)\s", said)):
            ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no link in {said!r}"
            said += os.read(ours, 4096)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
            os.close(ours)
    return found[1].decode()
