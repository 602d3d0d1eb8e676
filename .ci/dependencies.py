"""Dependencies: lock them with hashes, list their licences, ask for known vulnerabilities.

dependencies.py lock        write requirements/lock-IMAGE.txt for both Kaggle images (needs uv and an index)
dependencies.py licences    write the table of docs/dependencies.md from the installed packages
dependencies.py bounds      write pyproject.toml's dependencies to standard output, as a file of constraints
dependencies.py audit       ask pip-audit's databases about every locked package; 2 if none answered
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
PAGE = ROOT / "docs" / "dependencies.md"
IMAGES = ("kaggle-2026-09", "kaggle-2026-10")
LOCKED = ("run.txt", "dev.txt", "download.txt")
SERVICES = ("pypi", "osv")
TABLE = "| package | version | licence |\n|---|---|---|\n"
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)
_LONG = 60


def lock_path(image: str) -> Path:
    """Return the lock file of one image."""
    return REQUIREMENTS / f"lock-{image}.txt"


def lock() -> int:
    """Resolve all requirements but torch for every system and Python from 3.11; write names, markers, hashes."""
    for image in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "wanted.txt"
            wanted.write_text("".join(f"-r {REQUIREMENTS / name}\n" for name in LOCKED), encoding="utf-8")
            command = [
                *(
                    sys.executable,
                    "-m",
                    "uv",
                    "pip",
                    "compile",
                    "--quiet",
                    "--universal",
                    "--generate-hashes",
                ),
                *("--python-version", "3.11", "--no-emit-package", "torch", "--no-annotate", "--no-header"),
                *("-c", str(REQUIREMENTS / f"{image}.txt"), str(wanted), "-o", str(lock_path(image))),
            ]
            done = subprocess.run(command, check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
        sys.stdout.write(f"{lock_path(image).relative_to(ROOT)}: {len(locked(image))} packages\n")
    return 0


def locked(image: str) -> list[tuple[str, str]]:
    """Return name and version of every locked package."""
    return _PINNED.findall(lock_path(image).read_text(encoding="utf-8"))


def bounds() -> int:
    """Write what pyproject.toml admits of every package that the kernel imports, a line each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write("".join(f"{line}\n" for line in project["dependencies"]))
    return 0


def licences() -> int:
    """Write the table of licences as the installed packages state them; torch stands apart from the lock."""
    names = sorted({name for image in IMAGES for name, _ in locked(image)} | {"torch"})
    rows = [f"| {name} | {' | '.join(licence(name))} |\n" for name in names]
    head = PAGE.read_text(encoding="utf-8").split(TABLE)[0]
    PAGE.write_text(head + TABLE + "".join(rows), encoding="utf-8", newline="\n")
    unstated = [row.split(" | ")[0][2:] for row in rows if "not stated" in row]
    sys.stdout.write(f"{len(rows)} packages; licence not stated by: {', '.join(unstated) or 'none'}\n")
    return 0


def licence(name: str) -> tuple[str, str]:
    """Return version and licence of an installed package: its expression, its classifiers, or its own words."""
    try:
        meta = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return "", "not installed on this system"
    classifiers = [
        c.split(" :: ")[-1] for c in meta.get_all("Classifier") or () if c.startswith("License ::")
    ]
    classifiers = [c for c in classifiers if c != "OSI Approved"]
    free = (meta.get("License") or "").strip().split("\n")[0]
    words = meta.get("License-Expression") or ", ".join(classifiers) or (free if len(free) < _LONG else "")
    return meta["Version"].split("+")[0], words or "not stated"


def audit(image: str) -> int:
    """Return 0 if every locked package was looked up and none is vulnerable, 1 if one is, 2 if one is not known."""
    for service in SERVICES:
        command = [
            *(sys.executable, "-m", "pip_audit", "-r", str(lock_path(image)), "--require-hashes"),
            *("--disable-pip", "--progress-spinner", "off", "-f", "json", "-s", service),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        try:
            found = json.loads(done.stdout)["dependencies"]
        except (ValueError, LookupError):
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            sys.stdout.write(f"{service}: no database reached: {reason[:200]}\n")
            continue
        unknown = [package["name"] for package in found if "skip_reason" in package]
        if len(unknown) == len(found):
            reason = found[0]["skip_reason"] if found else "no packages"
            sys.stdout.write(
                f"{service}: no database reached: of {len(found)} packages none is known ({reason})\n"
            )
            continue
        return _judge(service, found, unknown)
    sys.stdout.write("NOTHING WAS AUDITED: no vulnerability database could be reached from here\n")
    return 2


def _judge(service: str, found: list[dict[str, object]], unknown: list[str]) -> int:
    vulnerable = [package for package in found if package.get("vulns")]
    for package in vulnerable:
        ids = ", ".join(str(entry["id"]) for entry in package["vulns"])  # type: ignore[attr-defined]
        sys.stdout.write(f"{package['name']} {package['version']}: {ids}\n")
    sys.stdout.write(
        f"{service}: {len(found) - len(unknown)} packages looked up, {len(vulnerable)} vulnerable, "
        f"{len(unknown)} not known: {', '.join(unknown) or 'none'}\n"
    )
    return 1 if vulnerable else 2 if unknown else 0


def main() -> int:
    """Run one command; return its exit status."""
    commands = {"lock": lock, "licences": licences, "bounds": bounds, "audit": lambda: audit(IMAGES[-1])}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:  # one command
        sys.stderr.write(__doc__ or "")
        return 2
    return commands[sys.argv[1]]()


if __name__ == "__main__":
    raise SystemExit(main())
