"""Kaggle through its command line: publish a dataset, push a kernel, follow it, fetch its files.

The client ends with status 0 after many failures, drops files, saves error pages as files and can wait for ever.
Here each call has a time limit, and each result is checked on the platform. A failed call can be repeated. No
message contains a key or token. Sources: kaggle 2.2.4, 2.2.5, run locally.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sac_kernel.core import files
from sac_kernel.core.errors import KaggleError
from sac_kernel.kaggle import credentials
from sac_kernel.kaggle.process import (
    ABSENT,
    AGAIN,
    FINAL,
    GET_A_TOKEN,
    PUSH_FINAL,
    UNCLEAR,
    UNKNOWN,
    KaggleProcess,
    failure_of,
    need,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_State = tuple[str, int]  # of a dataset: status, version
ACTIVE = ("QUEUED", "RUNNING")
FINGERPRINT = "fingerprint.json"
TEXT_LIMIT_BYTES = 900_000  # Kaggle refuses 1 MB; how it counts is not known
# Kaggle unpacks files of these suffixes in a dataset, or may do so.
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".pt", ".pth", ".npz")
_SOURCES = ("dataset_sources", "kernel_sources", "competition_sources", "model_sources")


OLDEST_CLIENT = (2, 2, 3)
WHY_NOT_OLDER = "below 2.2.3 `kaggle kernels output` brings the first 20 files of a run and reports success"

INSTALL_IT = "Run pip install -r requirements/run.txt in the environment of the project"


def is_new_enough(version: str) -> bool:
    """Whether a version of the client is OLDEST_CLIENT or newer."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= OLDEST_CLIENT


class Published(NamedTuple):
    """A dataset as it is on Kaggle; `changed` is False if nothing was uploaded."""

    ref: str
    version: int
    changed: bool


class Pushed(NamedTuple):
    """A kernel version that was pushed and runs; `version` is None if the answer to the push was lost."""

    ref: str
    version: int | None
    url: str


class Status(NamedTuple):
    """QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT, and why it failed."""

    name: str
    failure: str


class Quota(NamedTuple):
    """GPU hours of this week, and when they are renewed (ISO 8601, UTC)."""

    used_h: float
    total_h: float
    refresh: str


class KaggleClient(KaggleProcess):
    """Kaggle through its own command line; parameters as for `KaggleProcess`."""

    def owner(self) -> str | None:
        """Return the user name that the client logs in with, None if there are no credentials.

        A token is checked here; a wrong key shows at the first request.

        Raises
        ------
        KaggleError
            If the credentials do not work.
        """
        found = credentials.find(self._env)
        taken = credentials.usable(found)
        if self._owner or taken is None:
            return self._owner
        need(not taken.problem, taken.where, taken.problem, taken.todo, "login")
        self.check_version()
        try:
            login = self._ask(["config", "view"], "login", _config_values)
        except KaggleError as err:
            where = ", ".join(c.where for c in found if c.form)
            need(err.kind != "login", "login", f"Kaggle or its client refuses the credentials in {where}",
                  f"Remove them. {GET_A_TOKEN}", "login")  # fmt: skip
            raise
        tokens = [c.where for c in found if c.form == credentials.TOKEN]
        need(not tokens or login["auth_method"] == "ACCESS_TOKEN", "login",
              f"the token in {', '.join(tokens)} does not work, and the client would send it with every request in "
              f"place of the key of {login['username']}", "Remove or renew the token", "login")  # fmt: skip
        self._owner = login["username"]
        return self._owner

    def version(self) -> str:
        """Return the client's version; '' if there is no client."""
        if self._python == sys.executable:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version("kaggle")
        # Not `kaggle --version`, which some clients answer only after a login.
        command = [self._python, "-P", "-c", "import importlib.metadata as m; print(m.version('kaggle'))"]
        try:
            done = subprocess.run(  # noqa: S603  # the client's interpreter
                command, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=self._timeout_s, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip()

    def check_version(self) -> str:
        """Return the client's version; KaggleError if it is older than OLDEST_CLIENT."""
        version = self.version()
        problem = (
            f"the Kaggle client {version} is too old: {WHY_NOT_OLDER}"
            if version
            else "there is no Kaggle client"
        )
        need(is_new_enough(version), "kaggle", problem, INSTALL_IT, "client")
        return version

    def dataset_files(self, ref: str) -> set[str]:
        """Return the names of the first 200 files of a dataset; empty if you can read none."""
        args = ["datasets", "files", ref, "--page-size", "200", "--format", "json"]
        return self._unless(
            lambda: self._ask(args, ref, lambda text: {str(row["name"]) for row in _json(text)}), set()
        )

    def dataset_version(self, ref: str) -> int | None:
        """Return the newest ready version (0: the first is still processed); None if you can read none."""
        status, version = self._dataset_state(ref)
        return version if status else None

    def publish_dataset(
        self,
        folder: Path,
        fingerprint: str,
        notes: str,
        known_version: int | None = None,
        *,
        may_unpack: bool = False,
    ) -> Published:
        """Publish the content of `folder` as a dataset; upload nothing if it is there already.

        Parameters
        ----------
        folder : flat, with dataset-metadata.json, whose id names the owner, and fingerprint.json
        fingerprint : the `content_hash` of fingerprint.json, by which published content is recognised
        notes : text of the new version
        known_version : known to hold this content; if it is still the newest, nothing more is checked
        may_unpack : accept archives, which Kaggle unpacks

        Raises
        ------
        KaggleError
            If the folder cannot be published, or Kaggle does not show its content in time; then call again.
        """
        folder = Path(folder).resolve()
        ref, names = self._check_dataset(folder, fingerprint, may_unpack=may_unpack)
        sent = False
        if known_version is not None and self._dataset_state(ref) == ("ready", known_version):
            return Published(ref, known_version, sent)

        def publish() -> Published:
            nonlocal sent
            status, before = self._await(ref)
            if status and not self._lacks(ref, fingerprint, names):
                return Published(ref, before, sent)
            sent = True
            self._upload(ref, folder, names, ["version", f"--message={notes}"] if status else ["create"])
            _, version = self._await(ref, before, fingerprint, names)
            return Published(ref, version, sent)

        return self._retry(ref, publish, min(self.tries, 3), FINAL - ABSENT)

    def push_kernel(self, folder: Path) -> Pushed:
        """Push the kernel of `folder`, which starts its run, and check what Kaggle stored.

        Raises
        ------
        KaggleError
            If the folder, a source or the account does not allow it, or a run of the kernel is active: nothing
            was started. If Kaggle stored something else: the message names the run that started.
        """
        folder = Path(folder).resolve()
        meta = _checked_kernel(folder)
        ref = str(meta["id"])
        before = self.newest_status(ref)
        need(
            before.name not in ACTIVE,
            ref,
            f"a run is active ({before.name})",
            "Follow it or delete it",
            "active",
        )
        self._check_sources(ref, meta)
        try:
            pushed = self._push(ref, folder)
        except KaggleError as err:
            after = self.newest_status(ref) if err.kind in UNCLEAR else before
            if after == before or not (after.name in ACTIVE or not before.name):
                raise
            self._say(f"{ref}: the answer to the push was lost, but it took effect: {after.name}")
            pushed = Pushed(ref, None, f"https://www.kaggle.com/code/{ref}")
        self._verify_push(meta, pushed)
        return pushed

    def kernel_status(self, ref: str) -> Status:
        """Return the state of the newest session; right after a push it may be that of the one before."""
        return self._ask(["kernels", "status", ref], ref, _kernel_status)

    def newest_status(self, ref: str) -> Status:
        """Return the state of the newest session; both fields are empty if there is no such kernel."""
        return self._unless(lambda: self.kernel_status(ref), Status("", ""))

    def kernel_log(self, ref: str) -> list[dict[str, Any]]:
        """Return the records of the log: stream_name, time in seconds, data; [] if there are none yet."""
        return self._ask(["kernels", "logs", ref], ref, _log_records)

    def fetch_outputs(self, ref: str, folder: Path) -> dict[str, Any]:
        """Fetch the files that the run's manifest lists into `folder`; return the manifest.

        They are fetched into a temporary folder and moved once every hash matches. A file that is there already is
        not fetched again. Files outside the manifest are not fetched.

        Raises
        ------
        KaggleError
            If the run left no manifest (the message names its state), or a file is missing or wrong. Then
            `folder` is unchanged.
        """
        folder = Path(folder).resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary)
            manifest = self._retry(ref, lambda: self._fetch_manifest(ref, fresh))
            listed = manifest["files"]
            wanted = [name for name in listed if not _is_right(folder / name, listed[name])]
            self._retry(ref, lambda: self._fetch_files(ref, fresh, {name: listed[name] for name in wanted}))
            for name in (*wanted, "manifest.json"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).replace(folder / name)
        return files.verify_manifest(folder)

    def quota(self) -> Quota | None:
        """Return the GPU hours of this week, None if Kaggle does not report them."""
        args = ["quota", "--format", "json"]
        return self._unless(lambda: self._ask(args, "quota", _gpu_quota), None, UNKNOWN)

    def delete_kernel(self, ref: str) -> None:
        """Delete the kernel: an active run stops, outputs and logs are lost. KaggleError if there is none."""
        need(self.newest_status(ref).name, ref, "you have no such kernel", "Check owner and name", "absent")
        # If a repeated deletion finds no kernel, the first one worked and only its answer was lost.
        self._unless(lambda: self._ask(["kernels", "delete", ref, "-y"], ref, str), "")

    # -- steps of publishing, pushing and fetching

    def _check_dataset(self, folder: Path, fingerprint: str, *, may_unpack: bool) -> tuple[str, list[str]]:
        """Return the name of the dataset and the files to send; raise KaggleError if Kaggle would not take them."""
        where, ref = str(folder), str(_read(folder / "dataset-metadata.json").get("id"))
        owner = self.owner()
        need(owner, where, "there is no Kaggle login", GET_A_TOKEN, "login")
        named = re.fullmatch(rf"{re.escape(str(owner))}/[a-z0-9-]{{6,50}}", ref)
        need(named, where, f"the id must be {owner}/ and 6 to 50 lower-case letters, digits and hyphens, got {ref}",
              "Correct dataset-metadata.json")  # fmt: skip
        entries = sorted(p for p in folder.iterdir() if p.name != "dataset-metadata.json")
        archives = () if may_unpack else UNPACKED
        odd = [p.name for p in entries if not p.is_file() or p.suffix.lower() in archives]
        odd += [p.name for p in entries[200:]]
        need(not odd, where, f"{', '.join(odd[:3])} cannot be published: Kaggle drops folders, unpacks archives and "
              ".pt files, and takes at most 200 files", "Rename or remove them")  # fmt: skip
        mark = _read(folder / FINGERPRINT).get("content_hash")
        need(mark == fingerprint, where, f"content_hash in {FINGERPRINT} must be {fingerprint!r}, got {mark!r}",
              "Stage the folder again")  # fmt: skip
        return ref, [p.name for p in entries]

    def _dataset_state(self, ref: str) -> _State:
        args = ["datasets", "status", ref, "--format", "json"]
        return self._unless(lambda: self._ask(args, ref, _dataset_status), ("", 0))

    def _await(
        self, ref: str, before: int | None = None, mark: str = "", names: Sequence[str] = ()
    ) -> _State:
        """Wait until no version is processed or, after version `before`, until a newer one shows its content."""
        deadline = time.monotonic() + self.ready_s
        while True:
            status, version = self._dataset_state(ref)
            lack = "" if status in ("", "ready", "failed", "deleted") else status
            if before is not None:
                new = status == "ready" and version > before
                seen = f"{status or 'not found'}, version {version}"
                lack = self._lacks(ref, mark, names) if new else seen
            if not lack:
                return status, version
            failed, late = status == "failed", time.monotonic() >= deadline
            problem = "Kaggle could not process it" if failed else f"not ready within {self.ready_s:.0f} s"
            need(not failed and not late, ref, f"{problem} ({lack})",
                  f"Look at kaggle.com/datasets/{ref}, then repeat", "ended")  # fmt: skip
            self._say(f"{ref}: not ready yet ({lack})")
            self._sleep(self._poll_s)

    def _upload(self, ref: str, folder: Path, names: list[str], verb: list[str]) -> None:
        n_bytes = sum((folder / name).stat().st_size for name in names)
        self._say(f"{ref}: sending {len(names)} files, {n_bytes / 1e6:.1f} MB")
        reply = self._call(["datasets", verb[0], "-p", str(folder), *verb[1:]], ref, n_bytes)
        sent = re.findall(r"^Upload successful: (.+) \(", reply.stdout, re.MULTILINE)
        done = "being created. Please check progress" in reply.stdout
        if not done or not set(names).issubset(sent):
            raise self._error(ref, reply)

    def _lacks(self, ref: str, fingerprint: str, names: Iterable[str]) -> str:
        """Return how the dataset differs from the wanted one, '' if it does not."""
        with tempfile.TemporaryDirectory() as temporary:
            args = ["datasets", "download", ref, "-f", FINGERPRINT, "-p", temporary, "-o", "-q"]
            current = self._unless(
                lambda: self._ask(args, ref, lambda _: _json_in(temporary, "*")["content_hash"]),
                None, {*ABSENT, "content"},
            )  # fmt: skip
        if current != fingerprint:
            return f"it shows the fingerprint {current}"
        there = self.dataset_files(ref)
        missing = [n for n in names if n not in there and not n.endswith((".whl", *UNPACKED))]
        return f"{len(missing)} files do not show yet: {', '.join(missing[:3])}" if missing else ""

    def _check_sources(self, ref: str, meta: Mapping[str, Any]) -> None:
        """Raise KaggleError if Kaggle would start the run without one of its sources."""
        kernels, datasets = (meta.get(name, []) for name in ("kernel_sources", "dataset_sources"))
        states = [(f"dataset {s}", "ready", self._dataset_state(_short(s))[0]) for s in datasets]
        states += [(f"kernel {s}", "COMPLETE", self.newest_status(_short(s)).name) for s in kernels]
        for source, required, state in states:
            need(state == required, ref, f"{source} must be {required}, got {state or 'none that you can read'}",
                  "Publish or run it, and wait until it is", "sources")  # fmt: skip

    def _push(self, ref: str, folder: Path) -> Pushed:
        """Push once, and again only if Kaggle refused for too many calls: any other failure may have started a run."""

        def once() -> Pushed:
            reply = self._call(["kernels", "push", "-p", str(folder)], ref)
            left_out = re.findall(r"not valid (?!tags)(\w+) sources.*?: (\[.*\])", reply.stdout)
            need(not left_out, ref, f"Kaggle started the run without the sources {left_out}",
                  "Correct them, delete the kernel to stop the run, then push again", "sources")  # fmt: skip
            done = re.search(r"version (\d+) successfully pushed\. .*progress at (\S+)", reply.stdout)
            if not done:
                raise self._error(ref, reply)
            at = "/".join(done[2].split("?")[0].split("/")[-2:])
            need(at.lower() == ref.lower(), ref, f"Kaggle filed the run under another name, {done[2]}",
                  "Correct id and title, and delete that kernel", "elsewhere")  # fmt: skip
            return Pushed(ref, int(done[1]), done[2])

        return self._retry(ref, once, final=PUSH_FINAL)

    def _verify_push(self, meta: Mapping[str, Any], pushed: Pushed) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            args = ["kernels", "pull", pushed.ref, "-p", temporary, "-m"]
            stored = self._unless(
                lambda: self._ask(args, pushed.ref, lambda _: _json_in(temporary, "*.json")), None, UNKNOWN
            )
        if stored is None:
            self._say(f"{pushed.ref}: pushed, but the stored settings could not be read")
            return
        wrong = []
        for name in ("machine_shape", "enable_internet", "is_private", *_SOURCES):
            wanted, got = meta.get(name), stored.get(name)
            if name in _SOURCES:
                wanted, got = (sorted(map(_short, names or [])) for names in (wanted, got))
            if wanted not in (None, "", got):
                wrong.append(f"{name} {got!r} instead of {wanted!r}")
        need(not wrong, pushed.ref, f"Kaggle stored other settings: {', '.join(wrong)}", f"Version {pushed.version} "
              f"runs with them at {pushed.url}: delete it or let it end", "stored")  # fmt: skip

    def _fetch_manifest(self, ref: str, fresh: Path) -> dict[str, Any]:
        path = fresh / "manifest.json"
        self._output(ref, fresh, ["manifest.json"])
        if not path.is_file():
            status = self.kernel_status(ref)
            need(status.name == "COMPLETE", ref, f"there are no outputs: the run is {' '.join(status).strip()}",
                  "Only a run that ends as COMPLETE keeps its files", "ended")  # fmt: skip
            raise failure_of(ref, "the outputs have no manifest.json", AGAIN, "content")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            listed = manifest["files"]
            whole = all(len(entry["sha256"]) == 64 and entry["bytes"] >= 0 for entry in listed.values())
            outside = [n for n in listed if n[:1] == "/" or {"..", "\\", ":"} & {*n, *n.split("/")}]
            if manifest["end"] == files.END_MARKER and whole and not outside:
                return dict(manifest)
            problem = f"end {manifest['end']!r}, names outside the folder {outside[:3]}"
        except (ValueError, LookupError, TypeError, AttributeError) as err:
            problem = f"{type(err).__name__}: {err}"
        raise failure_of(ref, f"manifest.json is damaged ({self._clean(problem)})", AGAIN, "content")

    def _fetch_files(self, ref: str, fresh: Path, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        missing = [name for name in wanted if not _is_right(fresh / name, wanted[name])]
        reason = ""
        for start in range(0, len(missing), 100):
            names = missing[start : start + 100]
            try:
                self._output(ref, fresh, names, sum(int(wanted[name]["bytes"]) for name in names))
            except KaggleError as err:
                if err.kind in ("login", "client"):
                    raise
                reason = f" ({err})"
        wrong = [name for name in missing if not _is_right(fresh / name, wanted[name])]
        sizes = [f"{name} ({wanted[name]['bytes']} bytes)" for name in wrong[:3]]
        need(not wrong, ref, f"{len(wrong)} of {len(wanted)} files are missing or wrong: {', '.join(sizes)}{reason}",
              AGAIN, "content")  # fmt: skip

    def _output(self, ref: str, fresh: Path, names: Iterable[str], n_bytes: int = 0) -> None:
        pattern = rf"\A(?:{'|'.join(map(re.escape, names))})\Z"
        args = f"kernels output {ref} -o --page-size 200 --file-pattern".split()
        self._call([*args, pattern, "-p", str(fresh)], ref, n_bytes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise failure_of(
            str(path), f"no JSON object ({err})", "Run python build_kernel.py", "metadata"
        ) from err


def _checked_kernel(folder: Path) -> dict[str, Any]:
    meta = _read(path := folder / "kernel-metadata.json")
    ref, title, todo = str(meta.get("id")), str(meta.get("title")), "Run python build_kernel.py with a login"
    owner, _, slug = ref.partition("/")
    ok = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) and 5 <= len(slug) <= 50
    need(ok and owner and not owner.startswith("INSERT"), str(path), "the id must be owner/name, the name 5 to 50 "
          f"lower-case letters, digits and single hyphens, got {ref}", todo)  # fmt: skip
    need(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") == slug, str(path), f"Kaggle files a kernel under its "
          f"title, and {title!r} does not make {slug}", "Write the name with blanks for hyphens as title")  # fmt: skip
    need("id_no" not in meta, str(path), f"id_no must not be set, got {meta.get('id_no')}", "Remove it")
    code = folder / str(meta.get("code_file"))
    need(code.is_file(), str(path), f"its code_file {code} does not exist", "Run python build_kernel.py")
    if code.suffix == ".ipynb":
        notebook = _read(code)
        for cell in notebook.get("cells", []):  # as the client sends it
            cell.update({"outputs": []} if "outputs" in cell else {}, source="".join(cell["source"]))
    n_bytes = len(json.dumps(notebook)) if code.suffix == ".ipynb" else code.stat().st_size
    need(n_bytes < TEXT_LIMIT_BYTES, str(code), f"must be below {TEXT_LIMIT_BYTES:,} bytes, got {n_bytes:,}",
          "Move data out of it into a dataset", "too_large")  # fmt: skip
    return meta


def _json(out: str) -> Any:  # noqa: ANN401
    """Return the JSON value in an answer that may begin with lines of text."""
    value = re.search(r"^[\[{].*", out, re.MULTILINE | re.DOTALL)
    return json.JSONDecoder().raw_decode(value[0] if value else "")[0]


def _json_in(folder: str, pattern: str) -> Any:  # noqa: ANN401
    return json.loads(sorted(Path(folder).glob(pattern))[0].read_bytes())


def _config_values(out: str) -> dict[str, str]:
    values = dict(re.findall(r"^- (\w+): (.+)$", out, re.MULTILINE))
    return {"username": values["username"], "auth_method": values.get("auth_method", "")}


def _dataset_status(out: str) -> _State:
    state = _json(out)
    return str(state["status"]), int(state["current_version_number"] or 0)


def _kernel_status(out: str) -> Status:
    name = re.findall(r'has status "(?:\w+\.)?(\w+)"', out)[0]
    failure = re.findall(r'^Failure message: "(.*)"', out, re.MULTILINE | re.DOTALL)
    return Status(name, failure[0] if failure else "")


def _log_records(out: str) -> list[dict[str, Any]]:
    """Return all whole records of a list or of lines, skipping anything between them."""
    records, at = [], out.find("{")
    while at >= 0:
        try:
            record, at = json.JSONDecoder().raw_decode(out, at)
            records += [record] if "data" in record else []
        except ValueError:
            at += 1
        at = out.find("{", at)
    return records


def _gpu_quota(out: str) -> Quota | None:
    if "No quota information" in out:
        return None
    rows = [row for row in _json(out) if row["resource"] == "GPU"]
    hours = [float(row[name].rstrip("h")) for row in rows for name in ("used", "total")]
    return Quota(hours[0], hours[1], rows[0].get("refreshAt", "")) if rows else None


def _short(source: str) -> str:
    """Return owner/name of a source that may have a prefix or a version."""
    parts = [part for part in source.strip("/").split("/") if part]
    return "/".join(parts[1:3] if parts[0] in ("datasets", "code", "notebooks") else parts[:2])


def _is_right(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and files.file_sha256(path) == entry["sha256"]
