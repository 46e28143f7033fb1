"""Builds a release in `dist/`: sdist, wheel, SBOM (CycloneDX 1.5) and SHA256SUMS. The same commit gives the same bytes.

`python scripts/dist.py [FOLDER]`. The SBOM lists what `uv.lock` names for every extra, without development tools; it
has neither serial number nor time of the build, which would differ between builds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SBOM = "sbom.cdx.json"


def _uv() -> str:
    own = ROOT / ".venv" / ".uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise SystemExit("uv is missing: run scripts/bootstrap")
    return found


def _sbom(version: str) -> str:
    export = [
        _uv(),
        "export",
        "--quiet",
        "--frozen",
        "--no-dev",
        "--all-extras",
        "--format",
        "cyclonedx1.5",
        "--preview-features",
        "sbom-export",
    ]
    done = subprocess.run(export, cwd=ROOT, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    document["metadata"]["component"]["version"] = version
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def main(folder: Path) -> int:
    """Build into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    build = [_uv(), "build", "--quiet", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True)
    (folder / ".gitignore").unlink(missing_ok=True)
    [wheel] = folder.glob("*.whl")
    (folder / SBOM).write_text(_sbom(wheel.name.split("-")[1]))
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"))
