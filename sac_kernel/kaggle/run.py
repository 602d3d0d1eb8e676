"""One experiment on Kaggle, over as many sessions as it takes: publish, push, follow, fetch, resume.

Every step can be interrupted and repeated. `last_run.json` of the run's home records what was prepared; the state of a
run comes from Kaggle and from the fetched manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files, interrupts, locks, paths
from sac_kernel.core.errors import CheckpointError, ConfigError, KaggleError
from sac_kernel.core.homes import DEFAULT_NAME
from sac_kernel.experiment import checkpoint, output_layout
from sac_kernel.kaggle.client import FINGERPRINT, KaggleClient, Published, Pushed
from sac_kernel.kaggle.state_export import export_states
from sac_kernel.stats import ledgers, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from sac_kernel.core.homes import Home
    from sac_kernel.experiment.run_config import RunConfig

OWNER_PLACEHOLDER = "INSERT_OWNER"
KERNEL_METADATA = "kernel-metadata.json"
ACCELERATORS = ("NvidiaTeslaT4", "none")
STATUSES = {
    "QUEUED": "waiting for a machine",
    "RUNNING": "running",
    "CANCEL_REQUESTED": "being cancelled",
    "NEW_SCRIPT": "saved, but not started",
    "COMPLETE": "complete",
    "ERROR": "failed",
    "CANCEL_ACKNOWLEDGED": "cancelled",
}
"""Every state of a session that the client knows, in words."""
ACTIVE = ("QUEUED", "RUNNING", "CANCEL_REQUESTED")
LEAST_SESSION_H = 0.5
_MARGIN_H = 0.25  # of the quota, for the start and the report
_LAST_RUN = "last_run.json"
_PUBLISHED = "published.json"  # dataset -> version known to hold a content
_INCOMING = ".incoming"
_NOT_FINGERPRINTED = (FINGERPRINT, "dataset-metadata.json")
_QUIET_S = 3600.0
_NOT_STARTED_S = 600.0


class KaggleRun:
    """The kernel and datasets of one experiment of one owner.

    Parameters
    ----------
    client : drives the kaggle command line
    owner, home : user name, and the folders of the experiment, whose name begins those of kernel and datasets
    outputs : where fetched files go
    say : where lines for the user go
    kind : last word of the kernel's name
    folder : of kernel-metadata.json; by default that of the home
    """

    def __init__(  # noqa: PLR0913  # who, which experiment, where
        self,
        client: KaggleClient,
        owner: str,
        home: Home,
        outputs: Path,
        *,
        say: Callable[[str], None],
        kind: str = "train",
        folder: Path | None = None,
    ) -> None:
        self.client, self.owner, self.home, self.name = client, owner, home, home.name
        self._kind, self.folder = kind, folder or home.kernel_folder
        self.outputs = outputs
        self._say = say

    @property
    def kernel(self) -> str:
        """Return 'owner/name-kind' of the kernel."""
        return f"{self.owner}/{self.name}-{self._kind}"

    @property
    def words(self) -> str:
        """Return the beginning of a command for this run."""
        named = "" if self.name == DEFAULT_NAME else f" --name {self.name}"
        return f"python build_kernel.py{named}"

    def dataset(self, kind: str) -> str:
        """Return 'owner/name-kind' of the data, code or state dataset."""
        return f"{self.owner}/{self.name}-{kind}"

    # -- publishing --------------------------------------------------------------------------------

    def publish(self, folders: Mapping[str, Path], *, allow_public: bool = False) -> dict[str, str]:
        """Publish staged folders (kind -> folder) whose content has changed, and wait until they are ready.

        Returns
        -------
        digests
            kind -> fingerprint of the content that Kaggle has.

        Raises
        ------
        KaggleError
            If a dataset of one of the names is public or not this project's: then nothing was uploaded.
        """
        interrupts.advise("Nothing was pushed. The same command goes on, and uploads only what is missing.")
        path = self.home.build / _PUBLISHED
        known: dict[str, Any] = files.read_json(path) if path.is_file() else {}
        digests = {}
        for kind, folder in folders.items():
            metadata = json.loads((folder / "dataset-metadata.json").read_text(encoding="utf-8"))
            files.write_json(folder / "dataset-metadata.json", {**metadata, "id": self.dataset(kind)})
            digests[kind] = fingerprint(folder)
            files.write_json(folder / FINGERPRINT, {"content_hash": digests[kind]})

        def check(kind: str) -> None:
            same = known.get(self.dataset(kind), {}).get("content_hash") == digests[kind]
            self.check_target(self.dataset(kind), known_as_ours=same, allow_public=allow_public)

        def publish(kind: str) -> Published:
            digest, seen = digests[kind], known.get(self.dataset(kind), {})
            version = seen["version"] if seen.get("content_hash") == digest else None
            return self.client.publish_dataset(folders[kind], digest, f"content {digest[:12]}", version)

        with ThreadPoolExecutor(len(folders)) as pool:
            list(pool.map(check, folders))
            for kind, done in zip(folders, pool.map(publish, folders), strict=True):
                known[done.ref] = {"version": done.version, "content_hash": digests[kind]}
                event = "published" if done.changed else "unchanged"
                self._say(f"{event:9} {done.ref}, version {done.version}")
        files.write_json(path, known)
        return digests

    def check_target(self, ref: str, *, known_as_ours: bool = False, allow_public: bool = False) -> None:
        """Raise KaggleError if a dataset exists that must not get these files."""
        private = self.client.is_private(ref)
        if private is None:
            return
        if not private and not allow_public:
            msg = (
                f"{ref} is public: everybody could read what is uploaded. Make it private at "
                f"kaggle.com/datasets/{ref}, choose another --name, or insist with --allow-public. Nothing was "
                "uploaded."
            )
            raise KaggleError(msg, "public")
        # A dataset without a ready version has no files that could be lost.
        if not known_as_ours and self.client.dataset_version(ref):
            mark = self.client.published_mark(ref, FINGERPRINT) or ""
            if len(mark) != 64:
                msg = (
                    f"{ref} exists and was not made by this project: a new version would hide its files. Choose "
                    "another --name, or rename that dataset. Nothing was uploaded."
                )
                raise KaggleError(msg, "foreign")

    def write_kernel(self, notebook: str, kinds: Iterable[str], accelerator: str) -> None:
        """Write the notebook and the kernel-metadata.json that belongs to it, as one step.

        In between there is no notebook, and the client refuses to push: what it sends always belongs together.
        """
        path = self.folder / KERNEL_METADATA
        metadata = kernel_metadata(self.home, self.owner, kinds, accelerator)
        with interrupts.deferred():
            if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != metadata:
                self.home.notebook.unlink(missing_ok=True)
                files.write_text(path, json.dumps(metadata, indent=2) + "\n")
            files.write_text(self.home.notebook, notebook)

    # -- the last run ------------------------------------------------------------------------------

    def last_run(self) -> dict[str, Any]:
        """Return the record of the session prepared last; {} if there is none."""
        path = self.home.build / _LAST_RUN
        last: dict[str, Any] = files.read_object(path) if path.is_file() else {}
        return last if last.get("kernel") == self.kernel else {}

    def prepare(
        self, parameters: Mapping[str, Any], run_id: str, digests: Mapping[str, str], *, fresh: bool
    ) -> None:
        """Record the session that is ready for `push` or for `kaggle kernels push`."""
        last = {
            "kernel": self.kernel,
            "run": run_id,
            "parameters": dict(parameters),
            "notebook_sha256": files.file_sha256(self.home.notebook),
            "datasets": dict(digests),
            "fetched": False,
            "fresh": fresh,
            "outputs": self._fetched_mark(),
        }
        files.write_json(self.home.build / _LAST_RUN, last)

    def stays_fresh(self) -> bool:
        """Return whether the session prepared last starts over and has not been fetched yet."""
        last = self.last_run()
        return bool(last.get("fresh")) and last["outputs"] == self._fetched_mark()

    def push(self) -> Pushed:
        """Push the kernel, which starts its run.

        Raises
        ------
        KaggleError
            If notebook or staged datasets are not what was built and published: nothing was pushed.
        """
        interrupts.advise(f"The push may have taken effect: {self.words} --follow shows it.")
        last = self.last_run() if self._kind == "train" else {}
        wrong = [
            k for k, digest in last.get("datasets", {}).items() if fingerprint(self.home.dataset(k)) != digest
        ]
        if last and files.file_sha256(self.home.notebook) != last["notebook_sha256"]:
            wrong.append("notebook")
        if wrong:
            msg = f"{self.home.build}: {', '.join(wrong)} changed after the build. Nothing was pushed: run it again."
            raise KaggleError(msg, "changed")
        pushed = self.client.push_kernel(self.folder)
        version = "" if pushed.version is None else f", version {pushed.version}"
        self._say(f"pushed    {self.kernel}{version}: {pushed.url}")
        return pushed

    def _fetched_mark(self) -> str:
        path = self.outputs / "manifest.json"
        return files.file_sha256(path) if path.is_file() else ""

    def _mark_ended(self) -> None:
        """Record that nothing more is to be fetched of the last run."""
        files.write_json(self.home.build / _LAST_RUN, {**self.last_run(), "fetched": True})

    def settle(self, *, fresh: bool = False) -> None:
        """Fetch a run that has ended since; go on if it left nothing.

        Raises
        ------
        KaggleError
            If it is still active, or its outputs cannot be fetched; with `fresh` the latter is only said.
        """
        if not self.last_run() or self.last_run()["fetched"]:
            return
        status = self.client.newest_status(self.kernel)
        if status.name in ("", "NEW_SCRIPT"):
            return  # prepared, never run
        if status.name in ACTIVE:
            msg = f"{self.kernel}: a run is {STATUSES[status.name]}. Follow it with --follow, or end it with --stop."
            raise KaggleError(msg, "active")
        if status.name != "COMPLETE":
            failure = status.failure or "no reason given"
            self._say(f"the last run {in_words(status.name)} ({failure}) and left no outputs")
            self._mark_ended()
        elif why := self._why_not_trained():
            self._say(f"the last run left no outputs. {why}")
            self._mark_ended()
        else:
            self._settle_complete(fresh=fresh)

    def _settle_complete(self, *, fresh: bool) -> None:
        try:
            self.fetch()
        except KaggleError as err:
            if err.kind != "content":
                raise
            if not fresh:
                msg = f"{err} If the run left none, --fresh starts over without them."
                raise KaggleError(msg, err.kind) from err
            self._say(f"--fresh: going on without the outputs of the last run. {err}")
            self._mark_ended()

    def follow(self, poll_s: float, sleep: Callable[[float], object] = interrupts.sleep) -> str:
        """Show status and log lines until the run ends, a line an hour at least; return its last status."""
        interrupts.advise(f"The run goes on at Kaggle: {self.words} --follow shows it again.")
        seen, last, started_s = 0, "", time.monotonic()
        said_s = started_s
        while True:
            status, now_s = self.client.kernel_status(self.kernel), time.monotonic()
            if status.name != last or now_s - said_s >= _QUIET_S:
                self._say(f"{in_words(status.name)}, {_after(now_s - started_s)}")
                last, said_s = status.name, now_s
            records = (
                self.client.kernel_log(self.kernel) if status.name not in ("QUEUED", "NEW_SCRIPT") else []
            )
            for line in _lines(records)[seen:]:
                self._say(f"  {line}")
                said_s = now_s
            seen = max(seen, len(_lines(records)))
            late = now_s - started_s >= _NOT_STARTED_S
            if status.name not in ACTIVE and (status.name != "NEW_SCRIPT" or late):
                if status.failure:
                    self._say(f"failure   {status.failure}")
                return status.name
            sleep(poll_s)

    def fetch(self) -> dict[str, Any]:
        """Fetch the outputs, check every hash against the manifest, and show a summary.

        The outputs of another run that are there already go to previous/.

        Raises
        ------
        KaggleError
            If nothing ran, the run is active, or it left no outputs; the message says which.
        """
        interrupts.advise("The outputs stay at Kaggle. The same command fetches what is missing.")
        status = self.client.newest_status(self.kernel)
        if status.name in ("", "NEW_SCRIPT"):
            msg = f"{self.kernel}: nothing has run yet under this name. Start a run: {self.words} --push --follow"
            raise KaggleError(msg, "absent")
        if status.name in ACTIVE:
            msg = f"{self.kernel}: the run is {STATUSES[status.name]}. It leaves its outputs at its end: "
            msg += f"{self.words} --follow"
            raise KaggleError(msg, "active")
        if status.name == "COMPLETE" and (why := self._why_not_trained()):
            msg = f"{self.kernel}: {why}"
            raise KaggleError(msg, "not_trained")
        with locks.hold(self.outputs):
            manifest = self._bring()
        ledgers.keep(self.home.ledgers, [self.outputs / trials.NAME])
        last = self.last_run() or {"kernel": self.kernel, "parameters": {}, "fresh": False, "outputs": ""}
        fetched = self._fetched_mark() != last["outputs"]
        files.write_json(self.home.build / _LAST_RUN, {**last, "fetched": fetched})
        count, size = len(manifest["files"]), sum(e["bytes"] for e in manifest["files"].values())
        self._say(f"fetched   {count} files, {size / 1e6:.1f} MB, all hashes match: {self.outputs}")
        self._say(
            f"run       {manifest['status']}, {manifest['episodes']} episodes, {manifest['updates']:,} updates"
        )
        return manifest

    def _bring(self) -> dict[str, Any]:
        """Fetch into a folder of its own; when it is whole, put it in the place of what is there."""
        incoming = self.outputs / _INCOMING
        try:
            there = files.read_object(self.outputs / "manifest.json")
        except CheckpointError:
            there = {}
        _link(self.outputs, incoming, there)
        manifest = self.client.fetch_outputs(self.kernel, incoming)
        ledgers.keep(self.home.ledgers, [self.outputs / trials.NAME])
        with interrupts.deferred():
            same = there and output_layout.run_id(there) == output_layout.run_id(manifest)
            if not same and (moved := output_layout.move_to_previous(self.outputs)) is not None:
                self._say(f"earlier   outputs of another run are in {moved}")
            for name in ("manifest.json", *manifest["files"]):  # the manifest first: cut off here, it goes on
                target = files.inside(self.outputs, name, "manifest.json")
                target.parent.mkdir(parents=True, exist_ok=True)
                (incoming / name).replace(target)
            shutil.rmtree(incoming, ignore_errors=True)
        return files.verify_manifest(self.outputs)

    def _why_not_trained(self) -> str:
        """Return the reason that a run without outputs logged; '' if it logged none."""
        lines = _lines(self.client.kernel_log(self.kernel))
        return next((line for line in reversed(lines) if line.startswith(paths.NOT_TRAINED)), "")

    def stop(self) -> None:
        """Delete the kernel on Kaggle: its run stops, its outputs and log are lost."""
        self.client.delete_kernel(self.kernel)
        self._say(f"deleted   {self.kernel}")

    # -- resuming ---------------------------------------------------------------------------------

    def unfinished(self, num_episodes: int) -> bool:
        """Return whether the fetched run stopped early or has fewer episodes than `num_episodes`."""
        path = self.outputs / "manifest.json"
        manifest = files.read_json(path) if path.is_file() else {}
        last = self.last_run()
        ours = bool(last) and manifest.get("run", last.get("run")) == last.get("run", manifest.get("run"))
        return (
            bool(manifest)
            and ours
            and (manifest["status"] == "cut" or int(manifest["episodes"]) < num_episodes)
        )

    def check_progress(self, before: int) -> int:
        """Return how far the fetched run is; raise KaggleError if an unfinished one is no further than `before`.

        It counts env steps and the bytes of finished folds, both of which only grow.
        """
        path = self.outputs / "manifest.json"
        manifest = files.read_json(path) if path.is_file() else {}
        steps, listed = int(manifest.get("env_steps", 0)), manifest.get("files", {})
        folds = sum(int(listed[name]["bytes"]) for name in listed if name.endswith(checkpoint.FOLDS_FILE))
        if steps + folds <= before and self.unfinished(0):
            msg = f"{self.kernel}: the last session did not get beyond step {steps:,}. Raise time_budget_h."
            raise KaggleError(msg)
        return steps + folds

    def stage_state(self, config: RunConfig, data_hashes: Iterable[str]) -> list[int]:
        """Stage the fetched state with the trials on these data; return the env steps of each job in it."""
        target, here = self.home.dataset("state"), dataclasses.replace(config, output_dir=str(self.outputs))
        if target.exists():
            shutil.rmtree(target)
        folders = {name: folder / checkpoint.STATE_FOLDER for name, folder in here.job_folders().items()}
        index = export_states(folders, target)
        known = [ledgers.of_data(self.home.ledgers, data_hash) for data_hash in data_hashes]
        trials.merge(target / trials.NAME, [*known, self.outputs / trials.NAME])
        for one in here.runs:
            if (packed := one.top_folder / checkpoint.STATE_FOLDER / checkpoint.FOLDS_FILE).is_file():
                shutil.copyfile(packed, target / "_".join((*one.instruments, checkpoint.FOLDS_FILE)))
        title = f"{self.name}-state".replace("-", " ")
        metadata = {"id": self.dataset("state"), "title": title, "licenses": [{"name": "other"}]}
        files.write_json(target / "dataset-metadata.json", metadata)
        return [int(index["jobs"][name]["facts"]["env_steps"]) for name in folders]

    def budget_h(self, wanted_h: float) -> float:
        """Return the hours that a session may take: `wanted_h`, or what this week's GPU hours leave.

        Raises
        ------
        KaggleError
            If too few are left for a session.
        """
        quota = self.client.quota()
        if quota is None:
            return wanted_h
        left = quota.total_h - quota.used_h
        self._say(f"quota     {left:.1f} of {quota.total_h:.0f} GPU hours left, renewed {quota.refresh}")
        if left < min(wanted_h, LEAST_SESSION_H):
            msg = (
                f"quota: {left:.1f} GPU hours are left, too few for a session of up to {wanted_h:g} h. Nothing is "
                f"lost: go on after {quota.refresh}, or use --accelerator none."
            )
            raise KaggleError(msg, "quota")
        room = max(math.floor(10 * (left - _MARGIN_H)) / 10, 0.1)
        if wanted_h <= room:
            return wanted_h
        self._say(f"          time_budget_h is {room:g} instead of {wanted_h:g} for this session")
        return room


def kernel_metadata(home: Home, owner: str, kinds: Iterable[str], accelerator: str) -> dict[str, Any]:
    """Return kernel-metadata.json of a run: private, without internet, with a machine that is named."""
    template: dict[str, Any] = json.loads((home.root / KERNEL_METADATA).read_text(encoding="utf-8"))
    return {
        **template,
        "id": f"{owner}/{home.name}-train",
        "title": f"{home.name}-train".replace("-", " "),
        "code_file": home.notebook.relative_to(home.kernel_folder).as_posix(),
        "is_private": True,
        "enable_gpu": accelerator != "none",
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "" if accelerator == "none" else accelerator,
        "dataset_sources": [f"{owner}/{home.name}-{kind}" for kind in kinds],
    }


def in_words(status: str) -> str:
    """Return a session's status in words."""
    return STATUSES.get(status, status.lower())


def fingerprint(folder: Path) -> str:
    """Return the hash of a staged folder's file names and contents, without its metadata."""
    names = sorted(p.name for p in folder.iterdir() if p.name not in _NOT_FINGERPRINTED)
    return files.content_hash({name: files.file_sha256(folder / name) for name in names})


def check_accelerator(name: str) -> None:
    """Raise ConfigError unless `name` is a known accelerator."""
    if name not in ACCELERATORS:
        msg = f"--accelerator must be one of {', '.join(ACCELERATORS)}, got {name!r}"
        raise ConfigError(msg)


def _link(outputs: Path, incoming: Path, manifest: Mapping[str, Any]) -> None:
    """Show the files of the outputs in `incoming` too, so that those that are right are not fetched again."""
    for name in manifest.get("files", ()):
        with contextlib.suppress(OSError, CheckpointError):  # a file system without links fetches them all
            source, target = (files.inside(folder, name, "manifest.json") for folder in (outputs, incoming))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)


def _after(seconds: float) -> str:
    return f"after {seconds:.0f} s" if seconds < 3600 else f"after {seconds / 3600:.1f} h"


def _lines(records: list[dict[str, Any]]) -> list[str]:
    """Return the complete lines of standard output in a log."""
    text = "".join(str(r.get("data", "")) for r in records if r.get("stream_name") == "stdout")
    return [line for line in text.split("\n")[:-1] if line and not line.startswith("Writing ")]
