"""Safe reading of untrusted HDF5: nothing leads out of the file, and nothing is larger than the file can hold.

Links, external storage and filters that need a plugin are rejected. Sizes are checked before memory is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FILTERS = (1, 2, 3, 32_000)  # deflate, shuffle, fletcher32, lzf: part of h5py
_MAX_CHUNK_BYTES = 1 << 26
_MAX_ATTRIBUTE_BYTES = 1 << 20
_MAX_TEXT_BYTES = 256
_MAX_GROWTH = 1200  # deflate cannot do better than 1032


def child(parent: h5py.Group, name: str, where: str) -> Any:  # noqa: ANN401  # group or dataset
    """Return the group or dataset of a name, None if there is none; a link is rejected, not followed."""
    if name not in list(parent):  # `in parent` would follow links
        return None
    link = parent.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        msg = f"{where} is a {type(link).__name__}; the data must be in this file. Build the file again."
        raise DataError(msg)
    return parent[name]


def attributes(group: h5py.Group, names: Iterable[str], where: str) -> dict[str, Any]:
    """Return the named attributes that exist, one value each."""
    values = {}
    for name in names:
        if name not in group.attrs:
            continue
        stored = group.attrs.get_id(name)
        if stored.shape != () or stored.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            msg = f"{where}: {name} must be one short value, got shape {stored.shape}"
            raise DataError(msg)
        values[name] = group.attrs[name]
    return values


def texts(
    group: h5py.Group, name: str, where: str, most: int, longest: int = _MAX_TEXT_BYTES
) -> list[str] | None:
    """Return a column of at most `most` short texts, None if there is no such column."""
    dataset = child(group, name, where)
    if dataset is None:
        return None
    fits = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind == "S" and len(dataset.shape) == 1
    if not fits or dataset.size > most or dataset.dtype.itemsize > longest:
        msg = f"{where} must be a column of at most {most} short texts, got {dataset}. Build the file again."
        raise DataError(msg)
    check_storage(dataset, where)
    return [text.decode("utf-8") for text in dataset[:].tolist()]


def check_storage(dataset: h5py.Dataset, where: str) -> None:
    """Reject data outside the file, filters that need a plugin, and sizes the file cannot hold."""
    created = dataset.id.get_create_plist()
    filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    chunk = int(np.prod(dataset.chunks or (1,))) * dataset.dtype.itemsize
    nbytes, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    faults = {
        "the data must be in this file": dataset.is_virtual or bool(dataset.external),
        "filters must be gzip, shuffle, fletcher32, lzf": any(f not in _FILTERS for f in filters),
        f"at most {MAX_ROWS:,} rows are allowed": dataset.size > MAX_ROWS,
        f"chunks must be at most {_MAX_CHUNK_BYTES:,} bytes": chunk > _MAX_CHUNK_BYTES,
        "there are fewer bytes than the rows need": nbytes > _MAX_GROWTH * max(stored, 1)
        and dataset.size > 0,
    }
    for rule, broken in faults.items():
        if broken:
            msg = (
                f"{where}: {rule}, got {dataset.size:,} rows in {stored:,} bytes, filters {filters}. "
                "Build the file again."
            )
            raise DataError(msg)


def set_attributes(path: Path, group: str, **values: str) -> None:
    """Set attributes of a group of a file of our own."""
    with h5py.File(path, "r+") as file:
        file[group].attrs.update(values)
