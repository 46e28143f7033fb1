"""Rows of acceptance one by one: `POST /api/v1/events` under wrk, beside the least that FastAPI can do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import urllib3

from tests.bench.job import event
from tests.bench.rig import Rig, cpu, wait_for
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import HubSystem
from tests.support.rabbit import free_ports

_HUB = [sys.executable, "-c", "from hub.cli import main; main()"]
_NUMBER = "987654321"
# A body that no other request has: the hub deduplicates by content.
_SCRIPT = """
local before, after = [==[{before}]==], [==[{after}]==]
local headers = {{["Content-Type"] = "application/json", ["Authorization"] = "Bearer {token}"}}
local number, refused = {first}, 0
request = function()
  number = number + 1
  return wrk.format("POST", "/api/v1/events", headers, before .. number .. after)
end
response = function(status) if status ~= 202 then refused = refused + 1; print("refused", status) end end
"""
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_COUNT = re.compile(r"(\d+) requests in")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def rows() -> Iterator[Row]:
    """All of them."""
    yield Row("ingest_api_single", "POST /api/v1/events, one a request, 64 connections", lambda r, s: hub(r, s, 64))
    yield Row("ingest_api_single_8", "the same, 8 connections", lambda r, s: hub(r, s, 8))
    yield Row("bare_fastapi", "a FastAPI `def` handler with one pooled INSERT, 64 connections", bare)


def hub(rig: Rig, scale: Scale, connections: int) -> Numbers:
    """The hub's web process."""
    port = free_ports(1)[0]
    system = HubSystem(rig, rig.fast, listen=f"127.0.0.1:{port}", token_rate=1e6)
    try:
        token = system.hub.accounts.tokens.add("bench", "ingest")[1]
        return _load(rig, [*_HUB, "web"], system.env(), port, token, connections, scale.seconds)
    finally:
        system.close()


def bare(rig: Rig, scale: Scale) -> Numbers:
    """No deduplication, no rules, no tasks, no token: one row per event."""
    port = free_ports(1)[0]
    env = {"BENCH_DATABASE": rig.database(), "BENCH_PORT": str(port)}
    return _load(rig, [sys.executable, "-m", "tests.bench.bare_api"], env, port, "none", 64, scale.seconds)


def _load(
    rig: Rig, command: list[str], env: dict[str, str], port: int, token: str, connections: int, seconds: float
) -> Numbers:
    """Rate, latency and CPU time per event of one server."""
    before, _, after = json.dumps({**event(0), "objectid": int(_NUMBER)}).partition(_NUMBER)
    script = rig.folder / "post.lua"
    url = f"http://127.0.0.1:{port}"
    with rig.running([command], env) as (pid,):
        wait_for(lambda: _responds(url), 30, "the web server")
        script.write_text(_SCRIPT.format(before=before, after=after, token=token, first=0))
        _wrk(script, url, connections, 1)
        script.write_text(_SCRIPT.format(before=before, after=after, token=token, first=10_000_000))
        begun = cpu([pid])
        output = _wrk(script, url, connections, seconds)
        spent = cpu([pid]) - begun
    if "refused" in output or "Socket errors" in output:
        raise RuntimeError(output[:500])
    found = {which: float(value) * _MILLISECONDS[unit] for which, value, unit in _PERCENTILE.findall(output)}
    rate, count = _RATE.search(output), _COUNT.search(output)
    if rate is None or count is None:
        raise RuntimeError(output[:500])
    return {
        "per_second": float(rate[1]),
        "p50_ms": found["50"],
        "p99_ms": found["99"],
        "cpu_us": spent / int(count[1]) * 1e6,
    }


def _wrk(script: Path, url: str, connections: int, seconds: float) -> str:
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--latency",
        "--timeout",
        "30s",
        "-s",
        str(script),
    ]
    return subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=seconds + 60).stdout


def _responds(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/healthz", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
