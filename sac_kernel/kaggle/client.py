"""The `kaggle` command line, driven and judged: publish a dataset, push a kernel, follow it, fetch its files.

The client ends with status 0 after many failures, drops files, saves error pages as files and can wait for
ever; here each call has a time limit and each answer is checked against what the platform then holds. A call
that failed can be repeated. No text made here holds a key or token. Sources: kaggle 2.2.4, 2.2.5, run locally.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sac_kernel.core import files
from sac_kernel.core.errors import KaggleError
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
TEXT_LIMIT_BYTES = 900_000  # the platform refuses 1 MB; what of the text it counts is not known
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".pt", ".pth", ".npz")  # in a dataset, or may be
_SOURCES = ("dataset_sources", "kernel_sources", "competition_sources", "model_sources")


class Published(NamedTuple):
    """A dataset as it is on Kaggle now; `changed` is False if nothing had to be uploaded."""

    ref: str
    version: int
    changed: bool


class Pushed(NamedTuple):
    """A kernel version that was pushed and runs; `version` is None if only the answer was lost."""

    ref: str
    version: int | None
    url: str


class Status(NamedTuple):
    """QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT, and why it failed."""

    name: str
    failure: str


class Quota(NamedTuple):
    """GPU hours of this week, and when they are given anew (ISO 8601, UTC)."""

    used_h: float
    total_h: float
    refresh: str


class KaggleClient(KaggleProcess):
    """Kaggle through its own command line; parameters as for `KaggleProcess`."""

    def owner(self) -> str | None:
        """Return the user name that the client logs in with, None if there are no credentials at all.

        A token is checked, a wrong key shows at the first request. KaggleError if they cannot work.
        """
        found = [n for n in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY") if self._env.get(n)]
        found += map(str, self._credential_files())
        if self._owner or not found:
            return self._owner
        try:
            shown = self._ask(["config", "view"], "login", _config_values)
        except KaggleError as err:
            need(err.kind != "login", "login", "credentials that work", f"{', '.join(found)}, which the client "
                  "or Kaggle refuses", f"remove them, then {GET_A_TOKEN}", "login")  # fmt: skip
            raise
        tokens = [name for name in found if "token" in name.lower()]
        need(not tokens or shown["auth_method"] == "ACCESS_TOKEN", "login", "one working way to log in",
              f"a token that does not work ({', '.join(tokens)}) beside the key of {shown['username']}, and the "
              "client would send the bad token with every request", "remove or renew the token", "login")  # fmt: skip
        self._owner = shown["username"]
        return self._owner

    def dataset_version(self, ref: str) -> int | None:
        """Return the newest ready version (0: the first is processed); None if there is none to read."""
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
        """Bring a dataset on Kaggle to the content of `folder`; upload nothing if it is there already.

        The folder is flat and has dataset-metadata.json, whose id names the owner, and fingerprint.json, whose
        `content_hash` is `fingerprint`; what is published is recognised by it. `notes` go with the version. If
        `known_version`, which was seen to hold this content, is still the newest, nothing more is asked.
        Archives, which Kaggle unpacks, are refused unless `may_unpack`.

        Raises
        ------
        KaggleError
            If the folder cannot be published, or Kaggle does not show this content in time; then call again.
        """
        folder = Path(folder).resolve()
        ref, names = self._check_dataset(folder, fingerprint, may_unpack=may_unpack)
        sent = False
        if known_version is not None and self._dataset_state(ref) == ("ready", known_version):
            return Published(ref, known_version, sent)

        def bring() -> Published:
            nonlocal sent
            status, before = self._await(ref)
            if status and not self._lacks(ref, fingerprint, names):
                return Published(ref, before, sent)
            sent = True
            self._upload(ref, folder, names, ["version", f"--message={notes}"] if status else ["create"])
            _, version = self._await(ref, before, fingerprint, names)
            return Published(ref, version, sent)

        return self._retry(ref, bring, min(self.tries, 3), FINAL - ABSENT)

    def push_kernel(self, folder: Path) -> Pushed:
        """Push the kernel of `folder`, which starts its run, and check what the platform stored.

        Raises
        ------
        KaggleError
            If the folder, a source or the account does not allow it or a run of the kernel is active (then
            nothing was started), or if the platform stored something else (the run is then named).
        """
        folder = Path(folder).resolve()
        meta = _checked_kernel(folder)
        ref = str(meta["id"])
        before = self.newest_status(ref)
        need(before.name not in ACTIVE, ref, "no active run", before.name, "follow or delete it", "active")
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
        """Return the newest session's state; right after a push it may still be that of the one before."""
        return self._ask(["kernels", "status", ref], ref, _kernel_status)

    def newest_status(self, ref: str) -> Status:
        """Return the newest session's state; both parts empty if there is no such kernel."""
        return self._unless(lambda: self.kernel_status(ref), Status("", ""))

    def kernel_log(self, ref: str) -> list[dict[str, Any]]:
        """Return the log's records: stream_name, time in seconds, data; [] before the first."""
        return self._ask(["kernels", "logs", ref], ref, _log_records)

    def fetch_outputs(self, ref: str, folder: Path) -> dict[str, Any]:
        """Bring the files that the run's manifest lists into `folder`; return the manifest.

        They are fetched into a folder beside it and moved only when every hash is right; a file that is
        there and right is not fetched again. Files outside the manifest stay away.

        Raises
        ------
        KaggleError
            If the run left no manifest (its state is named), or files stay wrong; `folder` is as it was.
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
        """Return the GPU hours of this week, None if the platform does not say."""
        args = ["quota", "--format", "json"]
        return self._unless(lambda: self._ask(args, "quota", _gpu_quota), None, UNKNOWN)

    def delete_kernel(self, ref: str) -> None:
        """Delete the kernel: an active run stops, its outputs and logs are lost. Gone already: KaggleError."""
        need(self.newest_status(ref).name, ref, "a kernel of yours", "none", "check owner and name", "absent")
        # A second try that finds nothing: the first took effect, its answer was lost.
        self._unless(lambda: self._ask(["kernels", "delete", ref, "-y"], ref, str), "")

    # -- the parts of publishing, pushing and fetching

    def _check_dataset(self, folder: Path, fingerprint: str, *, may_unpack: bool) -> tuple[str, list[str]]:
        """Return the dataset's name and the files to send, or say why they cannot be published."""
        where, ref = str(folder), str(_read(folder / "dataset-metadata.json").get("id"))
        owner = self.owner()
        need(owner, where, "a Kaggle login", "none", GET_A_TOKEN, "login")
        named = re.fullmatch(rf"{re.escape(str(owner))}/[a-z0-9-]{{6,50}}", ref)
        need(named, where, f"an id {owner}/ and 6 to 50 characters", ref, "correct dataset-metadata.json")
        entries = sorted(p for p in folder.iterdir() if p.name != "dataset-metadata.json")
        archives = () if may_unpack else UNPACKED
        odd = [p.name for p in entries if not p.is_file() or p.suffix.lower() in archives]
        odd += [p.name for p in entries[200:]]
        need(not odd, where, "a flat folder of at most 200 files, no archives", ", ".join(odd[:3]),
              "rename or remove them: folders are not sent, archives and .pt files are unpacked")  # fmt: skip
        found = _read(folder / FINGERPRINT).get("content_hash")
        need(found == fingerprint, where, f"{FINGERPRINT} with {fingerprint!r}", found, "stage it again")
        return ref, [p.name for p in entries]

    def _dataset_state(self, ref: str) -> _State:
        args = ["datasets", "status", ref, "--format", "json"]
        return self._unless(lambda: self._ask(args, ref, _dataset_status), ("", 0))

    def _await(
        self, ref: str, before: int | None = None, mark: str = "", names: Sequence[str] = ()
    ) -> _State:
        """Wait until nothing is processed or, after version `before`, until a new one shows its content."""
        deadline = time.monotonic() + self.ready_s
        while True:
            status, version = self._dataset_state(ref)
            lack = "" if status in ("", "ready", "failed", "deleted") else status
            if before is not None:
                new = status == "ready" and version > before
                seen = f"{status or 'absent'}, version {version}"
                lack = self._lacks(ref, mark, names) if new else seen
            if not lack:
                return status, version
            going_on = status != "failed" and time.monotonic() < deadline
            need(going_on, ref, f"a whole version, ready within {self.ready_s:.0f} s", lack,
                  f"look at kaggle.com/datasets/{ref}, then repeat", "ended")  # fmt: skip
            self._say(f"{ref}: not yet: {lack}")
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
        """Return what the dataset lacks to be the wanted one, '' if nothing."""
        with tempfile.TemporaryDirectory() as temporary:
            args = ["datasets", "download", ref, "-f", FINGERPRINT, "-p", temporary, "-o", "-q"]
            found = self._unless(
                lambda: self._ask(args, ref, lambda _: _json_in(temporary, "*")["content_hash"]),
                None, {*ABSENT, "content"},
            )  # fmt: skip
        if found != fingerprint:
            return f"the fingerprint shown is {found}"
        args = ["datasets", "files", ref, "--page-size", "200", "--format", "json"]
        there = self._ask(args, ref, lambda out: {str(row["name"]) for row in _json(out)})
        missing = [n for n in names if n not in there and not n.endswith((".whl", *UNPACKED))]
        return f"{len(missing)} files do not show, first {', '.join(missing[:3])}" if missing else ""

    def _check_sources(self, ref: str, meta: Mapping[str, Any]) -> None:
        """Refuse a push whose inputs Kaggle would leave out without stopping."""
        kernels, datasets = (meta.get(name, []) for name in ("kernel_sources", "dataset_sources"))
        found = [(f"dataset {s}, ready", self._dataset_state(_short(s))[0]) for s in datasets]
        found += [(f"kernel {s}, COMPLETE", self.newest_status(_short(s)).name) for s in kernels]
        for wanted, state in found:
            need(wanted.endswith(f", {state}"), ref, wanted, state or "none that you can read",
                  "publish or run it, and wait until it is", "sources")  # fmt: skip

    def _push(self, ref: str, folder: Path) -> Pushed:
        """Push once; again only if Kaggle refused for too many calls, since anything else may start a run."""

        def once() -> Pushed:
            reply = self._call(["kernels", "push", "-p", str(folder)], ref)
            left_out = re.findall(r"not valid (?!tags)(\w+) sources.*?: (\[.*\])", reply.stdout)
            need(not left_out, ref, "all sources", f"that Kaggle left out {left_out} and started the run without",
                  "correct them, delete the kernel to stop the run, then push", "sources")  # fmt: skip
            done = re.search(r"version (\d+) successfully pushed\. .*progress at (\S+)", reply.stdout)
            if not done:
                raise self._error(ref, reply)
            at = "/".join(done[2].split("?")[0].split("/")[-2:])
            need(at.lower() == ref.lower(), ref, "the run at this name", f"it at {done[2]}",
                  "correct id and title, and delete the other", "elsewhere")  # fmt: skip
            return Pushed(ref, int(done[1]), done[2])

        return self._retry(ref, once, final=PUSH_FINAL)

    def _verify_push(self, meta: Mapping[str, Any], pushed: Pushed) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            args = ["kernels", "pull", pushed.ref, "-p", temporary, "-m"]
            stored = self._unless(
                lambda: self._ask(args, pushed.ref, lambda _: _json_in(temporary, "*.json")), None, UNKNOWN
            )
        if stored is None:
            self._say(f"{pushed.ref}: pushed, but what was stored could not be read")
            return
        wrong = []
        for name in ("machine_shape", "enable_internet", "is_private", *_SOURCES):
            wanted, found = meta.get(name), stored.get(name)
            if name in _SOURCES:
                wanted, found = (sorted(map(_short, each or [])) for each in (wanted, found))
            if wanted not in (None, "", found):
                wrong.append(f"{name} {found!r} instead of {wanted!r}")
        need(not wrong, pushed.ref, "the pushed settings", ", ".join(wrong), f"look at {pushed.url}: version "
              f"{pushed.version} runs with them; delete it or let it end", "stored")  # fmt: skip

    def _fetch_manifest(self, ref: str, fresh: Path) -> dict[str, Any]:
        path = fresh / "manifest.json"
        self._output(ref, fresh, ["manifest.json"])
        if not path.is_file():
            status = self.kernel_status(ref)
            need(status.name == "COMPLETE", ref, "a run that is COMPLETE", " ".join(status).strip(),
                  "wait for its end; another end leaves no files", "ended")  # fmt: skip
            raise failure_of(ref, "a manifest.json among the outputs", "none", AGAIN, "content")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            listed = manifest["files"]
            whole = all(len(entry["sha256"]) == 64 and entry["bytes"] >= 0 for entry in listed.values())
            outside = [n for n in listed if n[:1] == "/" or {"..", "\\", ":"} & {*n, *n.split("/")}]
            if manifest["end"] == files.END_MARKER and whole and not outside:
                return dict(manifest)
            found = f"end {manifest['end']!r}, names outside the folder {outside[:3]}"
        except (ValueError, LookupError, TypeError, AttributeError) as err:
            found = f"{type(err).__name__}: {err}"
        raise failure_of(ref, "a whole manifest.json", self._clean(found), AGAIN, "content")

    def _fetch_files(self, ref: str, fresh: Path, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        missing = [name for name in wanted if not _is_right(fresh / name, wanted[name])]
        said = ""
        for start in range(0, len(missing), 100):
            names = missing[start : start + 100]
            try:
                self._output(ref, fresh, names, sum(int(wanted[name]["bytes"]) for name in names))
            except KaggleError as err:
                if err.kind in ("login", "client"):
                    raise
                said = f" ({err})"
        wrong = [name for name in missing if not _is_right(fresh / name, wanted[name])]
        sizes = [f"{name} (of {wanted[name]['bytes']} bytes)" for name in wrong[:3]]
        need(not wrong, ref, "every file of the manifest", f"{len(wrong)} absent or wrong, first "
              f"{', '.join(sizes)}{said}", AGAIN, "content")  # fmt: skip

    def _output(self, ref: str, fresh: Path, names: Iterable[str], n_bytes: int = 0) -> None:
        pattern = rf"\A(?:{'|'.join(map(re.escape, names))})\Z"
        args = f"kernels output {ref} -o --page-size 200 --file-pattern".split()
        self._call([*args, pattern, "-p", str(fresh)], ref, n_bytes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise failure_of(str(path), "a JSON object", err, "run python build_kernel.py", "metadata") from err


def _checked_kernel(folder: Path) -> dict[str, Any]:
    meta = _read(path := folder / "kernel-metadata.json")
    ref, title, todo = str(meta.get("id")), str(meta.get("title")), "run python build_kernel.py with a login"
    owner, _, slug = ref.partition("/")
    ok = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) and 5 <= len(slug) <= 50
    need(ok and owner and not owner.startswith("INSERT"), str(path), "an id owner/name, the name 5 to 50 "
          "lower-case letters, digits and single hyphens,", ref, todo)  # fmt: skip
    need(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") == slug, str(path), f"a title that makes {slug}",
          title, "write the name with blanks for hyphens, since the platform files it under the title")  # fmt: skip
    need("id_no" not in meta, str(path), "no id_no", meta.get("id_no"), "remove it")
    code = folder / str(meta.get("code_file"))
    need(code.is_file(), str(path), "the code_file", f"nothing at {code}", "run python build_kernel.py")
    if code.suffix == ".ipynb":
        notebook = _read(code)
        for cell in notebook.get("cells", []):  # as the client sends it
            cell.update({"outputs": []} if "outputs" in cell else {}, source="".join(cell["source"]))
    n_bytes = len(json.dumps(notebook)) if code.suffix == ".ipynb" else code.stat().st_size
    need(n_bytes < TEXT_LIMIT_BYTES, str(code), f"a text below {TEXT_LIMIT_BYTES:,} bytes", f"{n_bytes:,}",
          "move data out of it into a dataset", "too_large")  # fmt: skip
    return meta


def _json(out: str) -> Any:  # noqa: ANN401
    """Return the JSON value in an answer that may have lines of text before it."""
    found = re.search(r"^[\[{].*", out, re.MULTILINE | re.DOTALL)
    return json.JSONDecoder().raw_decode(found[0] if found else "")[0]


def _json_in(folder: str, pattern: str) -> Any:  # noqa: ANN401
    return json.loads(sorted(Path(folder).glob(pattern))[0].read_bytes())


def _config_values(out: str) -> dict[str, str]:
    values = dict(re.findall(r"^- (\w+): (.+)$", out, re.MULTILINE))
    return {"username": values["username"], "auth_method": values.get("auth_method", "")}


def _dataset_status(out: str) -> _State:
    found = _json(out)
    return str(found["status"]), int(found["current_version_number"] or 0)


def _kernel_status(out: str) -> Status:
    name = re.findall(r'has status "(?:\w+\.)?(\w+)"', out)[0]
    failure = re.findall(r'^Failure message: "(.*)"', out, re.MULTILINE | re.DOTALL)
    return Status(name, failure[0] if failure else "")


def _log_records(out: str) -> list[dict[str, Any]]:
    """Return every whole record, be they in a list or in lines, whatever stands between."""
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
