"""Every known failure of Kaggle and its client is injected, reported and survived; the table in docs comes from here.

Each row drives the real `kaggle` client against the local platform, and reads what was lost from that
platform's state. `python -m tests.kaggle.test_failures` regenerates docs/kaggle-failures.md.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sac_kernel.core import files
from sac_kernel.core.errors import KaggleError
from sac_kernel.core.homes import Home
from sac_kernel.kaggle import run as run_module
from sac_kernel.kaggle.client import KaggleClient
from sac_kernel.kaggle.run import KaggleRun
from sac_kernel.kaggle.run import fingerprint as run_fingerprint
from tests.kaggle_standin import (
    Body,
    Drop,
    Expired,
    KaggleStandin,
    Partial,
    Silence,
    Status,
    client_python,
    kaggle_env,
)
from tests.kaggle_standin.client import PLAIN
from tests.kaggle_standin.samples import write_dataset, write_kernel
from tests.support import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Names = tuple[str, ...]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kaggle-failures.md"
KEY = "planted-key-0123456789abcdef01234567"
TOKEN = "KGAT_planted_token_0123456789"
BUSY = Body({"status": "BLOBS_RECEIVED"})
HTML = "<html><body>Something went wrong</body></html>"
OUTPUTS = {"model.bin": b"weights" * 9, "logs/stats.json": b"{}", "summary.json": b"[1]"}
WRITES_OUTPUTS = f"""
import hashlib, json, os
os.makedirs("logs")
listed = {{}}
for name, content in {OUTPUTS!r}.items():
    open(name, "wb").write(content)
    listed[name] = {{"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
json.dump({{"files": listed, "end": "complete"}}, open("manifest.json", "w"))
print("done")
"""


class Scene:
    """One platform shared by all rows, a client of it, and what the row's user saw."""

    def __init__(self, kaggle: KaggleStandin, root: Path) -> None:
        self.kaggle, self.root = kaggle, root
        self.env = kaggle_env(kaggle, root / "home")
        self.shared = self.new_client(self.env)
        self.numbers = itertools.count(1)
        self.start()

    def start(self) -> None:
        """Forget what the row before saw and asked."""
        self.seen: list[str] = []
        self.kind = ""
        self.number = next(self.numbers)
        self.client = self.shared
        self.kaggle.faults.clear()
        self.kaggle.requests.clear()

    def new_client(self, env: dict[str, str], tries: int = 5, **settings: Any) -> KaggleClient:
        client = KaggleClient(
            env, **{"python": client_python(), "poll_s": 0.001, "say": self.say, **settings}
        )
        client.tries = tries
        return client

    def say(self, line: str) -> None:
        self.seen.append(line)

    def login(self, name: str, auth: str = "none", python: str = "", **variables: str) -> KaggleClient:
        """Return a client with a home of its own and these variables."""
        home = self.root / f"home-{name}-{self.number}"
        env = {**kaggle_env(self.kaggle, home, auth=auth), **variables}
        return self.new_client(env, python=python or client_python())

    @contextlib.contextmanager
    def refused(self, kind: str) -> Iterator[None]:
        with pytest.raises(KaggleError) as caught:
            yield
        self.kind = caught.value.kind
        self.seen.append(str(caught.value))
        assert self.kind == kind, str(caught.value)

    # -- datasets

    @property
    def ref(self) -> str:
        return f"tester/row-{self.number:03d}-data"

    def folder(self, content: str = "one", **more: Any) -> Path:
        folder = self.root / f"dataset-{self.number}"
        body = {"bars.bin": content.encode() * 20, "fingerprint.json": fingerprint(content)}
        write_dataset(folder, self.ref, body)
        if more:
            path = folder / "dataset-metadata.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
        return folder

    def at_one_time(self, content: str) -> Path:
        """Return the folder with file times that are always the same."""
        folder = self.folder(content)
        for path in folder.iterdir():
            os.utime(path, (1e9, 1e9))
        return folder

    def publish(self, content: str = "one", **more: Any) -> int:
        """Publish, and check that the platform then holds exactly this content, in its newest version."""
        published = self.client.publish_dataset(self.folder(content, **more), content, "note")
        self.holds(content)
        assert published.version == self.kaggle.datasets[self.ref].latest.number
        return len(self.kaggle.datasets[self.ref].versions)

    def holds(self, content: str) -> None:
        found = {p.name: p.read_bytes() for p in self.kaggle.datasets[self.ref].latest.files()}
        assert found == {"bars.bin": content.encode() * 20, "fingerprint.json": fingerprint(content)}

    def given(self, content: str = "one") -> None:
        """Put the dataset there without the client."""
        body = {"bars.bin": content.encode() * 20, "fingerprint.json": fingerprint(content)}
        self.kaggle.add_dataset(self.ref, body)

    # -- runs

    def run(self, more: str = "") -> KaggleRun:
        """Return a run with a home of its own in this row's clone."""
        clone = self.root / f"clone-{self.number}"
        clone.mkdir(exist_ok=True)
        (clone / "kernel-metadata.json").write_text((ROOT / "kernel-metadata.json").read_text())
        home = Home(clone, f"row-{self.number:03d}{more}")
        return KaggleRun(self.client, "tester", home, home.outputs, say=self.say)

    def prepared(self) -> KaggleRun:
        """Return a run that was built and staged."""
        run = self.run()
        run.write_kernel("{}", ["data"], "none")
        run.prepare({}, "run", {"data": run_fingerprint(self.staged(run))}, fresh=False)
        return run

    def staged(self, run: KaggleRun) -> Path:
        """Return the staged data of a run."""
        return write_dataset(run.home.dataset("data"), run.dataset("data"), {"bars.bin": b"bars"})

    def ran(self, run: KaggleRun, source: str) -> None:
        """Run a kernel in the place of a run's until it is over."""
        self.shared.push_kernel(write_kernel(self.root / f"kernel-{run.name}", run.kernel, source))
        self.kaggle.wait_status(run.kernel, "COMPLETE")

    def quota(self, used_h: float) -> Body:
        used = {"timeUsed": f"{3600 * used_h:.0f}s", "totalTimeAllowed": "108000s"}
        return Body({"gpuQuota": used, "quotaRefreshTime": "2026-12-05T00:00:00Z"})

    # -- kernels

    @property
    def kernel(self) -> str:
        return f"tester/row-{self.number:03d}-train"

    def kernel_folder(self, source: str = "print(1)", **metadata: Any) -> Path:
        return write_kernel(self.root / f"kernel-{self.number}", self.kernel, source, **metadata)

    def push(self, **metadata: Any) -> Any:
        return self.client.push_kernel(self.kernel_folder(**metadata))

    def runs(self) -> int:
        """Return how often this row's kernel was started."""
        kernel = self.kaggle.kernels.get(self.kernel)
        return len(kernel.sessions) if kernel else 0

    def out(self) -> Path:
        return self.root / f"out-{self.number}"

    def fetch(self) -> None:
        """Fetch, and check that exactly the run's files are there."""
        self.client.fetch_outputs(DONE, self.out())
        assert tree(self.out()).keys() == {*OUTPUTS, "manifest.json"}
        assert {name: tree(self.out())[name] for name in OUTPUTS} == OUTPUTS


DONE = "tester/done-train"


class patched_clock:  # noqa: N801  # a context manager
    """The clock of `follow`: it advances by what is slept."""

    now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s

    def __enter__(self) -> patched_clock:
        self._time = run_module.time
        run_module.time = self  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        run_module.time = self._time


def fingerprint(content: str) -> bytes:
    return json.dumps({"content_hash": content}).encode()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@dataclass(frozen=True)
class Row:
    name: str
    area: str
    injected: str
    names: Names
    ends: str
    act: Callable[[Scene], None]


ROWS: list[Row] = []
MENDED = ("file_cut_off",)  # a newer client resumes it by itself


def row(
    area: str, injected: str, names: Names, ends: str, name: str = ""
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Add a failure: how it is injected, what the user's message names, and how it ends."""

    def add(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
        ROWS.append(Row(name or act.__name__, area, injected, names, ends, act))
        return act

    return add


ERROR = "error, nothing was started or changed"
NAMED = "error that says how to stop the run which started"

# -- login


@row("Login", "no credentials at all", ("login", "~/.kaggle/access_token"), ERROR)
def no_credentials(s: Scene) -> None:
    s.client = s.login("none")
    assert s.client.owner() is None
    with s.refused("login"):
        s.publish()
    assert s.kaggle.requests == []


@row("Login", "a token that Kaggle does not know", ("KAGGLE_API_TOKEN", "~/.kaggle/access_token"), ERROR)
def unknown_token(s: Scene) -> None:
    with s.refused("login"):
        s.login("bad", KAGGLE_API_TOKEN=TOKEN).owner()


@row("Login", "a bad token beside a good kaggle.json", ("access_token", "tester"), ERROR)
def bad_token_beside_a_good_key(s: Scene) -> None:
    client = s.login("mixed")
    home = s.root / f"home-mixed-{s.number}"
    key = {"username": "tester", "key": s.kaggle.rules.key}
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps(key))
    (home / ".kaggle" / "access_token").write_text(TOKEN)
    client = s.login("mixed")
    with s.refused("login"):
        client.owner()


@row("Login", "a kaggle.json that is not JSON", ("kaggle.json",), ERROR)
def damaged_key_file(s: Scene) -> None:
    s.login("damaged")
    (s.root / f"home-damaged-{s.number}" / ".kaggle" / "kaggle.json").write_text(f"key = {KEY}")
    with s.refused("login"):
        s.login("damaged").owner()


@row("Login", "KAGGLE_USERNAME without KAGGLE_KEY", ("KAGGLE_USERNAME",), ERROR)
def user_name_without_key(s: Scene) -> None:
    with s.refused("login"):
        s.login("half", KAGGLE_USERNAME="tester").owner()


@row("Login", "a wrong key (HTTP 401)", ("login", "kaggle.com/settings/api"), ERROR)
def wrong_key(s: Scene) -> None:
    s.client = s.login("wrong", KAGGLE_USERNAME="tester", KAGGLE_KEY=KEY)
    with s.refused("login"):
        s.publish()
    assert s.ref not in s.kaggle.datasets


@row("Login", "503 when the token is checked", ("injected 503", "try 1 of 5"), "repeated, continues")
def token_check_503(s: Scene) -> None:
    s.kaggle.fault("IntrospectToken", Status(503), Status(503))  # the client asks twice
    assert s.login("token", auth="token").owner() == "tester"


@row(
    "Login",
    "the login expires during the work (401, OAuth after 12 h)",
    ("login", "~/.kaggle/access_token"),
    ERROR,
)
def login_ends_during_the_work(s: Scene) -> None:
    s.kaggle.fault("GetDatasetStatus", Status(401))
    with s.refused("login"):
        s.publish()


@row(
    "Login",
    "VERBOSE=1, with which the client prints tokens",
    ("Service Unavailable", "try 1 of 5"),
    "removed, continues",
)
def verbose_client(s: Scene) -> None:
    s.given()
    s.kaggle.fault("GetDatasetStatus", Status(503, "Service Unavailable"))
    assert s.login("verbose", auth="token", VERBOSE="1").dataset_version(s.ref) == 1


@row(
    "Login",
    "the client cannot start (a module is missing)",
    ("six_is_absent", "pip install -r requirements/run.txt"),
    ERROR,
)
def client_cannot_start(s: Scene) -> None:
    stub = s.root / "stub" / "kaggle"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("import six_is_absent")
    with s.refused("client"):
        s.login("stub", auth="legacy", python=PLAIN, PYTHONPATH=str(stub.parent)).owner()


# -- answers that may be asked for again


def asked_again(name: str, injected: str, names: Names, *faults: Any, **settings: Any) -> None:
    @row("Polling", injected, names, "repeated after a pause, continues", name)
    def act(s: Scene) -> None:
        s.given()
        s.client = s.new_client(s.env, **settings)
        s.kaggle.fault("GetDatasetStatus", *faults)
        assert s.client.dataset_version(s.ref) == 1
        assert len(s.kaggle.calls("GetDatasetStatus")) == len(faults) + 1


asked_again("polling_429", "429", ("Too Many Requests", "try 1 of 5"), Status(429, "Too Many Requests"))
asked_again("polling_429_page", "429 as an error page", ("429", "try 1 of 5"), Status(429, HTML, html=True))
asked_again("polling_503_page", "503 as an error page", ("503", "try 1 of 5"), Status(503, HTML, html=True))
asked_again("polling_500_unknown", "500, an unknown text", ("'oops'", "try 1 of 5"), Status(500, "oops"))
asked_again("polling_drop", "the connection drops", ("RemoteDisconnected", "try 1 of 5"), Drop())
asked_again(
    "polling_html_200",
    "a page of HTML with status 200",
    ("Expecting value", "try 1 of 5"),
    Status(200, HTML, html=True),
)
asked_again("polling_silence", "silence", ("6 s", "try 1 of 5"), Silence(60.0), timeout_s=6.0)
asked_again(
    "polling_unknown_status",
    "a status that the client does not know",
    ("'NEVER_SEEN'", "try 1 of 5"),
    Body({"status": "NEVER_SEEN"}),
)


@row("Polling", "503 every time", ("Service Unavailable", "try 4 of 5"), "error after 5 tries")
def polling_503_without_end(s: Scene) -> None:
    s.kaggle.fault("GetDatasetStatus", *[Status(503, "Service Unavailable")] * 5)
    with s.refused("server"):
        s.client.dataset_version(s.ref)
    assert len(s.kaggle.calls("GetDatasetStatus")) == 5


# -- publishing


@row(
    "Publishing",
    "an error in the body of an answer, or `{}`, exit status 0",
    ("no room", "try 2 of 3"),
    "sent again, continues",
)
def error_in_the_body(s: Scene) -> None:
    s.kaggle.fault("CreateDataset", Body({"status": "error", "error": "no room"}), Body({}))
    assert s.publish() == 1


@row(
    "Publishing",
    "an upload gets 403, another stops halfway and expires: the client leaves files out, exit status 0",
    ("fingerprint.json", "bars.bin", "try 1 of 3"),
    "sent again: the last version lacks no file",
)
def upload_403_and_expired(s: Scene) -> None:
    s.kaggle.fault("blob", Status(403), Partial(5), Status(404))
    assert s.publish() in (1, 2)  # 2.2.5 creates nothing, 2.2.4 a version without the files


@row(
    "Publishing",
    "an upload stops halfway, then its connection drops",
    ("2 files",),
    "the client resumes the upload",
)
def upload_resumed(s: Scene) -> None:
    s.kaggle.fault("blob", Partial(5), Drop())
    assert s.publish() == 1


@row("Publishing", "silence during an upload", ("6 s", "try 1 of 3"), "stopped and sent again, continues")
def upload_silence(s: Scene) -> None:
    s.client = s.new_client(s.env, timeout_s=6.0)
    s.kaggle.fault("blob", Silence(60.0))
    assert s.publish() == 1


@row(
    "Publishing",
    "429 to the start of an upload, ten times",
    ("Too Many Requests", "try 1 of 3"),
    "sent again, continues",
)
def upload_429(s: Scene) -> None:
    s.kaggle.fault("StartBlobUpload", *[Status(429, "Too Many Requests", retry_after=0)] * 10)
    assert s.publish() == 1


@row(
    "Publishing",
    "the answer to the creation is lost after it took effect",
    ("RemoteDisconnected", "try 1 of 3"),
    "recognised by its fingerprint: one version",
)
def creation_answer_lost(s: Scene) -> None:
    s.kaggle.fault("CreateDataset", Drop(processed=True))
    assert s.publish() == 1


@row(
    "Publishing",
    "a failed upload, then other content of the same size and time (the client would send the old content)",
    ("'Invalid note'",),
    "error; the repeated call sends the new content",
)
def upload_of_same_size_and_time(s: Scene) -> None:
    s.given("old")
    s.kaggle.fault("CreateDatasetVersion", Status(400, "Invalid note"))
    with s.refused("metadata"):
        s.client.publish_dataset(s.at_one_time("aaa"), "aaa", "note")
    s.client.publish_dataset(s.at_one_time("bbb"), "bbb", "note")
    s.holds("bbb")


@row(
    "Publishing",
    "403 to a new version: the one before is still processed",
    ("datasets.update", "try 1 of 3"),
    "sent again, continues",
)
def version_403(s: Scene) -> None:
    s.given("old")
    s.kaggle.fault("CreateDatasetVersion", Status(403, "Permission 'datasets.update' was denied"))
    assert s.publish() == 2


@row("Publishing", "`ready`, but of the version before", ("ready", "version 1"), "waits for the new number")
def ready_of_the_version_before(s: Scene) -> None:
    s.given("old")
    stale = Body({"ref": s.ref, "currentVersionNumber": 1})
    s.kaggle.fault("GetDataset", stale, stale, stale)
    assert s.publish() == 2


@row(
    "Publishing",
    "new number, but the old files are still served",
    ("fingerprint",),
    "waits for the new files",
)
def old_files_still_served(s: Scene) -> None:
    s.given("old")
    s.kaggle.fault("DownloadDataset", *[Body({"content_hash": "old"})] * 2)
    assert s.publish() == 2


@row("Publishing", "the status is not known yet (`{}`)", ("not_yet_persisted",), "waits, continues")
def status_not_known_yet(s: Scene) -> None:
    s.given("old")
    s.kaggle.fault("GetDatasetStatus", Body({}))
    assert s.publish() == 2


@row("Publishing", "a version whose processing never ends", ("blobs_received",), "error after a time limit")
def processed_without_end(s: Scene) -> None:
    s.given()
    s.client = s.new_client(s.env)
    s.client.ready_s = 0.0
    s.kaggle.fault("GetDatasetStatus", BUSY)
    with s.refused("ended"):
        s.publish()
    assert s.publish() == 1  # repeated: nothing is uploaded twice
    assert s.kaggle.calls("blob") == []


@row(
    "Publishing",
    "the platform fails to process the version",
    ("failed", "version 1"),
    "error; repeating the command sends it again",
)
def processing_fails(s: Scene) -> None:
    s.given("old")
    s.kaggle.fault("GetDatasetStatus", Body({"status": "READY"}), Body({"status": "FAILED"}))
    s.kaggle.fault("GetDataset", *[Body({"ref": s.ref, "currentVersionNumber": 1})] * 2)
    with s.refused("ended"):
        s.publish()


@row(
    "Publishing",
    "keywords that do not exist (the client then prints nothing else)",
    ("tags", "'nonsense'"),
    "recognised by its fingerprint",
)
def unknown_keywords(s: Scene) -> None:
    s.given("old")
    assert s.publish(keywords=["nonsense"]) == 2


@row(
    "Publishing",
    "the address of the fingerprint has expired",
    ("403", "fingerprint.json"),
    "repeated; nothing is uploaded",
)
def fingerprint_address_expired(s: Scene) -> None:
    s.given()
    s.kaggle.fault("download", Expired())
    assert s.publish() == 1
    assert s.kaggle.calls("StartBlobUpload") == []


@row("Publishing", "the name of a deleted dataset (500)", ("Internal Server Error", "name"), ERROR)
def deleted_dataset_name(s: Scene) -> None:
    s.kaggle.platform.shelf.deleted.add(s.ref)
    s.client = s.new_client(s.env, tries=1)
    with s.refused("server"):
        s.publish()


@row("Publishing", "a title of 3 letters", ("title", "6", "50"), ERROR)
def short_title(s: Scene) -> None:
    with s.refused("metadata"):
        s.publish(title="abc")
    assert s.kaggle.calls("StartBlobUpload") == []


def not_published(name: str, injected: str, names: Names, spoil: Callable[[Path], object]) -> None:
    @row("Publishing", injected, names, ERROR, name)
    def act(s: Scene) -> None:
        folder = s.folder()
        spoil(folder)
        with s.refused("metadata"):
            s.client.publish_dataset(folder, "one", "note")
        assert s.kaggle.requests == []


not_published(
    "folder_in_the_folder",
    "a folder in the folder (the client leaves it out)",
    ("sub", "200 files"),
    lambda f: (f / "sub").mkdir(),
)
not_published("pt_file", "a .pt file (the platform unpacks it)", ("m.pt",), lambda f: (f / "m.pt").touch())
not_published(
    "insert_owner",
    "INSERT_OWNER in the metadata",
    ("INSERT_OWNER/x-data", "dataset-metadata.json"),
    lambda f: (f / "dataset-metadata.json").write_text('{"id": "INSERT_OWNER/x-data"}'),
)
not_published(
    "other_fingerprint",
    "a fingerprint of other content",
    ("fingerprint.json", "'one'", "two"),
    lambda f: (f / "fingerprint.json").write_bytes(fingerprint("two")),
)

# -- pushing


def not_pushed(name: str, injected: str, names: Names, kind: str, **metadata: Any) -> None:
    @row("Pushing", injected, names, ERROR, name)
    def act(s: Scene) -> None:
        with s.refused(kind):
            s.push(**metadata)
        assert s.kaggle.calls("SaveKernel") == []


not_pushed(
    "title_of_another_name",
    "a title that does not match the name (it would cause 403 on status)",
    ("kernel-metadata.json", "other name"),
    "metadata",
    title="other name",
)
not_pushed("stale_id_no", "a stale id_no", ("id_no", "17"), "metadata", id_no=17)
not_pushed(
    "notebook_not_json", "a notebook that is not JSON", ("k.ipynb", "JSON"), "metadata", code_file="k.ipynb"
)
not_pushed(
    "notebook_too_large",
    "a notebook above 900 kB",
    ("900,000 bytes", "900,001"),
    "too_large",
    source="#" * 900_001,
)
not_pushed(
    "missing_data_source",
    "a data source that does not exist",
    ("tester/never-made",),
    "sources",
    dataset_sources=["tester/never-made"],
)
not_pushed(
    "missing_kernel_source",
    "a kernel source without a COMPLETE run",
    ("tester/never-ran", "COMPLETE"),
    "sources",
    kernel_sources=["tester/never-ran"],
)


@row(
    "Pushing",
    "a data source that is not ready (Kaggle would mount its old version)",
    ("blobs_received",),
    ERROR,
)
def data_source_not_ready(s: Scene) -> None:
    s.given()
    s.kaggle.fault("GetDatasetStatus", BUSY)
    with s.refused("sources"):
        s.push(dataset_sources=[s.ref])
    assert s.runs() == 0


@row("Pushing", "a run of this kernel is active", ("RUNNING",), ERROR)
def active_run(s: Scene) -> None:
    s.kaggle.fault("GetKernelSessionStatus", Body({"status": "RUNNING"}))
    with s.refused("active"):
        s.push()
    assert s.runs() == 0


def push_refused(name: str, injected: str, names: Names, kind: str, answer: Any, ends: str = ERROR) -> None:
    @row("Pushing", injected, names, ends, name)
    def act(s: Scene) -> None:
        s.kaggle.fault("SaveKernel", answer)
        with s.refused(kind):
            s.push()
        assert (len(s.kaggle.calls("SaveKernel")), s.runs()) == (1, 0)  # never two runs by accident


push_refused(
    "two_gpu_runs",
    "two GPU runs are active, exit status 0",
    ("GPU session count of 2",),
    "gpu_busy",
    Body({"error": "Maximum batch GPU session count of 2 reached."}),
)
push_refused(
    "gpu_hours_used_up",
    "the week's GPU hours are used up, exit status 0",
    ("GPU", "Saturday 00:00 UTC"),
    "quota",
    Body({"error": "You have used all of your weekly GPU quota."}),
)
push_refused(
    "no_phone_verification",
    "no phone verification",
    ("phone", "kaggle.com/settings"),
    "phone",
    Body({"error": "Please verify your phone number."}),
)
push_refused("push_409", "409", ("Conflict", "names"), "conflict", Status(409, "Conflict"))
push_refused(
    "push_404",
    "404 Notebook not found",
    ("Notebook not found", "id_no"),
    "absent",
    Status(404, "Notebook not found"),
)
push_refused(
    "platform_counts_too_much",
    "the platform counts more than 1 MB",
    ("1 megabytes", "dataset"),
    "too_large",
    Status(400, "kernel source must be less than 1 megabytes"),
)
push_refused("push_503", "503", ("Service Unavailable",), "server", Status(503, "Service Unavailable"))
push_refused("push_empty_answer", "`{}`, exit status 0", ("pushed",), "unknown", Body({}))
push_refused(
    "sources_left_out",
    "sources that Kaggle leaves out, exit status 0",
    ("tester/gone",),
    "sources",
    Body({"versionNumber": 1, "url": "U", "invalidDatasetSources": ["tester/gone"]}),
    NAMED,
)
push_refused(
    "filed_under_another_name",
    "the kernel is filed under another name",
    ("kaggle.com/code/tester/other",),
    "elsewhere",
    Body({"versionNumber": 1, "url": "https://www.kaggle.com/code/tester/other"}),
    NAMED,
)


@row("Pushing", "429", ("Too Many Requests", "try 1 of 5"), "pushed again: one run")
def push_429(s: Scene) -> None:
    s.kaggle.fault("SaveKernel", Status(429, "Too Many Requests"))
    assert s.push().version == 1
    assert s.runs() == 1


@row("Pushing", "the answer is lost after the push took effect", ("push",), "recognised: one run")
def push_answer_lost(s: Scene) -> None:
    s.kaggle.fault("SaveKernel", Drop(processed=True))
    pushed = s.push()
    assert (pushed.ref, pushed.version, s.runs()) == (s.kernel, None, 1)


@row(
    "Pushing",
    "Kaggle stores another machine (CPU, P100) and internet",
    ("machine_shape", "'NvidiaTeslaT4'", "enable_internet", "version 1"),
    "error that names the run which started",
)
def stored_otherwise(s: Scene) -> None:
    stored = {"ref": s.kernel, "isPrivate": True, "enableInternet": True}
    blob = {"source": "1", "language": "python", "kernelType": "script", "slug": "x"}
    s.kaggle.fault("GetKernel", Body({"metadata": stored, "blob": blob}))
    with s.refused("stored"):
        s.push(machine_shape="NvidiaTeslaT4", enable_gpu=True)
    assert "enable_internet True instead of False" in s.seen[-1]
    assert s.runs() == 1


@row("Pushing", "the stored settings cannot be read", ("try 1 of 2",), "continues with a note: one run")
def stored_unreadable(s: Scene) -> None:
    s.client = s.new_client(s.env, tries=2)
    s.kaggle.fault("GetKernel", *[Body({})] * 2)
    assert s.push().version == 1
    assert s.runs() == 1


# -- following


@row(
    "Following",
    "403 (or 401) on status and log: wrong name or account",
    ("tester/never-pushed", "kernels.get"),
    ERROR,
)
def status_403(s: Scene) -> None:
    with s.refused("denied"):
        s.client.kernel_status("tester/never-pushed")


@row(
    "Following",
    "429, then 500, then a dropped connection",
    ("injected 429", "injected 500", "try 3 of 5"),
    "repeated, continues",
)
def status_429_500_drop(s: Scene) -> None:
    s.kaggle.fault("GetKernelSessionStatus", Status(429), Status(500), Drop())
    assert s.client.kernel_status(DONE) == ("COMPLETE", "")


@row(
    "Following",
    "a run that failed, exit status 0",
    ("Your notebook was stopped",),
    "reported with its reason",
)
def run_failed(s: Scene) -> None:
    s.kaggle.fault(
        "GetKernelSessionStatus", Body({"status": "ERROR", "failureMessage": "Your notebook was stopped."})
    )
    status = s.client.kernel_status(DONE)
    assert status == ("ERROR", "Your notebook was stopped.")
    s.say(status.failure)


@row("Following", "a log of single lines, one of them damaged", ("second",), "the whole records are returned")
def log_damaged_line(s: Scene) -> None:
    lines = ['{"stream_name": "stdout", "time": 1, "data": "first"}', '{"stream_na', ',{"data": "second"}']
    s.kaggle.fault("ListKernelSessionOutput", Body({"log": "\n".join(lines)}))
    records = s.client.kernel_log(DONE)
    assert [record["data"] for record in records] == ["first", "second"]
    s.say(records[1]["data"])


# -- fetching


def fetched_again(name: str, injected: str, names: Names, where: str, *faults: Any) -> None:
    @row("Fetching", injected, names, "fetched again, every hash matches", name)
    def act(s: Scene) -> None:
        s.kaggle.fault(where, *faults)
        s.fetch()


fetched_again(
    "manifest_address_expired",
    "the manifest's address has expired (the client saves the error page)",
    ("manifest.json", "try 1 of 5"),
    "output",
    Expired(),
)
fetched_again(
    "listing_429",
    "429 to the listing",
    ("injected 429", "try 1 of 5"),
    "ListKernelSessionOutput",
    Status(429),
)
fetched_again(
    "listing_empty",
    "`{}` to the listing",
    ("manifest.json", "try 1 of 5"),
    "ListKernelSessionOutput",
    Body({}),
)


def file_fetched_again(name: str, injected: str, names: Names, fault: Any) -> None:
    @row("Fetching", injected, names, "fetched again, every hash matches", name)
    def act(s: Scene) -> None:
        s.out().mkdir()
        (s.out() / "summary.json").write_bytes(OUTPUTS["summary.json"])
        original = s.client._fetch_files
        s.client._fetch_files = lambda *a: (  # type: ignore[method-assign]
            setattr(s.client, "_fetch_files", original),
            s.kaggle.fault("output", fault),
            original(*a),
        )
        s.fetch()
        assert all("summary" not in r.path for r in s.kaggle.calls("output"))  # right already


file_fetched_again(
    "file_address_expired",
    "the address of a file has expired (the client saves the error page, exit status 0)",
    ("1 of 2", "logs/stats.json"),
    Expired(),
)
file_fetched_again(
    "file_cut_off", "a file is cut off halfway", ("2 of 2", "model.bin", "logs/stats.json"), Partial(1)
)


@row("Fetching", "a file stays wrong", ("1 of 2", "model.bin", "63 bytes"), "error; the folder is as it was")
def file_stays_wrong(s: Scene) -> None:
    s.out().mkdir()
    (s.out() / "model.bin").write_bytes(b"mine")
    (s.out() / "summary.json").write_bytes(OUTPUTS["summary.json"])
    path = s.kaggle.session(DONE).working / "model.bin"
    path.write_bytes(b"not this")
    s.client = s.new_client(s.env, tries=2)
    with s.refused("content"):
        s.client.fetch_outputs(DONE, s.out())
    path.write_bytes(OUTPUTS["model.bin"])
    assert tree(s.out()) == {"model.bin": b"mine", "summary.json": OUTPUTS["summary.json"]}
    assert [p for p in s.root.iterdir() if p.name.startswith(".")] == []
    s.fetch()  # a newer file of the user's that is wrong is replaced


@row("Fetching", "a file name with .. in the listing", ("stays inside",), "never requested")
def dots_in_the_listing(s: Scene) -> None:
    listing = {"files": [{"fileName": "../escaped.txt", "url": f"{s.kaggle.url}/output/x"}]}
    s.kaggle.fault("ListKernelSessionOutput", Body(listing))
    s.fetch()
    assert not (s.root / "escaped.txt").exists()
    assert all("/output/x" not in r.path for r in s.kaggle.calls("output"))
    s.say("stays inside")


@row(
    "Fetching",
    "a file name with .. in the manifest",
    ("manifest.json", "'../x'"),
    "error; nothing is written",
)
def dots_in_the_manifest(s: Scene) -> None:
    path = s.kaggle.session(DONE).working / "manifest.json"
    good = path.read_text()
    path.write_text(
        json.dumps({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}, "end": files.END_MARKER})
    )
    s.client = s.new_client(s.env, tries=2)
    try:
        with s.refused("content"):
            s.fetch()
    finally:
        path.write_text(good)
    assert not s.out().exists()


@row("Fetching", "a run that ended in ERROR or is not over", ("COMPLETE", "ERROR"), ERROR)
def run_not_complete(s: Scene) -> None:
    s.kaggle.fault("ListKernelSessionOutput", Body({}))
    s.kaggle.fault("GetKernelSessionStatus", Body({"status": "ERROR"}))
    with s.refused("ended"):
        s.fetch()
    assert not s.out().exists()


# -- runs: their homes, their datasets, and what is left of the one before


def writes_run(run_id: str, size: int = 9) -> str:
    """Return a kernel that leaves the outputs of a run; one file is another for each size."""
    facts = {"run": run_id, "status": "complete", "episodes": 1, "updates": size, "env_steps": 1}
    return (
        WRITES_OUTPUTS.replace("b'weights", f"b'{size:07d}", 1)
        + f'content = json.load(open("manifest.json")) | {facts!r}\njson.dump(content, open("manifest.json", "w"))\n'
    )


def earlier_outputs(folder: Path, run_id: str) -> dict[str, bytes]:
    """Put the outputs of a run there; return them."""
    facts = {"run": run_id, "status": "complete", "episodes": 1, "updates": 1, "env_steps": 1}
    for name in ("agent_1_final.pt", "logs/stats.json", "summary.json"):
        files.write_text(folder / name, f"{run_id} {name}")
    files.write_manifest(folder, ["agent_1_final.pt", "logs/stats.json", "summary.json"], facts)
    return tree(folder)


@row(
    "Runs",
    "outputs of another run are in the folder",
    ("earlier-1", "previous"),
    "moved to previous/, then fetched",
)
def another_run_is_there(s: Scene) -> None:
    run = s.run()
    before = earlier_outputs(run.outputs, "earlier-1")
    s.ran(run, writes_run("later-01"))
    assert run.fetch()["run"] == "later-01"
    assert tree(run.outputs / "previous" / "earlier-1") == before
    assert files.verify_manifest(run.outputs)["run"] == "later-01"


@row("Runs", "two names are fetched one after the other", ("outputs",), "each in its own folder")
def two_names(s: Scene) -> None:
    first, second = s.run("-a"), s.run("-b")
    for run in (first, second):
        s.ran(run, writes_run(run.name))
    first.fetch()
    before = tree(first.outputs)
    second.fetch()
    assert tree(first.outputs) == before
    assert files.verify_manifest(second.outputs)["run"] == second.name


@row("Runs", "the next session of the run that is there", ("fetched",), "its files are brought up to date")
def next_session(s: Scene) -> None:
    run = s.run()
    s.ran(run, writes_run("same-run", 3))
    run.fetch()
    s.ran(run, writes_run("same-run", 4))
    asked = len(s.kaggle.calls("output"))
    assert run.fetch()["updates"] == 4
    assert not (run.outputs / "previous").exists()
    assert len(s.kaggle.calls("output")) - asked == 2  # the manifest and the file that changed
    assert not (run.outputs / ".incoming").exists()


@row("Runs", "`--fetch` before anything ran", ("nothing has run", "--push"), ERROR)
def fetch_before_anything_ran(s: Scene) -> None:
    with s.refused("absent"):
        s.run().fetch()


@row("Runs", "`--fetch` while the run waits in a queue", ("waiting for a machine", "--follow"), ERROR)
def fetch_while_queued(s: Scene) -> None:
    s.kaggle.fault("GetKernelSessionStatus", Body({"status": "QUEUED"}))
    with s.refused("active"):
        s.run().fetch()


@row("Runs", "a run that is being cancelled", ("being cancelled", "--stop"), ERROR)
def run_being_cancelled(s: Scene) -> None:
    s.kaggle.fault("GetKernelSessionStatus", Body({"status": "CANCEL_REQUESTED"}))
    with s.refused("active"):
        s.prepared().settle()


NOT_TRAINED = 'print("NOT TRAINED: no GPU was given. Build with --set allow_cpu=True")'


@row("Runs", "a session that got no GPU ended as COMPLETE", ("NOT TRAINED", "allow_cpu=True"),
     "said once, the next build goes on")  # fmt: skip
def run_without_a_gpu(s: Scene) -> None:
    run = s.prepared()
    s.ran(run, NOT_TRAINED)
    with s.refused("not_trained"):
        run.fetch()
    s.kind, s.seen = "", []
    asked = len(s.kaggle.calls("ListKernelSessionOutput"))
    run.settle()
    run.settle()
    assert len(s.kaggle.calls("ListKernelSessionOutput")) - asked == 1  # its log; nothing was tried again


@row(
    "Runs", "a COMPLETE run without a manifest", ("manifest.json", "--fresh"), "error; `--fresh` starts over"
)
def run_without_a_manifest(s: Scene) -> None:
    s.client = s.new_client(s.env, tries=2)
    run = s.prepared()
    s.ran(run, 'print("done")')
    with s.refused("content"):
        run.settle()
    run.settle(fresh=True)
    run.settle()


@row(
    "Runs",
    "a run that failed before the next build",
    ("failed", "out of memory"),
    "said once, the next build goes on",
)
def run_failed_before(s: Scene) -> None:
    s.kaggle.fault("GetKernelSessionStatus", Body({"status": "ERROR", "failureMessage": "out of memory"}))
    run = s.prepared()
    run.settle()
    run.settle()


@row("Runs", "a queue of hours", ("waiting for a machine, after 3.0 h",), "a line an hour")
def queue_of_hours(s: Scene) -> None:
    run = s.run()
    s.ran(run, writes_run("after-queue"))
    waiting = [Body({"status": "QUEUED"})] * 19  # ten minutes each
    s.kaggle.fault("GetKernelSessionStatus", *waiting)
    with patched_clock() as clock:
        assert run.follow(600.0, clock.sleep) == "COMPLETE"
    assert len([line for line in s.seen if line.startswith("waiting")]) == 1 + 3


@row(
    "Runs",
    "2 of 30 GPU hours are left, a session would take 11",
    ("2.0 of 30", "1.7"),
    "the session takes less",
)
def quota_nearly_spent(s: Scene) -> None:
    s.kaggle.fault("GetAcceleratorQuotaStatistics", s.quota(28.0), s.quota(28.0))
    assert s.run().budget_h(11.0) == 1.7
    assert s.run().budget_h(1.0) == 1.0


@row("Runs", "a quarter of a GPU hour is left", ("0.2 GPU hours", "--accelerator none"), ERROR)
def quota_spent(s: Scene) -> None:
    s.kaggle.fault("GetAcceleratorQuotaStatistics", s.quota(29.76))
    with s.refused("quota"):
        s.run().budget_h(11.0)


@row(
    "Runs",
    "the dataset of this name is public",
    ("is public", "--allow-public"),
    "error, nothing was uploaded",
)
def public_dataset(s: Scene) -> None:
    run = s.run()
    s.kaggle.add_dataset(run.dataset("data"), {"fingerprint.json": fingerprint("0" * 64)}, private=False)
    folder = s.staged(run)
    with s.refused("public"):
        run.publish({"data": folder})
    assert s.kaggle.calls("StartBlobUpload") == []
    run.publish({"data": folder}, allow_public=True)
    assert len(s.kaggle.datasets[run.dataset("data")].versions) == 2


@row("Runs", "a dataset of this name that is not the project's", ("not made by this project", "--name"),
     "error, nothing was uploaded")  # fmt: skip
def foreign_dataset(s: Scene) -> None:
    run = s.run()
    s.kaggle.add_dataset(run.dataset("data"), {"photos.zip": b"mine", "list.csv": b"1"})
    with s.refused("foreign"):
        run.publish({"data": s.staged(run)})
    assert len(s.kaggle.datasets[run.dataset("data")].versions) == 1


@row("Runs", "`is_private: false` and `enable_internet: true` edited into kernel-metadata.json", ("private",),
     "set again by the build")  # fmt: skip
def edited_metadata(s: Scene) -> None:
    run = s.run()
    path = run.home.root / "kernel-metadata.json"
    template = json.loads(path.read_text())
    path.write_text(
        json.dumps({**template, "is_private": False, "enable_internet": True, "machine_shape": "P100"})
    )
    run.write_kernel("{}", ["data"], "NvidiaTeslaT4")
    stored = json.loads((run.folder / "kernel-metadata.json").read_text())
    assert (stored["is_private"], stored["enable_internet"], stored["machine_shape"]) == (
        True,
        False,
        "NvidiaTeslaT4",
    )
    s.say("private")


@row("Runs", "a staged file or the notebook changes between build and push", ("data", "notebook"),
     "error, nothing was pushed")  # fmt: skip
def changed_after_the_build(s: Scene) -> None:
    run = s.prepared()
    (run.home.dataset("data") / "bars.bin").write_bytes(b"other")
    run.home.notebook.write_text("[]")
    with s.refused("changed"):
        run.push()
    assert s.kaggle.calls("SaveKernel") == []


# -- quota, deletion


def quota_unknown(name: str, injected: str, names: Names, *faults: Any) -> None:
    @row("Quota", injected, names, "continues without it", name)
    def act(s: Scene) -> None:
        s.client = s.new_client(s.env, tries=2)
        s.kaggle.fault("GetAcceleratorQuotaStatistics", *faults)
        s.say(f"quota: {s.client.quota()}")


quota_unknown("quota_empty", "`{}`", ("quota: None",), Body({}))
quota_unknown(
    "quota_numbers_missing",
    "numbers are missing (a traceback)",
    ("quota: None",),
    *[Body({"gpuQuota": {}})] * 2,
)


@row(
    "Deleting",
    "the answer is lost after the deletion took effect",
    ("RemoteDisconnected", "try 1 of 5"),
    "recognised as done",
)
def deletion_answer_lost(s: Scene) -> None:
    s.push()
    s.kaggle.fault("DeleteKernel", Drop(processed=True))
    s.client.delete_kernel(s.kernel)
    assert s.kernel not in s.kaggle.kernels


# -- the rows as tests, and as a page


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("failures")
    with KaggleStandin(root / "platform") as kaggle:
        scene = Scene(kaggle, root)
        kernel = write_kernel(root / "done", DONE, WRITES_OUTPUTS)
        scene.shared.push_kernel(kernel)
        assert scene.shared.owner() == "tester"  # remembered
        kaggle.wait_status(DONE, "COMPLETE")
        yield scene


@pytest.mark.parametrize("failure", ROWS, ids=lambda r: r.name)
def test_failure_is_seen_and_nothing_is_lost(stage: Scene, failure: Row) -> None:
    stage.start()
    failure.act(stage)
    text = "\n".join(stage.seen)
    if not ("KAGGLE_CLIENT_PYTHON" in os.environ and failure.name in MENDED):
        assert told(text, *failure.names), text
    assert stage.kaggle.faults.pending() == {}
    assert failure.ends.startswith("error") == bool(stage.kind)
    for secret in (KEY, TOKEN, stage.kaggle.rules.key, stage.kaggle.rules.token):
        assert secret not in text


def page() -> str:
    """Return docs/kaggle-failures.md."""
    lines = [
        "# What can fail on Kaggle, and what you see",
        "",
        "The tests cause each failure with the real `kaggle` client and a local platform, and check in that",
        "platform's state that nothing was lost. *error* means exit status 2 with a message that names the values",
        "shown and says what to do; everything else ends with status 0. You can repeat any command after any error.",
        "",
        "`python -m tests.kaggle.test_failures` regenerates this page.",
    ]
    for area in dict.fromkeys(r.area for r in ROWS):
        lines += ["", f"## {area}", "", "| what fails | what the message names | how it ends | lost |"]
        lines += ["|---|---|---|---|"]
        for r in (r for r in ROWS if r.area == area):
            names = "; ".join(r.names).replace("|", "\\|")
            lines.append(f"| {r.injected} | {names} | {r.ends} | nothing |")
    return "\n".join(lines) + "\n"


def test_page_of_failures_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.kaggle.test_failures"


def test_table_has_at_least_forty_rows_and_none_twice() -> None:
    assert len({r.name for r in ROWS}) == len({(r.area, r.injected) for r in ROWS}) == len(ROWS) >= 40


if __name__ == "__main__":
    files.write_text(PAGE, page())
