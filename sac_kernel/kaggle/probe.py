"""The probe: a diagnostic kernel, with its dataset, for questions that only Kaggle can answer."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files
from sac_kernel.kaggle.client import FINGERPRINT

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "probe_manifest.json"
_ARCHIVES = (".pt", ".zip", ".npz", ".whl")
_PLAIN = (".state", ".h5", ".json", ".csv")


def stage_probe(folder: Path, notebook: Path, owner: str, name: str, accelerator: str) -> str:
    """Write kernel and dataset of the probe into `folder`; return the content hash of the dataset.

    The dataset has one small file of each suffix that Kaggle might unpack or change.
    """
    if folder.exists():
        shutil.rmtree(folder)
    dataset, slug = folder / "dataset", f"{name}-probe"
    contents = {f"archive_{s[1:]}{s}": _archive(s) for s in _ARCHIVES}
    contents |= {f"plain_{s[1:]}{s}": f"sent as {s}\n".encode() for s in _PLAIN}
    for file, content in contents.items():
        files.write_bytes(dataset / file, content)
    hashes = {file: files.sha256(content) for file, content in contents.items()}
    files.write_json(dataset / MANIFEST, hashes)
    files.write_json(dataset / FINGERPRINT, {"content_hash": (digest := files.content_hash(hashes))})
    data = {"id": f"{owner}/{slug}-data", "title": f"{slug}-data".replace("-", " ")}
    files.write_json(dataset / "dataset-metadata.json", {**data, "licenses": [{"name": "other"}]})
    shutil.copyfile(notebook, folder / notebook.name)
    kernel: dict[str, Any] = {
        "id": f"{owner}/{slug}",
        "title": slug.replace("-", " "),
        "code_file": notebook.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": accelerator != "none",
        "enable_internet": False,
        "machine_shape": "" if accelerator == "none" else accelerator,
        "dataset_sources": [data["id"]],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
    files.write_text(folder / "kernel-metadata.json", json.dumps(kernel, indent=2) + "\n")
    return digest


def _archive(suffix: str) -> bytes:
    """Return a zip archive: files of these suffixes are zip archives."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"inside_{suffix[1:]}.txt"), f"sent in {suffix}\n")
    return content.getvalue()
