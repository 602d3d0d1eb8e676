"""Kernels: the rules of a push, versions and their sessions, outputs and logs."""

from __future__ import annotations

import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.kaggle_standin import rules as texts
from tests.kaggle_standin.rules import RpcError, Rules, page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kaggle_standin.datasets import DatasetShelf

Json = dict[str, Any]
ACTIVE = ("QUEUED", "RUNNING")
# What a pull gives back as it was pushed.
STORED = (
    "language", "kernelType", "isPrivate", "enableGpu", "enableTpu", "enableInternet",
    "datasetDataSources", "kernelDataSources", "machineShape",
)  # fmt: skip


@dataclass
class Session:
    """One pushed version and its run; `folder` holds its input, working folder and log."""

    ref: str
    number: int
    saved: Json
    folder: Path
    mounts: list[tuple[str, Path]]
    status: str = "QUEUED"
    failure_message: str = ""
    statuses: list[str] = field(default_factory=lambda: ["QUEUED"])
    output_files: list[str] = field(default_factory=list)
    started_s: float | None = None
    ended_s: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    deleted: bool = False

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE

    @property
    def uses_gpu(self) -> bool:
        """Whether it holds a GPU session: the switch, or a machine shape alone, asks for one."""
        shape = self.saved.get("machineShape", "")
        return bool(self.saved.get("enableGpu")) or shape == texts.GPU_SHAPE

    @property
    def working(self) -> Path:
        """Its working folder, the output once it is COMPLETE."""
        return self.folder / "working"

    def elapsed_s(self) -> float:
        """Return seconds it ran so far."""
        if self.started_s is None:
            return 0.0
        return (self.ended_s if self.ended_s is not None else time.monotonic()) - self.started_s

    def move_to(self, status: str, message: str = "") -> None:
        """Enter `status`."""
        self.status, self.failure_message = status, message
        self.statuses.append(status)

    def log_records(self) -> list[str]:
        """Return the log so far, one JSON object per record."""
        path = self.folder / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def log(self) -> str:
        """Return the log as the platform sends it: a JSON list, '' before the first record."""
        records = self.log_records()
        return "[" + "\n,".join(records) + "\n]" if records else ""


@dataclass
class Kernel:
    """A kernel; `sessions` are its versions that ran, oldest first."""

    ref: str
    kernel_id: int
    title: str
    sessions: list[Session] = field(default_factory=list)
    saved: Json = field(default_factory=dict)
    versions: int = 0

    @property
    def latest(self) -> Session | None:
        """The newest session."""
        return self.sessions[-1] if self.sessions else None


class KernelShelf:
    """All kernels of the platform; the caller holds the platform's lock."""

    def __init__(
        self, root: Path, rules: Rules, shelf: DatasetShelf, start: Callable[[Session], None]
    ) -> None:
        self._root, self._rules, self._datasets, self._start = root, rules, shelf, start
        self.kernels: dict[str, Kernel] = {}
        self.gpu_used_before_s = 0.0
        self._gone: list[Session] = []
        self._next_id = 1000

    # -- push

    def save(self, user: str, body: Json) -> Json:
        """Answer SaveKernel: check the rules, store a version, start its session."""
        if len(body.get("text", "").encode()) > texts.SOURCE_LIMIT_BYTES:
            raise RpcError(400, texts.SOURCE_LIMIT_TEXT)
        ref, existing = self._address(user, body)
        mounts, invalid = self._sources(user, body)
        kernel = existing or Kernel(ref, self._next_id, body.get("newTitle", ""))
        number = kernel.versions + 1
        folder = self._root / "kernels" / f"{kernel.kernel_id}" / str(number)
        body = self._hardware(body)
        session = Session(ref, number, body, folder, mounts)
        save_only = body.get("kernelExecutionType") == "QUICK_SAVE"
        if session.uses_gpu and not save_only and (error := self._gpu_refusal()):
            return {"error": error}
        self._next_id += existing is None
        self.kernels[ref] = kernel
        kernel.versions, kernel.saved = number, body
        kernel.title = body.get("newTitle") or kernel.title
        if not save_only:
            folder.mkdir(parents=True)
            kernel.sessions.append(session)
            self._start(session)
        url = f"https://www.kaggle.com/code/{ref}"
        answer = {"ref": f"/{ref}", "url": url, "versionNumber": number}
        return {**answer, "kernelId": kernel.kernel_id, **invalid}

    def _address(self, user: str, body: Json) -> tuple[str, Kernel | None]:
        """Return where a push goes: to the kernel it names, else to the slug of its title."""
        if "id" in body:
            known = [k for k in self.kernels.values() if k.kernel_id == int(body["id"])]
            if not known:
                raise RpcError(404, "Notebook not found")
            return known[0].ref, known[0]
        owner, _, slug = body.get("slug", "").lower().rpartition("/")
        if owner != user:
            raise RpcError(404, "Notebook not found")
        existing = self.kernels.get(f"{owner}/{slug}")
        if existing is None:
            slug = slugify(body.get("newTitle") or slug)
        ref = f"{owner}/{slug}"
        if existing is None and ref in self.kernels:
            raise RpcError(409, "Conflict: the title is used by another notebook of yours")
        if ref in self._datasets.datasets:
            raise RpcError(409, "Conflict: the slug is used by a dataset of yours")
        return ref, existing

    def _sources(self, user: str, body: Json) -> tuple[list[tuple[str, Path]], Json]:
        """Return (mount path, folder) of every valid source, and the lists of invalid ones."""
        mounts, bad_datasets, bad_kernels = [], [], []
        for source in body.get("datasetDataSources", []):
            dataset = self._datasets.visible(user, _ref(source))  # a version pin is ignored
            if dataset is None or dataset.mounted is None:
                bad_datasets.append(source)
            else:
                mounts.append((self._mount("datasets", dataset.ref), dataset.mounted.folder))
        for source in body.get("kernelDataSources", []):
            kernel = self.kernels.get(_ref(source))
            latest = kernel.latest if kernel else None
            if latest is None or latest.status != "COMPLETE":
                bad_kernels.append(source)
            else:
                mounts.append((self._mount("notebooks", latest.ref), latest.working))
        invalid = {
            "invalidDatasetSources": bad_datasets,
            "invalidKernelSources": bad_kernels,
            "invalidCompetitionSources": list(body.get("competitionDataSources", [])),
            "invalidModelSources": list(body.get("modelDataSources", [])),
            "invalidTags": [t for t in body.get("categoryIds", []) if t not in self._rules.tags],
        }
        return mounts, {name: found for name, found in invalid.items() if found}

    def _mount(self, kind: str, ref: str) -> str:
        flat = self._rules.mount_scheme == "flat"
        return ref.split("/")[1] if flat else f"{kind}/{ref}"

    def _hardware(self, body: Json) -> Json:
        """Return the push with the machine it really gets: unknown and retired shapes become T4."""
        shape = str(body.get("machineShape", ""))
        if shape and not shape.startswith("Tpu"):
            body = {**body, "machineShape": texts.GPU_SHAPE}
        spent = self.gpu_used_s() >= self._rules.gpu_quota_s
        if spent and self._rules.without_quota == "cpu":
            body = {**body, "enableGpu": False, "machineShape": ""}
        return body

    def _gpu_refusal(self) -> str:
        """Return why no GPU session can start now, '' if one can."""
        if self.gpu_used_s() >= self._rules.gpu_quota_s:
            return texts.QUOTA_TEXT
        busy = sum(s.active and s.uses_gpu for s in self.sessions())
        return texts.GPU_LIMIT_TEXT if busy >= texts.MAX_GPU_RUNS else ""

    # -- after the push

    def session_status(self, user: str, body: Json) -> Json:
        """Answer GetKernelSessionStatus."""
        session = self.session(user, body)
        if session is None:
            return {"status": "NEW_SCRIPT"}
        answer = {"status": session.status}
        message = session.failure_message
        return {**answer, "failureMessage": message} if message else answer

    def session_output(self, user: str, body: Json) -> Json:
        """Answer ListKernelSessionOutput; the server turns `path` into an address."""
        session = self.session(user, body)
        if session is None:
            return {}
        names: list[object] = [*session.output_files[: texts.OUTPUT_FILE_LIMIT]]
        shown, token = page(names, body)
        files = [{"fileName": n, "path": f"{session.folder.parent.name}/{session.number}/{n}"} for n in shown]
        return {"files": files, "log": session.log(), "nextPageToken": token}

    def list_files(self, user: str, body: Json) -> Json:
        """Answer ListKernelFiles."""
        session = self.session(user, body)
        names = session.output_files[: texts.OUTPUT_FILE_LIMIT] if session else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        shown: list[object] = [
            {"name": n, "size": (session.working / n).stat().st_size, "creationDate": now}
            for n in names
            if session
        ]
        files, token = page(shown, body)
        return {"files": files, "nextPageToken": token}

    def get(self, user: str, body: Json) -> Json:
        """Answer GetKernel: what is stored, with the image pinned."""
        kernel = self._readable(user, {**body, "kernelSlug": body["kernelSlug"].split("/")[0]})
        saved = kernel.saved
        slug = kernel.ref.split("/")[1]
        return {
            "metadata": {
                "id": kernel.kernel_id,
                "ref": kernel.ref,
                "title": kernel.title,
                "currentVersionNumber": kernel.versions,
                "dockerImage": saved.get("dockerImage") or "kaggle-image@sha256:" + 64 * "0",
                **{name: saved[name] for name in STORED if name in saved},
            },
            "blob": {
                "source": saved.get("text", ""),
                "language": saved.get("language", "python"),
                "kernelType": saved.get("kernelType", "script"),
                "slug": slug,
            },
        }

    def delete(self, user: str, body: Json) -> Json:
        """Answer DeleteKernel: its runs are stopped, outputs and logs are lost."""
        kernel = self._readable(user, body)
        del self.kernels[kernel.ref]
        for session in kernel.sessions:
            session.deleted = True
            session.cancel.set()
            if not session.active:  # an active one is removed when its process is gone
                shutil.rmtree(session.folder, ignore_errors=True)
        self._gone += kernel.sessions
        return {}

    def quota(self, _user: str, _body: Json) -> Json:
        """Answer GetAcceleratorQuotaStatistics; refreshed on Saturday 00:00 UTC."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        refresh = today + timedelta(days=(5 - today.weekday()) % 7 or 7)
        gpu = {"timeUsed": self.gpu_used_s(), "totalTimeAllowed": self._rules.gpu_quota_s}
        tpu = {"timeUsed": 0.0, "totalTimeAllowed": 72000.0}
        return {
            "quotaRefreshTime": refresh.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "gpuQuota": {name: f"{round(seconds)}s" for name, seconds in gpu.items()},
            "tpuQuota": {name: f"{round(seconds)}s" for name, seconds in tpu.items()},
        }

    # -- lookups

    def sessions(self) -> list[Session]:
        """Return every session, those of deleted kernels too."""
        return [s for k in self.kernels.values() for s in k.sessions] + self._gone

    def gpu_used_s(self) -> float:
        """Return the wall clock of all GPU sessions, counted once however many cards."""
        return self.gpu_used_before_s + sum(s.elapsed_s() for s in self.sessions() if s.uses_gpu)

    def session(self, user: str, body: Json) -> Session | None:
        """Return the session a request asks about: the newest, or the version of its label."""
        kernel = self._readable(user, body)
        label = str(body.get("versionLabel") or "")
        if not label.isdigit():
            return kernel.latest
        found = [s for s in kernel.sessions if s.number == int(label)]
        if not found:
            raise RpcError(404, "Not found")
        return found[0]

    def output_path(self, address: str) -> Path | None:
        """Return the file behind the `path` of an output listing, None if it is gone."""
        kernel_id, _, rest = address.partition("/")
        number, _, name = rest.partition("/")
        for kernel in self.kernels.values():
            for session in kernel.sessions:
                mine = (str(kernel.kernel_id), str(session.number)) == (kernel_id, number)
                if mine and name in session.output_files:
                    return session.working / name
        return None

    def _readable(self, user: str, body: Json) -> Kernel:
        """Return a kernel of `user`; all are private, and a missing one answers 403 as well."""
        kernel = self.kernels.get(f"{body.get('userName', '')}/{body.get('kernelSlug', '')}")
        if kernel is None or body.get("userName") != user:
            raise RpcError(403, texts.KERNEL_DENIED_TEXT)
        return kernel


def slugify(title: str) -> str:
    """Return the slug the platform derives from a title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _ref(source: str) -> str:
    return "/".join(source.split("/")[:2])
