"""The image of deploy/Dockerfile, built and run without Docker: buildah with chroot isolation, as root.

No registry is asked: the base image is made by debootstrap from Debian's packages, with Python's commands where the
official image has them. So the Dockerfile's steps, its user, paths and entrypoint are proven, not the official base.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.provision import install

ROOT = Path(__file__).parents[2]
MISSING = (
    "nobody built the image: that takes minutes, root, buildah and debootstrap. Run `make image` (it installs them)"
)
TAG = "localhost/hub-test"
_BASE = """FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin {environment}
"""
_PACKAGES = "python3.11,python3-pip,python3.11-venv,ca-certificates"
# Where a network ends TLS itself, or has an index of its own, the build needs to know.
_HANDED_ON = ("SSL_CERT_FILE", "PIP_CERT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def needed() -> None:
    """Skip the test, loudly, unless `make image` runs it on a machine that can."""
    if not os.environ.get("HUB_TEST_IMAGE") or os.geteuid() != 0:
        pytest.skip(MISSING)
    if not all(map(shutil.which, ("buildah", "debootstrap"))) and not install(["buildah", "debootstrap"]):
        pytest.skip(MISSING)


class Image:
    """The built image, and a working container of it. `close` removes both.

    Args:
        folder: for images and containers; a gigabyte.
        commit: build argument COMMIT.
    """

    def __init__(self, folder: Path, *, commit: str) -> None:
        self._folder = folder
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._base()
        self._build(commit)
        policy = ["--signature-policy", str(folder / "policy.json")]
        self._container = self._buildah("from", *policy, "--pull-never", TAG).strip()

    def _base(self) -> None:
        python = (ROOT / "deploy" / "Dockerfile").read_text().partition("ARG PYTHON=")[2].split()[0]
        root = self._folder / "rootfs"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        for name, target in (("python", "python3.11"), ("python3", "python3.11"), ("pip", "pip3")):
            (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
        (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
        if own := os.environ.get("SSL_CERT_FILE"):
            shutil.copy(own, root / "etc/ssl/certs/ca-certificates.crt")
        subprocess.run(["tar", "-C", root, "-cf", self._folder / "rootfs.tar", "."], check=True)
        shutil.rmtree(root)
        environment = " ".join(f"{name}={os.environ[name]}" for name in _HANDED_ON if name in os.environ)
        (self._folder / "Base").write_text(_BASE.format(environment=environment))
        self._bud("-t", f"docker.io/library/python:{python}", "-f", str(self._folder / "Base"), str(self._folder))

    def _build(self, commit: str) -> None:
        self._bud(
            "--pull-never",
            "--network",
            "host",
            "--build-arg",
            f"COMMIT={commit}",
            "-t",
            TAG,
            "--ignorefile",
            str(ROOT / "deploy/Dockerfile.dockerignore"),
            "-f",
            str(ROOT / "deploy/Dockerfile"),
            str(ROOT),
        )

    def _bud(self, *words: str) -> None:
        policy = ["--signature-policy", str(self._folder / "policy.json")]
        self._buildah("bud", *policy, "--isolation", "chroot", "--layers=false", *words)

    def command(self, *words: str, mounts: dict[Path, str] | None = None, **env: str) -> list[str]:
        """The words that run a command in the container, as its user and with its environment."""
        options = [f"--volume={path}:{inside}:ro" for path, inside in (mounts or {}).items()]
        options += [f"--env={name}={value}" for name, value in env.items()]
        return [*self._own(), "run", "--isolation", "chroot", *options, self._container, "--", *words]

    def run(self, *words: str, mounts: dict[Path, str] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = self.command(*words, mounts=mounts, **env)
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    def configuration(self) -> dict[str, object]:
        """What the image says about user, entrypoint, command and environment."""
        found: dict[str, object] = json.loads(self._buildah("inspect", "--type", "image", TAG))["OCIv1"]["config"]
        return found

    def _own(self) -> list[str]:
        store = ["--root", str(self._folder / "store"), "--runroot", str(self._folder / "run")]
        return ["buildah", "--storage-driver", "vfs", *store]

    def _buildah(self, *words: str) -> str:
        done = subprocess.run([*self._own(), *words], capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, f"buildah {words[0]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def close(self) -> None:
        """Remove container and images."""
        subprocess.run([*self._own(), "rm", "--all"], capture_output=True, check=False)
        subprocess.run([*self._own(), "rmi", "--all", "--force"], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
