"""Wheels of packages that Kaggle's images lack, for a kernel without internet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sac_kernel.core import files

if TYPE_CHECKING:
    from collections.abc import Mapping

WHEELS = {
    "arch-8.0.0-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl": (
        "13cbf04d45ecbee7578704a232f897cd02794d845f877158fb2838e6fb637887"
    ),
    "arch-8.0.0-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl": (
        "8c1f1d8abefab2f69f7fdbef08cc18c8377667d3b8d197a1f301d97f0e686cd2"
    ),
    "hmmlearn-0.3.3-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": (
        "6cd27dc66bfe7f6ff77804f7dbfe42b35d18e21403eb2bdfef0de6ad3bd2368f"
    ),
    "hmmlearn-0.3.3-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": (
        "491f3bd9e3c01fa1201057e1de2c87039fed0e225ad562111ad4a0e25c40ef00"
    ),
}
"""File name -> SHA-256. The images have their dependencies."""

NEEDED_FOR = {"arch": "the SPA test", "hmmlearn": "the regime model of agent 3"}
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_TIMEOUT_S = 120.0


def fetch_wheels(cache: Path, wanted: Mapping[str, str] | None = None) -> tuple[list[Path], list[str]]:
    """Return the pinned wheels in `cache`, fetched with pip if need be, and the names of those not available.

    A file with another hash is not kept. Being offline is no error.
    """
    wanted = WHEELS if wanted is None else wanted
    missing = [name for name in wanted if not _is_right(cache / name, wanted[name])]
    for tag in sorted({_parts(name)[2] for name in missing}):
        _download([name for name in missing if _parts(name)[2] == tag], tag, cache, wanted)
    paths = [cache / name for name in wanted if _is_right(cache / name, wanted[name])]
    return paths, [name for name in wanted if cache / name not in paths]


def switched_off(missing: list[str]) -> list[str]:
    """Return one line for each package without a wheel, with what it switches off."""
    names = sorted({_parts(name)[0] for name in missing})
    return [
        f"{name}: no wheel, so {NEEDED_FOR.get(name, 'what needs it')} is off on Kaggle" for name in names
    ]


def _download(names: list[str], tag: str, cache: Path, wanted: Mapping[str, str]) -> None:
    pins = ["==".join(_parts(name)[:2]) for name in names]
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            "--no-deps",
            *("--retries", "0", "--timeout", "15", "--only-binary", ":all:", "--implementation", "cp"),
            *("--python-version", f"{tag[2]}.{tag[3:]}", "--abi", tag, *platforms, "--dest", folder, *pins),
        ]
        env = {**os.environ, "PIP_REQUIRE_HASHES": "0"}  # the hashes are checked here
        try:
            subprocess.run(command, env=env, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return
        for name in names:
            path = Path(folder) / name
            if _is_right(path, wanted[name]):
                files.write_bytes(cache / name, path.read_bytes())


def _parts(name: str) -> list[str]:
    """Return package, version, Python tag and the rest of a wheel's name."""
    return name.split("-")


def _is_right(path: Path, digest: str) -> bool:
    return path.is_file() and files.file_sha256(path) == digest
