"""The image of deploy/Dockerfile, built; what it is, and how it starts. See `make image`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import containers
from tests.support.containers import Image

COMMIT = "0123456789ab"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built once."""
    containers.needed()
    built = Image(tmp_path_factory.mktemp("image"), commit=COMMIT)
    yield built
    built.close()


def test_the_image_is_what_the_deployment_expects(image: Image) -> None:
    """User, entrypoint, signal; the version names the commit; the program cannot be changed by who runs it."""
    config = image.configuration()
    assert config["User"] == "10001:10001" and config["Entrypoint"] == ["entrypoint.sh"]
    assert config["Cmd"] == ["hub", "web"] and config["StopSignal"] == "SIGTERM"
    assert image.run("hub", "--version").stdout.strip().endswith(f"(commit {COMMIT})")
    assert image.run("id", "-u").stdout.strip() == "10001"
    assert image.run("touch", "/opt/hub/x").returncode != 0
    assert image.run("touch", "/run/hub/metrics/x").returncode == 0
    assert image.run("/opt/hub/bin/python", "-c", "import zeep, pymysql").returncode == 0
    for absent in ("uv", "gcc"):
        assert image.run("sh", "-c", f"command -v {absent}").returncode != 0


def test_a_missing_secret_stops_the_container(image: Image) -> None:
    """Else it would start in embedded mode and look healthy."""
    done = image.run("entrypoint.sh", "hub", "web", HUB_DATABASE_URL_FILE="/run/secrets/nothing")
    assert done.returncode == 2 and "HUB_DATABASE_URL_FILE names a file that cannot be read" in done.stderr
