"""What the platform does to uploaded files: archives are unpacked, and so are torch's zip files."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

# Zip files under another name: they become a folder of that very name.
ZIP_IN_DISGUISE = (".pt", ".pth", ".npz")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def store(files: list[tuple[str, Path]], target: Path, layout: str) -> None:
    """Lay out uploaded `files` (name, content) under `target` as the platform mounts them."""
    target.mkdir(parents=True)
    only_one = len(files) == 1
    for name, content in files:
        path = target / safe_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = _archive_folder(path, content)
        if folder is None:
            _store_plain(path, content)
        elif layout == "whole" and folder != path:
            shutil.copyfile(content, path)
        else:
            at_root = layout == "root" and only_one and folder != path
            _unpack(content, target if at_root else folder, folder == path)


def safe_name(name: str) -> PurePosixPath:
    """Return `name` as a relative path; a name that leads outside is a ValueError."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        msg = f"file name must stay inside its folder, got {name!r}"
        raise ValueError(msg)
    return path


def _archive_folder(path: Path, content: Path) -> Path | None:
    """Return the folder an archive turns into, None for other files."""
    name = path.name.lower()
    if name.endswith(ZIP_IN_DISGUISE) and zipfile.is_zipfile(content):
        return path
    if name.endswith(".zip") and zipfile.is_zipfile(content):
        return path.with_name(path.name[: -len(".zip")])
    for suffix in TAR_SUFFIXES:
        if name.endswith(suffix) and tarfile.is_tarfile(content):
            return path.with_name(path.name[: -len(suffix)])
    return None


def _store_plain(path: Path, content: Path) -> None:
    if path.suffix.lower() != ".gz":
        shutil.copyfile(content, path)
        return
    with gzip.open(content) as source, path.with_suffix("").open("wb") as target:
        shutil.copyfileobj(source, target)


def _unpack(content: Path, folder: Path, disguised: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if tarfile.is_tarfile(content):
        with tarfile.open(content) as archive:
            archive.extractall(folder, filter="data")
        return
    with zipfile.ZipFile(content) as archive:
        archive.extractall(folder)
    entries = list(folder.iterdir())
    if disguised and len(entries) == 1 and entries[0].is_dir():  # torch's one top folder
        for entry in list(entries[0].iterdir()):
            entry.rename(folder / entry.name)
        entries[0].rmdir()
