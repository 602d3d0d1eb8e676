"""For tests: small datasets and kernels in the form the client pushes, rules, waiting."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def write_dataset(folder: Path, ref: str, files: dict[str, bytes]) -> Path:
    """Write a dataset folder for `kaggle datasets create` and `version`; other files go away."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    slug = ref.split("/")[1]
    metadata = {"id": ref, "title": slug.replace("-", " "), "licenses": [{"name": "unknown"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_kernel(folder: Path, ref: str, source: str | list[str], **metadata: Any) -> Path:
    """Write a folder for `kaggle kernels push`: a script (text) or a notebook (its cells)."""
    folder.mkdir(parents=True, exist_ok=True)
    notebook = isinstance(source, list)
    settings = {
        "id": ref,
        "title": ref.split("/")[1].replace("-", " "),
        "code_file": "kernel.ipynb" if notebook else "kernel.py",
        "language": "python",
        "kernel_type": "notebook" if notebook else "script",
        "is_private": True,
        "enable_gpu": False,
        "enable_internet": False,
        **metadata,
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(settings))
    text = json.dumps(notebook_of(source)) if isinstance(source, list) else source
    (folder / str(settings["code_file"])).write_text(text)
    return folder


def notebook_of(cells: list[str], kernelspec: str = "python3") -> dict[str, Any]:
    """Return a notebook of code cells; without a `kernelspec` name it has none."""
    spec = {"name": kernelspec, "display_name": "Python 3", "language": "python"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": spec, "language_info": {"name": "python"}} if kernelspec else {},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": cell,
            }
            for number, cell in enumerate(cells)
        ],
    }


def rules(**settings: object) -> pytest.MarkDecorator:
    """Return the mark that starts the fixture's platform with these fields of `Rules`."""
    return pytest.mark.parametrize("kaggle", [settings], indirect=True, ids=["-".join(settings)])


def wait_for(path: Path, timeout: float = 30.0) -> str:
    """Return the text of a file as soon as it ends with a line end."""
    deadline = time.monotonic() + timeout
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} did not appear within {timeout:g} s"
        time.sleep(0.02)
    return path.read_text()
