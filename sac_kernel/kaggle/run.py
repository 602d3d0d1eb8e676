"""One experiment on Kaggle, over as many sessions as it takes: publish, push, follow, fetch, resume.

Every step can be interrupted and repeated. `build/last_run.json` records what was prepared; the state of a run comes
from Kaggle and from the fetched manifest.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sac_kernel.core import files, paths
from sac_kernel.core.errors import ConfigError, KaggleError
from sac_kernel.experiment import checkpoint, output_layout
from sac_kernel.kaggle.client import ACTIVE, FINGERPRINT, KaggleClient, Published, Pushed
from sac_kernel.kaggle.state_export import export_states
from sac_kernel.stats import trials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sac_kernel.experiment.run_config import Job

OWNER_PLACEHOLDER = "INSERT_OWNER"
ACCELERATORS = ("NvidiaTeslaT4", "none")
_LAST_RUN = "last_run.json"
_PUBLISHED = "published.json"  # dataset -> version known to hold a content
_NOT_FINGERPRINTED = (FINGERPRINT, "dataset-metadata.json")


class KaggleRun:
    """The kernel and datasets of one experiment of one owner.

    Parameters
    ----------
    client : drives the kaggle command line
    owner, name : user name, and the prefix of kernel and datasets
    root : folder of kernel-metadata.json and build/
    outputs : where fetched files go
    say : where lines for the user go
    kind : last word of the kernel's name
    """

    def __init__(  # noqa: PLR0913  # who, which experiment, where
        self,
        client: KaggleClient,
        owner: str,
        name: str,
        root: Path,
        outputs: Path,
        *,
        say: Callable[[str], None],
        kind: str = "train",
    ) -> None:
        self.client, self.owner, self.name = client, owner, name
        self._kind = kind
        self.root, self.build, self.outputs = root, root / "build", outputs
        self._say = say

    @property
    def kernel(self) -> str:
        """Return 'owner/name-kind' of the kernel."""
        return f"{self.owner}/{self.name}-{self._kind}"

    @property
    def ledger(self) -> Path:
        """Return the ledger of trials of this checkout; it outlives every output folder."""
        return self.root / "data" / trials.NAME

    def dataset(self, kind: str) -> str:
        """Return 'owner/name-kind' of the data, code or state dataset."""
        return f"{self.owner}/{self.name}-{kind}"

    # -- publishing --------------------------------------------------------------------------------

    def publish(self, folders: Mapping[str, Path]) -> None:
        """Publish staged folders (kind -> folder) whose content has changed, and wait until they are ready."""
        path = self.build / _PUBLISHED
        known: dict[str, Any] = files.read_json(path) if path.is_file() else {}

        def publish(item: tuple[str, Path]) -> tuple[Published, str]:
            kind, folder = item
            metadata = json.loads((folder / "dataset-metadata.json").read_text(encoding="utf-8"))
            files.write_json(folder / "dataset-metadata.json", {**metadata, "id": self.dataset(kind)})
            digest = fingerprint(folder)
            files.write_json(folder / FINGERPRINT, {"content_hash": digest})
            seen = known.get(self.dataset(kind), {})
            version = seen["version"] if seen.get("content_hash") == digest else None
            return self.client.publish_dataset(folder, digest, f"content {digest[:12]}", version), digest

        with ThreadPoolExecutor(len(folders)) as pool:
            for done, digest in pool.map(publish, folders.items()):
                known[done.ref] = {"version": done.version, "content_hash": digest}
                event = "published" if done.changed else "unchanged"
                self._say(f"{event:9} {done.ref}, version {done.version}")
        files.write_json(path, known)

    def write_metadata(self, kinds: list[str], accelerator: str) -> None:
        """Write owner, sources and accelerator into kernel-metadata.json."""
        path = self.root / "kernel-metadata.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata |= {
            "id": self.kernel,
            "title": self.kernel.split("/")[1].replace("-", " "),
            "dataset_sources": [self.dataset(kind) for kind in kinds],
            "enable_gpu": accelerator != "none",
            "machine_shape": "" if accelerator == "none" else accelerator,
        }
        files.write_text(path, json.dumps(metadata, indent=2) + "\n")

    # -- the last run ------------------------------------------------------------------------------

    def last_run(self) -> dict[str, Any]:
        """Return the record of the session prepared last; {} if there is none."""
        path = self.build / _LAST_RUN
        last: dict[str, Any] = files.read_json(path) if path.is_file() else {}
        return last if last.get("kernel") == self.kernel else {}

    def prepare(self, parameters: Mapping[str, Any], *, fresh: bool) -> None:
        """Record the session that is ready for `push` or for `kaggle kernels push`."""
        last = {
            "kernel": self.kernel,
            "parameters": dict(parameters),
            "fetched": False,
            "fresh": fresh,
            "outputs": self._fetched_mark(),
        }
        files.write_json(self.build / _LAST_RUN, last)

    def stays_fresh(self) -> bool:
        """Return whether the session prepared last starts over and has not been fetched yet."""
        last = self.last_run()
        return bool(last.get("fresh")) and last["outputs"] == self._fetched_mark()

    def push(self) -> Pushed:
        """Push the kernel, which starts its run."""
        pushed = self.client.push_kernel(self.root)
        version = "" if pushed.version is None else f", version {pushed.version}"
        self._say(f"pushed    {self.kernel}{version}: {pushed.url}")
        return pushed

    def _fetched_mark(self) -> str:
        path = self.outputs / "manifest.json"
        return files.file_sha256(path) if path.is_file() else ""

    def settle(self) -> None:
        """Fetch a run that has ended since; raise KaggleError if it is still active."""
        if not self.last_run() or self.last_run()["fetched"]:
            return
        status = self.client.newest_status(self.kernel)
        if not status.name:
            return  # prepared, never pushed
        if status.name in ACTIVE:
            msg = f"{self.kernel}: a run is active ({status.name}). Follow it with --follow, or end it with --stop."
            raise KaggleError(msg)
        if status.name == "COMPLETE":
            self.fetch()
        else:
            self._say(
                f"the last run ended as {status.name} ({status.failure or 'no reason given'}) without outputs"
            )

    def follow(self, poll_s: float, sleep: Callable[[float], object] = time.sleep) -> str:
        """Show status and log lines until the run ends; return its last status."""
        seen, last, started_s = 0, "", time.monotonic()
        while True:
            status = self.client.kernel_status(self.kernel)
            if status.name != last:
                self._say(f"{status.name.lower():9} after {time.monotonic() - started_s:.0f} s")
                last = status.name
            records = self.client.kernel_log(self.kernel) if status.name != "QUEUED" else []
            for line in _lines(records)[seen:]:
                self._say(f"  {line}")
            seen = max(seen, len(_lines(records)))
            if status.name not in ACTIVE:
                if status.failure:
                    self._say(f"failure   {status.failure}")
                return status.name
            sleep(poll_s)

    def fetch(self) -> dict[str, Any]:
        """Fetch the outputs, check every hash against the manifest, and show a summary."""
        try:
            manifest = self.client.fetch_outputs(self.kernel, self.outputs)
        except KaggleError as err:
            raise self._why_not_trained() or err from err
        trials.merge(self.ledger, [self.outputs / trials.NAME])
        last = self.last_run() or {"kernel": self.kernel, "parameters": {}, "fresh": False, "outputs": ""}
        files.write_json(self.build / _LAST_RUN, {**last, "fetched": self._fetched_mark() != last["outputs"]})
        count, size = len(manifest["files"]), sum(e["bytes"] for e in manifest["files"].values())
        self._say(f"fetched   {count} files, {size / 1e6:.1f} MB, all hashes match: {self.outputs}")
        self._say(
            f"run       {manifest['status']}, {manifest['episodes']} episodes, {manifest['updates']:,} updates"
        )
        return manifest

    def _why_not_trained(self) -> KaggleError | None:
        """Return the reason that a run without outputs logged, as an error; None if it logged none."""
        lines = _lines(self.client.kernel_log(self.kernel))
        reasons = [line for line in lines if line.startswith(paths.NOT_TRAINED)]
        return KaggleError(f"{self.kernel}: {reasons[-1]}") if reasons else None

    def stop(self) -> None:
        """Delete the kernel on Kaggle: its run stops, its outputs and log are lost."""
        self.client.delete_kernel(self.kernel)
        self._say(f"deleted   {self.kernel}")

    # -- resuming ---------------------------------------------------------------------------------

    def unfinished(self, num_episodes: int) -> bool:
        """Return whether the fetched run stopped early or has fewer episodes than `num_episodes`."""
        path = self.outputs / "manifest.json"
        manifest = files.read_json(path) if path.is_file() else {}
        known = bool(manifest) and bool(self.last_run())
        return known and (manifest["status"] == "cut" or int(manifest["episodes"]) < num_episodes)

    def check_progress(self, before: int) -> int:
        """Return the env steps of the fetched run; raise KaggleError if an unfinished run has no more than `before`."""
        path = self.outputs / "manifest.json"
        steps = int(files.read_json(path)["env_steps"]) if path.is_file() else 0
        if steps <= before and self.unfinished(0):
            msg = f"{self.kernel}: the last session did not get beyond step {steps:,}. Raise time_budget_h."
            raise KaggleError(msg)
        return steps

    def stage_state(self, jobs: list[Job]) -> list[int]:
        """Stage the fetched state as a dataset folder; return the env steps of each job in it."""
        target = self.build / "datasets" / "state"
        if target.exists():
            shutil.rmtree(target)
        folders = {
            output_layout.job_name(*job): output_layout.job_folder(self.outputs, job, len(jobs))
            / checkpoint.STATE_FOLDER
            for job in jobs
        }
        index = export_states(folders, target)
        trials.merge(target / trials.NAME, [self.ledger, self.outputs / trials.NAME])
        title = f"{self.name}-state".replace("-", " ")
        metadata = {"id": self.dataset("state"), "title": title, "licenses": [{"name": "other"}]}
        files.write_json(target / "dataset-metadata.json", metadata)
        return [int(index["jobs"][name]["facts"]["env_steps"]) for name in folders]

    def check_quota(self, budget_h: float) -> None:
        """Raise KaggleError if too few GPU hours are known to be left this week for another session."""
        quota = self.client.quota()
        if quota is None:
            return
        left = quota.total_h - quota.used_h
        self._say(f"quota     {left:.1f} of {quota.total_h:.0f} GPU hours left, renewed {quota.refresh}")
        if left < min(budget_h, 0.5):
            msg = (
                f"quota: {left:.1f} GPU hours are left, too few for a session of up to {budget_h:g} h. Nothing is "
                f"lost: continue with --resume after {quota.refresh}, or use --accelerator none."
            )
            raise KaggleError(msg)


def fingerprint(folder: Path) -> str:
    """Return the hash of a staged folder's file names and contents, without its metadata."""
    names = sorted(p.name for p in folder.iterdir() if p.name not in _NOT_FINGERPRINTED)
    return files.content_hash({name: files.file_sha256(folder / name) for name in names})


def check_accelerator(name: str) -> None:
    """Raise ConfigError unless `name` is a known accelerator."""
    if name not in ACCELERATORS:
        msg = f"--accelerator must be one of {', '.join(ACCELERATORS)}, got {name!r}"
        raise ConfigError(msg)


def _lines(records: list[dict[str, Any]]) -> list[str]:
    """Return the complete lines of standard output in a log."""
    text = "".join(str(r.get("data", "")) for r in records if r.get("stream_name") == "stdout")
    return [line for line in text.split("\n")[:-1] if line and not line.startswith("Writing ")]
