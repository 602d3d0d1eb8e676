"""Resolve every pin to binary wheels for the Pythons of the Kaggle images, without installing anything."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (("3.12", "kaggle-2026-09"), ("3.12", "kaggle-2026-10"), ("3.13", "kaggle-2026-10"))


def main() -> int:
    """Return 0 if all targets resolve, else 1."""
    failed = 0
    for python, image in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
                *("--only-binary", ":all:", "--python-version", python, "--target", folder),
                *("-r", str(ROOT / "requirements/run.txt"), "-c", str(ROOT / f"requirements/{image}.txt")),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        failed += done.returncode != 0
        sys.stdout.write(
            f"Python {python}, {image}: {'wheels for every pin' if not done.returncode else 'FAILED'}\n"
        )
        sys.stderr.write(done.stderr if done.returncode else "")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
