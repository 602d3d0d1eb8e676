"""Blobs and datasets: uploads that can be resumed, versions, processing delays, access."""

from __future__ import annotations

import shutil
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.kaggle_standin import archives
from tests.kaggle_standin.rules import RpcError, Rules, page

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]


@dataclass
class Blob:
    """One upload; `path` grows until it has `size` bytes."""

    token: str
    name: str
    size: int
    path: Path

    @property
    def received(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size

    @property
    def complete(self) -> bool:
        """Whether every byte arrived."""
        return self.received == self.size

    def write(self, offset: int, content: bytes) -> None:
        """Put `content` at `offset` and cut what lay behind it."""
        with self.path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(content)
            stream.truncate()


@dataclass
class DatasetVersion:
    """One version: its unpacked files and the moment (monotonic clock) it is READY."""

    number: int
    folder: Path
    notes: str
    ready_at_s: float

    @property
    def ready(self) -> bool:
        """Whether processing is over."""
        return time.monotonic() >= self.ready_at_s

    def files(self) -> list[Path]:
        """Return its files, sorted."""
        return sorted(p for p in self.folder.rglob("*") if p.is_file())


@dataclass
class Dataset:
    """A dataset and the versions that were not deleted, oldest first."""

    ref: str
    title: str
    private: bool = True
    licence: str = "unknown"
    versions: list[DatasetVersion] = field(default_factory=list)

    @property
    def latest(self) -> DatasetVersion:
        """The newest version, ready or not."""
        return self.versions[-1]

    @property
    def mounted(self) -> DatasetVersion | None:
        """The version a kernel pushed now gets: the newest that is READY."""
        ready = [version for version in self.versions if version.ready]
        return ready[-1] if ready else None


class DatasetShelf:
    """All datasets and blobs of the platform; the caller holds the platform's lock."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self._root, self._rules = root, rules
        self.blobs: dict[str, Blob] = {}
        self.datasets: dict[str, Dataset] = {}
        self.deleted: set[str] = set()
        (root / "blobs").mkdir(parents=True)

    # -- blobs

    def start_upload(self, _user: str, body: Json) -> Json:
        """Answer StartBlobUpload; the server adds the address of the upload."""
        token = uuid.uuid4().hex
        path = self._root / "blobs" / token
        path.touch()
        self.blobs[token] = Blob(token, body["name"], int(body.get("contentLength", 0)), path)
        return {"token": token}

    # -- datasets

    def create(self, user: str, body: Json) -> Json:
        """Answer CreateDataset."""
        ref = f"{body['ownerSlug']}/{body['slug']}"
        if body["ownerSlug"] != user:
            raise RpcError(403, "Permission 'datasets.create' was denied")
        if ref in self.deleted:  # a deleted slug stays reserved
            raise RpcError(500, "Internal Server Error")
        if ref in self.datasets:
            title = body.get("title", "")
            return _failed(f'The requested title "{title}" is already in use by a dataset.')
        blobs, error = self._uploaded(body)
        if error:
            return _failed(error)
        dataset = Dataset(ref, body.get("title", ""), bool(body.get("isPrivate", False)))
        dataset.licence = body.get("licenseName", "unknown")
        self.datasets[ref] = dataset
        self._add_version(dataset, blobs, "")
        return self._done(ref, body)

    def create_version(self, user: str, body: Json) -> Json:
        """Answer CreateDatasetVersion: each version is the full set of files."""
        dataset = self._owned(user, body)
        if not dataset.latest.ready:  # the version before is still being processed
            raise RpcError(403, "Permission 'datasets.update' was denied")
        inner = body.get("body", {})
        blobs, error = self._uploaded(inner)
        if error:
            return _failed(error)
        old = list(dataset.versions)
        self._add_version(dataset, blobs, inner.get("versionNotes", ""))
        if inner.get("deleteOldVersions"):
            for version in old:
                shutil.rmtree(version.folder, ignore_errors=True)
            dataset.versions = dataset.versions[-1:]
        return self._done(dataset.ref, inner)

    def add(self, ref: str, files: dict[str, bytes], *, private: bool = True) -> Dataset:
        """Put a dataset (or its next version) there without the client; ready at once."""
        dataset = self.datasets.setdefault(ref, Dataset(ref, ref.split("/")[1], private))
        blobs = []
        for name, content in files.items():
            token = self.start_upload("", {"name": name, "contentLength": len(content)})["token"]
            self.blobs[token].write(0, content)
            blobs.append(self.blobs[token])
        self._add_version(dataset, blobs, "")
        dataset.latest.ready_at_s = 0.0
        return dataset

    def status(self, user: str, body: Json) -> Json:
        """Answer GetDatasetStatus: the state of the newest version."""
        dataset = self._readable(user, body)
        return {"status": "READY" if dataset.latest.ready else "BLOBS_RECEIVED"}

    def get(self, user: str, body: Json) -> Json:
        """Answer GetDataset: its version number is that of the newest version that is ready."""
        dataset = self._readable(user, body)
        return {
            "ref": dataset.ref,
            "title": dataset.title,
            "isPrivate": dataset.private,
            "currentVersionNumber": dataset.mounted.number if dataset.mounted else 0,
        }

    def metadata(self, user: str, body: Json) -> Json:
        """Answer GetDatasetMetadata."""
        dataset = self._readable(user, body)
        owner, slug = dataset.ref.split("/")
        info = {"datasetSlug": slug, "ownerUser": owner, "isPrivate": dataset.private}
        return {"info": {**info, "licenses": [{"name": dataset.licence}]}}

    def list_files(self, user: str, body: Json) -> Json:
        """Answer ListDatasetFiles."""
        version = self.readable_version(user, body)
        shown: list[object] = [
            {
                "name": path.relative_to(version.folder).as_posix(),
                "totalBytes": path.stat().st_size,
                "creationDate": datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            }
            for path in version.files()
        ]
        files, token = page(shown, body)
        return {"datasetFiles": files, "nextPageToken": token}

    def delete(self, user: str, body: Json) -> Json:
        """Answer DeleteDataset: its slug stays reserved."""
        dataset = self._owned(user, body)
        del self.datasets[dataset.ref]
        self.deleted.add(dataset.ref)
        return {}

    def readable_version(self, user: str, body: Json) -> DatasetVersion:
        """Return the version a listing or download asks for, by default the newest READY one."""
        dataset = self._readable(user, body)
        wanted = body.get("datasetVersionNumber")
        found = [v for v in dataset.versions if v.ready and wanted in (None, v.number)]
        if not found:
            raise RpcError(404, "Not found")
        return found[-1]

    def visible(self, user: str, ref: str) -> Dataset | None:
        """Return the dataset if `user` may read it, else None."""
        dataset = self.datasets.get(ref)
        if dataset is None or (dataset.private and ref.split("/")[0] != user):
            return None
        return dataset

    # -- helpers

    def _add_version(self, dataset: Dataset, blobs: list[Blob], notes: str) -> None:
        number = dataset.latest.number + 1 if dataset.versions else 1
        folder = self._root / "datasets" / dataset.ref / str(number)
        archives.store([(b.name, b.path) for b in blobs], folder, self._rules.archive_layout)
        ready_at_s = time.monotonic() + self._rules.dataset_delay_s
        dataset.versions.append(DatasetVersion(number, folder, notes, ready_at_s))

    def _uploaded(self, body: Json) -> tuple[list[Blob], str]:
        """Return the blobs a request names, and an error text if one is unknown or incomplete."""
        blobs = []
        for file in body.get("files", []):
            blob = self.blobs.get(file.get("token", ""))
            if blob is None or not blob.complete:
                return [], "One or more files were not uploaded."
            blobs.append(blob)
        return blobs, ""

    def _done(self, ref: str, body: Json) -> Json:
        answer: Json = {"status": "ok", "ref": ref, "url": f"https://www.kaggle.com/datasets/{ref}"}
        wrong = [tag for tag in body.get("categoryIds", []) if tag not in self._rules.tags]
        return {**answer, "invalidTags": wrong} if wrong else answer

    def _readable(self, user: str, body: Json) -> Dataset:
        ref = f"{body.get('ownerSlug', '')}/{body.get('datasetSlug', '')}"
        dataset = self.visible(user, ref)
        if dataset is not None:
            return dataset
        if body.get("ownerSlug") == user:
            raise RpcError(404, "Not found")
        raise RpcError(403, "Permission 'datasets.get' was denied")

    def _owned(self, user: str, body: Json) -> Dataset:
        if body.get("ownerSlug") != user:
            raise RpcError(403, "Permission 'datasets.update' was denied")
        return self._readable(user, body)


def _failed(error: str) -> Json:
    return {"status": "error", "error": error}
