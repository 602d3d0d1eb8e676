"""Versions of packages, the code's hash, and wheels of packages that the image lacks."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import platform
import sys
import tempfile
import zipfile
from pathlib import Path

from sac_kernel import inlined_files
from sac_kernel.core import files
from sac_kernel.core.paths import CODE_MANIFEST, input_files, paths


def add_wheels() -> dict[str, str]:
    """Make packages that the image lacks importable from the wheels of the code dataset.

    Returns package -> 'installed', 'from a wheel' or why it is missing. It needs no internet and no pip: a
    wheel for this Python with the manifest's hash is unpacked into a temporary folder at the end of sys.path.
    """
    root, status = paths().input_root, dict[str, str]()
    for index in input_files(root, CODE_MANIFEST)[:1] if root else []:
        wheels = json.loads(index.read_text(encoding="utf-8")).get("wheels", {})
        for name, digest in sorted(wheels.items()):
            package, _, tag = name.split("-")[:3]
            if importlib.util.find_spec(package):
                status.setdefault(package, "installed")
            elif tag == f"cp{sys.version_info.major}{sys.version_info.minor}":
                status[package] = _unpack_wheel(index.parent / name, digest)
            else:
                status.setdefault(package, f"no wheel for Python {platform.python_version()}")
    return status


def versions() -> dict[str, str]:
    """Return Python, platform and package versions of this process, for headers and checkpoints."""
    names = ("numpy", "pandas", "h5py", "gymnasium", "numba", "matplotlib")
    packages = {"torch": _torch_version(), **{name: importlib.metadata.version(name) for name in names}}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def import_root() -> Path:
    """Return the folder that holds the package: what a worker process needs on its path."""
    return Path(__file__).resolve().parents[2]


def code_hash() -> str:
    """Return the SHA-256 of the package's inlined files, in order, with LF line ends."""
    folder = Path(__file__).resolve().parents[1]
    contents = {name: (folder / name).read_bytes().replace(b"\r\n", b"\n") for name in inlined_files()}
    return files.content_hash({name: files.sha256(content) for name, content in contents.items()})


def _torch_version() -> str:
    """Return torch's version with its build (2.13.0+cpu) if torch is loaded, else the package's.

    The metadata of torch's wheels on PyPI lacks the build, which does not justify loading torch.
    """
    loaded = sys.modules.get("torch")
    return str(loaded.__version__) if loaded else importlib.metadata.version("torch")


def _unpack_wheel(path: Path, digest: str) -> str:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        return f"{path.name} is missing or differs from the published one"
    folder = tempfile.mkdtemp(prefix="sac_wheel_")
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        wheel.extractall(folder)
    sys.path.append(folder)
    importlib.invalidate_caches()
    return "from a wheel"
