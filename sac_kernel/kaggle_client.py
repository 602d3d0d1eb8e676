"""The `kaggle` command line, driven and judged: publish a dataset, push a kernel, follow it, fetch its files.

The client ends with status 0 after many failures, drops files, saves error pages as files and can wait for
ever; here each call has a time limit and each answer is checked against what the platform then holds. A call
that failed can be repeated. No text made here holds a key or token. Sources: kaggle 2.2.4, 2.2.5, run locally.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sac_kernel import files
from sac_kernel.errors import KaggleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence, Set

T = TypeVar("T")
_log = logging.getLogger(__name__)
_Reply = subprocess.CompletedProcess[str]
_State = tuple[str, int]  # of a dataset: status, version
ACTIVE = ("QUEUED", "RUNNING")
FINGERPRINT = "fingerprint.json"
TEXT_LIMIT_BYTES = 900_000  # the platform refuses 1 MB; what of the text it counts is not known
SLOWEST_BYTES_PER_S = 50_000  # sets the time limit of an upload or download
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".pt", ".pth", ".npz")  # in a dataset, or may be
_SOURCES = ("dataset_sources", "kernel_sources", "competition_sources", "model_sources")
_CHATTER = ("Starting upload", "Upload successful", "Dataset URL", "License(s)", "Warning: Your Kaggle")
_AGAIN = "nothing was lost: repeat the command, later if it happens again"
_TOKEN = "make a token at kaggle.com/settings/api and put it into ~/.kaggle/access_token"  # noqa: S105
# How a failure reads, what it is in one word, what it means, what to do; the first that matches counts.
_CAUSES = (
    ("No module named", "client", "the kaggle client does not start", "run pip install -r requirements/run.txt"),
    ("no answer within", "timeout", "Kaggle did not answer in time", _AGAIN),
    ("Authentication required", "login", "Kaggle refused the login, or there is none", _TOKEN),
    ("_introspect_tok", "login_check", "Kaggle could not check the token", f"repeat later, or {_TOKEN}"),
    ("GPU session count", "gpu_busy", "two GPU runs are active, the limit", "wait until one ends, or use the CPU"),
    ("quota", "quota", "this week's GPU hours are used up", "wait for Saturday 00:00 UTC, or build for the CPU"),
    ("phone", "phone", "the account is not verified by phone", "verify it at kaggle.com/settings, then repeat"),
    ("1 megabyte", "too_large", "the notebook's text is too large", "move data out of it into a dataset"),
    ("Client Error.*ADDRESS", "address", "the address of a file has expired", _AGAIN),
    ("(Notebook|Kernel) not found", "absent", "you have no such kernel", "check the id's owner, remove id_no"),
    (r"\b409\b|Conflict", "conflict", "the name is taken by another notebook or dataset of yours, or in use",
     "give kernel and datasets different names; end a run or an editor that is open"),
    ("already in use", "exists", "a dataset of this name exists", "repeat: it gets a new version"),
    ("Upload unsuccessful|expired", "upload", "a file did not arrive", _AGAIN),
    (r"'datasets\.update'", "denied", "the version before is processed, or not yours", "wait, repeat; check owner"),
    (r"Cannot access kernel|'kernels\.", "denied", "no such kernel, or not yours", "check owner, name and login"),
    (r"was denied|\b403\b", "denied", "access was refused", "check the owner of the name, and the login"),
    (r"\b429\b|Too Many", "throttled", "Kaggle asks for fewer calls", "wait some minutes and repeat"),
    (r"\b404\b|Not found", "absent", "Kaggle knows no such name", "check owner and name"),
    ("Max retries|Connection|Remote|timed out|Failed to resolve", "connection", "the connection broke", _AGAIN),
    (r"\b5\d\d\b|Server Error|Service Unavailable|Expecting value", "server", "Kaggle had an error",
     f"{_AGAIN}; a dataset's name stays reserved once it was deleted: take another"),
    ("must|Invalid|detected, please|should be", "metadata", "the metadata was refused", "correct its file"),
)  # fmt: skip
# Kinds that a repetition at once does not mend; kinds after which a request may have taken effect; and all
# kinds but the two after which a push cannot have started a run.
_FINAL = {"client", "login", "denied", "absent", "conflict", "quota", "phone", "too_large", "metadata"}
_FINAL |= {"active", "sources", "stored", "ended"}
_ABSENT = {"absent", "denied"}  # a missing name may read as denied
_UNCLEAR = {"timeout", "connection", "server", "unknown"}
_UNKNOWN = _UNCLEAR | {"content", "throttled"}
_PUSH_FINAL = {c[1] for c in _CAUSES} - {"throttled", "login_check"} | _FINAL | {"unknown", "elsewhere"}


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


class KaggleClient:
    """Kaggle through its own command line, one process a call.

    Parameters
    ----------
    environ, python : environment (without VERBOSE, which prints tokens) and interpreter of the client
    timeout_s, poll_s : seconds; limit of one call (transfers get more, by size), and first pause between two
        tries or looks, doubled with each failed try up to a minute
    sleep, say : how to wait, and where a line of progress goes
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        python: str = sys.executable,
        *,
        timeout_s: float = 120.0,
        poll_s: float = 5.0,
        sleep: Callable[[float], object] = time.sleep,
        say: Callable[[str], object] = _log.info,
    ) -> None:
        given = os.environ if environ is None else environ
        self._env = {k: v for k, v in given.items() if not k.startswith("VERBOSE")} | {"PYTHONUTF8": "1"}
        self._python, self._timeout_s, self._poll_s, self._sleep = python, timeout_s, poll_s, sleep
        self.tries, self.ready_s = 5, 1800.0  # of one question; limit of processing a version
        self._secrets = self._find_secrets()
        self._say: Callable[[str], object] = lambda text: say(self._clean(text))
        self._owner: str | None = None

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
            _need(err.kind != "login", "login", "credentials that work", f"{', '.join(found)}, which the client "
                  "or Kaggle refuses", f"remove them, then {_TOKEN}", "login")  # fmt: skip
            raise
        tokens = [name for name in found if "token" in name.lower()]
        _need(not tokens or shown["auth_method"] == "ACCESS_TOKEN", "login", "one working way to log in",
              f"a token that does not work ({', '.join(tokens)}) beside the key of {shown['username']}, and the "
              "client would send the bad token with every request", "remove or renew the token", "login")  # fmt: skip
        self._owner = shown["username"]
        return self._owner

    def dataset_version(self, ref: str) -> int | None:
        """Return the newest ready version (0: the first is processed); None if there is none to read."""
        status, version = self._dataset_state(ref)
        return version if status else None

    def publish_dataset(self, folder: Path, fingerprint: str, notes: str) -> Published:
        """Bring a dataset on Kaggle to the content of `folder`; upload nothing if it is there already.

        The folder is flat and has dataset-metadata.json, whose id names the owner, and fingerprint.json, whose
        `content_hash` is `fingerprint`; what is published is recognised by it. `notes` go with the version.

        Raises
        ------
        KaggleError
            If the folder cannot be published, or Kaggle does not show this content in time; then call again.
        """
        folder = Path(folder).resolve()
        ref, names = self._check_dataset(folder, fingerprint)
        sent = False

        def bring() -> Published:
            nonlocal sent
            status, before = self._await(ref)
            if status and not self._lacks(ref, fingerprint, names):
                return Published(ref, before, sent)
            sent = True
            self._upload(ref, folder, names, ["version", f"--message={notes}"] if status else ["create"])
            _, version = self._await(ref, before, fingerprint, names)
            return Published(ref, version, sent)

        return self._retry(ref, bring, min(self.tries, 3), _FINAL - _ABSENT)

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
        before = self._state(ref)
        _need(before.name not in ACTIVE, ref, "no active run", before.name, "follow or delete it", "active")
        self._check_sources(ref, meta)
        try:
            pushed = self._push(ref, folder)
        except KaggleError as err:
            after = self._state(ref) if err.kind in _UNCLEAR else before
            if after == before or not (after.name in ACTIVE or not before.name):
                raise
            self._say(f"{ref}: the answer to the push was lost, but it took effect: {after.name}")
            pushed = Pushed(ref, None, f"https://www.kaggle.com/code/{ref}")
        self._verify_push(meta, pushed)
        return pushed

    def kernel_status(self, ref: str) -> Status:
        """Return the newest session's state; right after a push it may still be that of the one before."""
        return self._ask(["kernels", "status", ref], ref, _kernel_status)

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
        return self._unless(lambda: self._ask(args, "quota", _gpu_quota), None, _UNKNOWN)

    def delete_kernel(self, ref: str) -> None:
        """Delete the kernel: an active run stops, its outputs and logs are lost. Gone already: KaggleError."""
        _need(self._state(ref).name, ref, "a kernel of yours", "none", "check owner and name", "absent")
        # A second try that finds nothing: the first took effect, its answer was lost.
        self._unless(lambda: self._ask(["kernels", "delete", ref, "-y"], ref, str), "")

    # -- the client's process, then the parts of publishing, pushing and fetching

    def _call(self, args: Sequence[str], where: str, n_bytes: int = 0) -> _Reply:
        """Run the client once; raise its error unless it ended with status 0, which alone proves little."""
        timeout_s = self._timeout_s + n_bytes / SLOWEST_BYTES_PER_S
        command = [self._python, "-P", "-m", "kaggle", "-W", *args]
        with tempfile.TemporaryDirectory(prefix="kaggle-", ignore_cleanup_errors=True) as temporary:
            # In a shared folder it would take the tokens of unfinished uploads for those of other content.
            env = self._env | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
            try:
                reply = subprocess.run(  # noqa: S603  # this interpreter, arguments as a list
                    command, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                    errors="replace", timeout=timeout_s, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                reply = _Reply(command, 1, "", f"no answer within {timeout_s:.0f} s")
        if reply.returncode != 0:
            raise self._error(where, reply)
        return reply

    def _ask(self, args: Sequence[str], where: str, read: Callable[[str], T]) -> T:
        """Run a command that may be repeated until it answers; return what `read` makes of its answer."""

        def once() -> T:
            reply = self._call(args, where)
            try:
                return read(reply.stdout)
            except (ValueError, LookupError, TypeError, OSError) as err:
                required = f"an answer to {' '.join(args[:2])!r}"
                raise _failure(where, required, self._said(reply)[:300], _AGAIN, "content") from err

        return self._retry(where, once)

    def _unless(self, act: Callable[[], T], otherwise: T, kinds: Set[str] = _ABSENT) -> T:
        """Return what `act` returns, `otherwise` after one of these failures."""
        try:
            return act()
        except KaggleError as err:
            if err.kind not in kinds:
                raise
            return otherwise

    def _retry(self, where: str, act: Callable[[], T], tries: int = 0, final: Set[str] = _FINAL) -> T:
        """Return what `act` returns, trying again after a failure that may pass, with growing pauses."""
        for attempt in range(1, tries := tries or self.tries):
            try:
                return act()
            except KaggleError as err:
                if err.kind in final:
                    raise
                self._say(f"{where}: try {attempt} of {tries} failed: {err}")
            self._sleep(min(self._poll_s * 2 ** (attempt - 1), 60.0))
        return act()

    def _error(self, where: str, reply: _Reply) -> KaggleError:
        said = self._said(reply)
        told = re.sub(r"port=\d+|\d+ bytes", "", said) + "".join(re.findall("_introspect_tok", reply.stderr))
        plain = re.sub(r"\S*://\S+", lambda url: "RPC" if "Service/" in url[0] else "ADDRESS", told)
        for pattern, kind, found, todo in _CAUSES:
            if re.search(pattern, plain):
                return KaggleError(f"{where}: {found}: {said[:300]!r}; {todo}", kind)
        return _failure(where, "success", f"the client's {said[:300]!r}", _AGAIN, "unknown")

    def _said(self, reply: _Reply) -> str:
        """Return what matters of a reply, without secrets."""
        errors = [line.strip() for line in reply.stderr.splitlines() if line.strip() and "B/s]" not in line]
        lines = errors[-1:] if "Traceback" in reply.stderr else errors
        lines += [line for line in reply.stdout.splitlines() if line and not line.startswith(_CHATTER)]
        return self._clean(" | ".join(lines))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(Bearer|Basic) \S+", r"\1 ***", re.sub(r"://[^\s/@]+@", "://***@", text))
        return re.sub(r"(://[^\s?]*)\?\S+", r"\1?***", text)

    def _credential_files(self) -> list[Path]:
        home = Path(self._env.get("HOME") or self._env.get("USERPROFILE") or Path.home())
        config = Path(self._env.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
        chosen = self._env.get("KAGGLE_CONFIG_DIR")
        paths = [home / ".kaggle" / name for name in ("access_token", "access_token.txt", "credentials.json")]
        paths += [Path(t) for t in [self._env.get("KAGGLE_API_TOKEN", "")] if len(t) < 256]  # may name a file
        paths += [p / "kaggle.json" for p in ([Path(chosen)] if chosen else [home / ".kaggle", config])]
        return [path for path in paths if path.is_file() and path.stat().st_size]

    def _find_secrets(self) -> list[str]:
        """Return the values that may appear in no text, longest first."""
        found = [v for k, v in self._env.items() if re.search("KAGGLE.*(KEY|TOKEN|SECRET|PASSWORD)", k)]
        for path in self._credential_files():
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            found += re.findall(r'"\w*(?:key|token)\w*"\s*:\s*"([^"]+)"', text) or [text]
        return sorted({value for value in found if len(value) > 5}, key=len, reverse=True)

    def _check_dataset(self, folder: Path, fingerprint: str) -> tuple[str, list[str]]:
        """Return the dataset's name and the files to send, or say why they cannot be published."""
        where, ref = str(folder), str(_read(folder / "dataset-metadata.json").get("id"))
        owner = self.owner()
        _need(owner, where, "a Kaggle login", "none", _TOKEN, "login")
        named = re.fullmatch(rf"{re.escape(str(owner))}/[a-z0-9-]{{6,50}}", ref)
        _need(named, where, f"an id {owner}/ and 6 to 50 characters", ref, "correct dataset-metadata.json")
        entries = sorted(p for p in folder.iterdir() if p.name != "dataset-metadata.json")
        odd = [p.name for p in entries if not p.is_file() or p.suffix.lower() in UNPACKED]
        odd += [p.name for p in entries[200:]]
        _need(not odd, where, "a flat folder of at most 200 files, no archives", ", ".join(odd[:3]),
              "rename or remove them: folders are not sent, archives and .pt files are unpacked")  # fmt: skip
        found = _read(folder / FINGERPRINT).get("content_hash")
        _need(found == fingerprint, where, f"{FINGERPRINT} with {fingerprint!r}", found, "stage it again")
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
            _need(going_on, ref, f"a whole version, ready within {self.ready_s:.0f} s", lack,
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
                None, {*_ABSENT, "content"},
            )  # fmt: skip
        if found != fingerprint:
            return f"the fingerprint shown is {found}"
        args = ["datasets", "files", ref, "--page-size", "200", "--format", "json"]
        there = self._ask(args, ref, lambda out: {str(row["name"]) for row in _json(out)})
        missing = [n for n in names if n not in there and not n.endswith(".whl")]  # may be unpacked
        return f"{len(missing)} files do not show, first {', '.join(missing[:3])}" if missing else ""

    def _state(self, ref: str) -> Status:
        return self._unless(lambda: self.kernel_status(ref), Status("", ""))

    def _check_sources(self, ref: str, meta: Mapping[str, Any]) -> None:
        """Refuse a push whose inputs Kaggle would leave out without stopping."""
        kernels, datasets = (meta.get(name, []) for name in ("kernel_sources", "dataset_sources"))
        found = [(f"dataset {s}, ready", self._dataset_state(_short(s))[0]) for s in datasets]
        found += [(f"kernel {s}, COMPLETE", self._state(_short(s)).name) for s in kernels]
        for wanted, state in found:
            _need(wanted.endswith(f", {state}"), ref, wanted, state or "none that you can read",
                  "publish or run it, and wait until it is", "sources")  # fmt: skip

    def _push(self, ref: str, folder: Path) -> Pushed:
        """Push once; again only if Kaggle refused for too many calls, since anything else may start a run."""

        def once() -> Pushed:
            reply = self._call(["kernels", "push", "-p", str(folder)], ref)
            left_out = re.findall(r"not valid (?!tags)(\w+) sources.*?: (\[.*\])", reply.stdout)
            _need(not left_out, ref, "all sources", f"that Kaggle left out {left_out} and started the run without",
                  "correct them, delete the kernel to stop the run, then push", "sources")  # fmt: skip
            done = re.search(r"version (\d+) successfully pushed\. .*progress at (\S+)", reply.stdout)
            if not done:
                raise self._error(ref, reply)
            at = "/".join(done[2].split("?")[0].split("/")[-2:])
            _need(at.lower() == ref.lower(), ref, "the run at this name", f"it at {done[2]}",
                  "correct id and title, and delete the other", "elsewhere")  # fmt: skip
            return Pushed(ref, int(done[1]), done[2])

        return self._retry(ref, once, final=_PUSH_FINAL)

    def _verify_push(self, meta: Mapping[str, Any], pushed: Pushed) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            args = ["kernels", "pull", pushed.ref, "-p", temporary, "-m"]
            stored = self._unless(
                lambda: self._ask(args, pushed.ref, lambda _: _json_in(temporary, "*.json")), None, _UNKNOWN
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
        _need(not wrong, pushed.ref, "the pushed settings", ", ".join(wrong), f"look at {pushed.url}: version "
              f"{pushed.version} runs with them; delete it or let it end", "stored")  # fmt: skip

    def _fetch_manifest(self, ref: str, fresh: Path) -> dict[str, Any]:
        path = fresh / "manifest.json"
        self._output(ref, fresh, ["manifest.json"])
        if not path.is_file():
            status = self.kernel_status(ref)
            _need(status.name == "COMPLETE", ref, "a run that is COMPLETE", " ".join(status).strip(),
                  "wait for its end; another end leaves no files", "ended")  # fmt: skip
            raise _failure(ref, "a manifest.json among the outputs", "none", _AGAIN, "content")
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
        raise _failure(ref, "a whole manifest.json", self._clean(found), _AGAIN, "content")

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
        _need(not wrong, ref, "every file of the manifest", f"{len(wrong)} absent or wrong, first "
              f"{', '.join(sizes)}{said}", _AGAIN, "content")  # fmt: skip

    def _output(self, ref: str, fresh: Path, names: Iterable[str], n_bytes: int = 0) -> None:
        pattern = rf"\A(?:{'|'.join(map(re.escape, names))})\Z"
        args = f"kernels output {ref} -o --page-size 200 --file-pattern".split()
        self._call([*args, pattern, "-p", str(fresh)], ref, n_bytes)


def _failure(where: str, required: str, found: object, todo: str, kind: str) -> KaggleError:
    return KaggleError(f"{where}: {required} required, found {found}; {todo}", kind)


def _need(ok: object, where: str, required: str, found: object, todo: str, kind: str = "metadata") -> None:
    """Raise KaggleError unless `ok`."""
    if not ok:
        raise _failure(where, required, found, todo, kind)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise _failure(str(path), "a JSON object", err, "run python build_kernel.py", "metadata") from err


def _checked_kernel(folder: Path) -> dict[str, Any]:
    meta = _read(path := folder / "kernel-metadata.json")
    ref, title, todo = str(meta.get("id")), str(meta.get("title")), "run python build_kernel.py with a login"
    owner, _, slug = ref.partition("/")
    ok = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) and 5 <= len(slug) <= 50
    _need(ok and owner and not owner.startswith("INSERT"), str(path), "an id owner/name, the name 5 to 50 "
          "lower-case letters, digits and single hyphens,", ref, todo)  # fmt: skip
    _need(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") == slug, str(path), f"a title that makes {slug}",
          title, "write the name with blanks for hyphens, since the platform files it under the title")  # fmt: skip
    _need("id_no" not in meta, str(path), "no id_no", meta.get("id_no"), "remove it")
    code = folder / str(meta.get("code_file"))
    _need(code.is_file(), str(path), "the code_file", f"nothing at {code}", "run python build_kernel.py")
    if code.suffix == ".ipynb":
        notebook = _read(code)
        for cell in notebook.get("cells", []):  # as the client sends it
            cell.update({"outputs": []} if "outputs" in cell else {}, source="".join(cell["source"]))
    n_bytes = len(json.dumps(notebook)) if code.suffix == ".ipynb" else code.stat().st_size
    _need(n_bytes < TEXT_LIMIT_BYTES, str(code), f"a text below {TEXT_LIMIT_BYTES:,} bytes", f"{n_bytes:,}",
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
