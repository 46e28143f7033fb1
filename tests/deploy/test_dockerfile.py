"""deploy/Dockerfile: linted, its structure checked, and its build steps run without Docker."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT

DOCKERFILE = DEPLOY / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of every line, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage, without its FROM."""
    found, inside = [], False
    for word, rest in instructions():
        if word == "FROM":
            inside = rest.endswith(f" AS {name}")
        elif inside:
            found.append((word, rest))
    assert found
    return found


def test_hadolint_finds_nothing() -> None:
    """Pinned base, no root, exec form, no cache left: the usual slips."""
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint has no build for this machine")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_result_has_no_compiler_no_uv_and_is_not_root() -> None:
    """What is not in the image cannot be used by who breaks in."""
    run = stage("run")
    text = "\n".join(rest for _, rest in run)
    assert "apt-get" not in text and "uv " not in text and "pip uninstall --yes pip" in text
    assert [rest for word, rest in run if word == "USER"] == ["10001:10001"]
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-", DOCKERFILE.read_text(), re.M), "slim images have no compiler"
    assert ("ENTRYPOINT", '["entrypoint.sh"]') in run and ("STOPSIGNAL", "SIGTERM") in run


def test_no_secret_is_baked_in() -> None:
    """Layers keep what later layers delete."""
    for word, rest in instructions():
        if word in ("ENV", "ARG"):
            assert not re.search(r"PASSWORD|TOKEN|SECRET|DATABASE_URL|BROKER_URL", rest), rest


def test_the_build_context_holds_only_what_is_copied() -> None:
    """.git, .env, deploy/secrets and a developer's .hub must never be sent to a builder."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [
        path.rstrip("/")
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for path in [p for p in rest.split() if not p.startswith("--")][:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / path).exists() for path in copied)
    assert not [p for p in allowed if fnmatch.fnmatch("deploy/secrets/secret_keys", p + "*")]


def test_its_build_steps_make_an_environment_that_runs_the_hub(tmp_path: Path) -> None:
    """The same uv commands on the same files: a file that the build needs and does not copy is found here."""
    bootstrapped = Path(sys.prefix) / ".uv" / "bin" / "uv"  # where scripts/bootstrap puts it
    uv = str(bootstrapped) if bootstrapped.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: nobody ran the image's build steps. Run `make test`, or pip install uv")
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    outside = {n: v for n, v in os.environ.items() if not n.startswith(("UV_", "HUB_")) and n != "VIRTUAL_ENV"}
    index = {n: v for n, v in os.environ.items() if n in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_CACHE_DIR")}
    env = {**outside, **index, "UV_PROJECT_ENVIRONMENT": str(target), "UV_PYTHON": sys.executable}
    for word, rest in stage("build"):
        if word == "COPY":
            *paths, _ = rest.split()
            for path in paths:
                if (ROOT / path).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / path, source / path.rstrip("/"), ignore=ignore)
                else:
                    (source / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, source / path)
        elif word == "RUN" and rest.startswith("uv "):
            done = subprocess.run(
                [uv, *rest.split()[1:]], cwd=source, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    shutil.rmtree(source)  # the last stage has no sources
    for command in ([str(target / "bin" / "python"), "-c", "import hub.settings, zeep; print(hub.__file__)"],):
        done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and str(target) in done.stdout, done.stderr
    assert (target / "bin" / "hub").exists()
    present = {p.name for p in (target / "bin").iterdir()}
    assert not present & {"pytest", "mypy", "ruff", "gcc"}, "development tools in the image"
