"""The real `kaggle` client against the local platform: it does what the platform is known to do.

Faults, logins and settings are tested in `tests/kaggle_standin/`.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kaggle_standin import KaggleStandin, StaleReady
from tests.kaggle_standin.runner import is_running
from tests.kaggle_standin.samples import (
    notebook_of,
    rules,
    wait_for,
    write_dataset,
    write_kernel,
)
from tests.support import says

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kaggle_standin.client import Cli

pytest_plugins = ["tests.kaggle_standin.fixtures"]

SLEEP = "import time\ntime.sleep(600)\n"


# -- datasets


def test_dataset_goes_from_create_to_second_version(
    kaggle: KaggleStandin, cli: Cli, upload: Path, tmp_path: Path
) -> None:
    created = cli("datasets", "create", "-p", upload)
    assert "Dataset is being created. Please check progress at" in created.stdout
    assert cli("datasets", "status", "tester/x-data").stdout == "ready"  # no newline
    rpcs = ["GetDatasetStatus", "StartBlobUpload", "blob", "CreateDataset", "GetDatasetStatus"]
    assert [r.rpc for r in kaggle.requests] == rpcs
    assert [r.auth for r in kaggle.requests] == ["Basic", "Basic", "", "Basic", "Basic"]
    assert kaggle.datasets["tester/x-data"].private

    write_dataset(upload, "tester/x-data", {"new.txt": b"two"})
    version = cli("datasets", "version", "-p", upload, "-m", "second")
    assert "Dataset version is being created. Please check progress at" in version.stdout
    status = json.loads(cli("datasets", "status", "tester/x-data", "--format", "json").stdout)
    assert status == {"status": "ready", "current_version_number": 2}
    listing = cli("datasets", "files", "tester/x-data").stdout
    assert "new.txt" in listing
    assert "bars.bin" not in listing  # a version is the full set of files
    cli("datasets", "download", "tester/x-data", "-p", tmp_path / "all")
    with zipfile.ZipFile(tmp_path / "all" / "x-data.zip") as archive:
        assert archive.read("new.txt") == b"two"
    cli("datasets", "download", "tester/x-data", "-f", "new.txt", "-p", tmp_path / "one")
    assert (tmp_path / "one" / "new.txt").read_bytes() == b"two"


def test_creating_an_existing_dataset_uploads_nothing_and_exits_0(
    kaggle: KaggleStandin, cli: Cli, upload: Path
) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    again = cli("datasets", "create", "-p", upload)
    assert again.returncode == 0
    assert again.stdout.startswith("Dataset creation error: The requested ")
    assert "is already in use" in again.stdout
    assert kaggle.calls("StartBlobUpload") == []


def test_archives_and_torch_files_become_folders(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("model/data.pkl", b"pickle")
        archive.writestr("model/byteorder", b"little")
    files = {"pkg.zip": inner.read_bytes(), "m.pt": inner.read_bytes(), "m.ckpt": b"kept"}
    cli("datasets", "create", "-p", write_dataset(tmp_path / "d", "tester/x-data", files))
    folder = kaggle.datasets["tester/x-data"].latest.folder
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    pt = {"m.pt/data.pkl", "m.pt/byteorder"}
    assert found == {"pkg/model/data.pkl", "pkg/model/byteorder", "m.ckpt"} | pt


@rules(dataset_delay_s=600.0)
def test_version_is_not_ready_before_its_delay_and_blocks_the_next(
    kaggle: KaggleStandin, cli: Cli, upload: Path
) -> None:
    cli("datasets", "create", "-p", upload)
    assert cli("datasets", "status", "tester/x-data").stdout == "blobs_received"
    early = cli("datasets", "version", "-p", upload, "-m", "too early")
    assert early.returncode == 1
    assert "datasets.update" in early.stderr
    kaggle.fault("GetDatasetStatus", StaleReady())
    assert cli("datasets", "status", "tester/x-data").stdout == "ready"
    with pytest.raises(TimeoutError, match=says("tester/x-data")):
        kaggle.wait_idle(0.1)


def test_another_owners_private_dataset_is_denied(kaggle: KaggleStandin, cli: Cli) -> None:
    kaggle.add_dataset("other/private-data", {"a": b"1"})
    kaggle.add_dataset("other/public-data", {"a": b"1"}, private=False)
    denied = cli("datasets", "status", "other/private-data")
    assert (denied.returncode, denied.stdout) == (1, "")
    assert "datasets.get" in denied.stderr
    assert cli("datasets", "status", "other/public-data").stdout == "ready"
    assert cli("datasets", "status", "tester/never-made").returncode == 1


# -- a run

LOOK_AROUND = """
import json, os, socket
from pathlib import Path

data = Path(os.environ["SAC_INPUT_ROOT"], "datasets", "tester", "x-data", "bars.bin")
print("read", len(data.read_bytes()), flush=True)
seen = {"cwd": os.getcwd(), "environ": dict(os.environ), "mode": data.stat().st_mode & 0o777}
"""
TRY_WHAT_IS_FORBIDDEN = """
def error_of(action):
    try:
        action()
    except OSError as err:
        return err.errno

seen["write"] = error_of(lambda: data.open("ab"))
seen["create"] = error_of(lambda: (data.parent / "new").write_text("x"))
seen["remove"] = error_of(data.unlink)
seen["connect"] = error_of(lambda: socket.create_connection(("192.0.2.1", 80), 1))
seen["resolve"] = error_of(lambda: socket.getaddrinfo("example.invalid", 80))
"""
WRITE_OUTPUTS = """
Path("models").mkdir()
Path("models", "a.pt").write_bytes(b"as written")
Path("seen.json").write_text(json.dumps(seen))
"""


@pytest.mark.notebook
def test_notebook_round_trip(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "do-not-leak")
    kaggle.add_dataset("tester/x-data", {"bars.bin": b"x" * 7})
    cells = [LOOK_AROUND, TRY_WHAT_IS_FORBIDDEN, WRITE_OUTPUTS]
    sources = {"dataset_sources": ["tester/x-data"]}
    folder = write_kernel(tmp_path / "k", "tester/x-train", cells, **sources)
    pushed = cli("kernels", "push", "-p", folder)
    assert "Kernel version 1 successfully pushed.  Please check progress at" in pushed.stdout
    kaggle.wait_idle()
    status = cli("kernels", "status", "tester/x-train").stdout
    assert 'tester/x-train has status "KernelWorkerStatus.COMPLETE"' in status
    session = kaggle.session("tester/x-train")
    assert session.statuses == ["QUEUED", "RUNNING", "COMPLETE"]

    cli("kernels", "output", "tester/x-train", "-p", tmp_path / "out")
    assert (tmp_path / "out" / "models" / "a.pt").read_bytes() == b"as written"
    log = json.loads((tmp_path / "out" / "x-train.log").read_text())
    assert log[0]["stream_name"] == "stdout"
    assert log[0]["data"] == "read 7\n"
    seen = json.loads((tmp_path / "out" / "seen.json").read_text())
    assert seen["cwd"] == seen["environ"]["SAC_WORKING_DIR"] == str(session.working)
    assert seen["mode"] == 0o444
    read_only = {errno.EROFS, errno.EACCES}
    assert {seen["write"], seen["create"], seen["remove"]} <= read_only
    assert seen["connect"] == errno.ENETUNREACH
    assert seen["resolve"] is not None
    assert seen["environ"]["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"
    assert "SAC_REHEARSAL" not in seen["environ"]
    text = json.dumps(seen)
    assert not [s for s in ("do-not-leak", kaggle.rules.key, kaggle.rules.token) if s in text]

    cli("kernels", "pull", "tester/x-train", "-p", tmp_path / "pull", "-m")
    stored = json.loads((tmp_path / "pull" / "kernel-metadata.json").read_text())
    assert stored["dataset_sources"] == ["tester/x-data"]
    assert (stored["is_private"], stored["enable_internet"]) == (True, False)


@rules(mount_scheme="flat")
def test_flat_scheme_and_kernel_output_as_source(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    kaggle.add_dataset("tester/x-data", {"a.txt": b"one"})
    first = "open('state.bin', 'wb').write(open('../input/x-data/a.txt', 'rb').read())"
    sources = {"dataset_sources": ["tester/x-data"]}
    cli("kernels", "push", "-p", write_kernel(tmp_path / "1", "tester/x-first", first, **sources))
    kaggle.wait_idle()
    second = "print(open('../input/x-first/state.bin').read())"
    sources = {"kernel_sources": ["tester/x-first"]}
    cli("kernels", "push", "-p", write_kernel(tmp_path / "2", "tester/x-second", second, **sources))
    kaggle.wait_idle()
    log = json.loads(cli("kernels", "logs", "tester/x-second").stdout)
    assert [entry["data"] for entry in log] == ["one\n"]


def test_25_output_files_come_in_two_pages(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    source = "for i in range(25):\n    open(f'f{i:02d}.txt', 'w').write(str(i))\n"
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-many", source))
    kaggle.wait_idle()
    cli("kernels", "output", "tester/x-many", "-p", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("f*.txt"))) == 25
    assert [r.body.get("pageToken", "") for r in kaggle.calls("ListKernelSessionOutput")] == ["", "20"]
    assert len(kaggle.calls("output")) == 25
    listing = cli("kernels", "files", "tester/x-many").stdout
    assert "Next Page Token = 20" in listing


@pytest.mark.notebook
def test_failing_notebook_keeps_its_log_and_no_output(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    cells = ["open('half.bin', 'w').write('x')", "raise ValueError('broken bar')"]
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-fails", cells))
    kaggle.wait_idle()
    status = cli("kernels", "status", "tester/x-fails")
    assert status.returncode == 0
    assert 'has status "KernelWorkerStatus.ERROR"' in status.stdout
    assert "Failure message: " in status.stdout
    cli("kernels", "output", "tester/x-fails", "-p", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x-fails.log"]
    assert "ValueError: broken bar" in (tmp_path / "out" / "x-fails.log").read_text()


@pytest.mark.notebook
def test_notebook_without_kernelspec_fails(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    folder = write_kernel(tmp_path / "k", "tester/x-no-spec", ["print(1)"])
    (folder / "kernel.ipynb").write_text(json.dumps(notebook_of(["print(1)"], kernelspec="")))
    cli("kernels", "push", "-p", folder)
    kaggle.wait_idle()
    assert kaggle.session("tester/x-no-spec").status == "ERROR"
    log = cli("kernels", "logs", "tester/x-no-spec").stdout
    assert "No kernel name found in notebook and no override provided" in log


@pytest.mark.skipif(os.name != "posix", reason="uses a POSIX shell")
def test_inputs_changed_behind_the_guard_fail_the_run(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    kaggle.add_dataset("tester/x-data", {"a.txt": b"one"})
    path = "../input/datasets/tester/x-data/a.txt"
    source = f"import os\nos.system('chmod u+w {path} && echo x >> {path}')"
    sources = {"dataset_sources": ["tester/x-data"]}
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-writes", source, **sources))
    kaggle.wait_idle()
    session = kaggle.session("tester/x-writes")
    assert (session.status, "read-only" in session.failure_message) == ("ERROR", True)
    assert (kaggle.datasets["tester/x-data"].latest.folder / "a.txt").read_bytes() == b"one"


@pytest.mark.slow
@pytest.mark.notebook
@rules(session_limit_s=8.0)
def test_notebook_is_killed_with_everything_it_started_at_the_limit(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    cell = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}\\n')\ntime.sleep(600)"
    )
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-long", [cell]))
    working = kaggle.session("tester/x-long").working
    pids = [int(pid) for pid in wait_for(working / "pids").split()]
    kaggle.wait_idle()
    assert [is_running(pid) for pid in pids] == [False, False]
    status = cli("kernels", "status", "tester/x-long").stdout
    assert 'has status "KernelWorkerStatus.CANCEL_ACKNOWLEDGED"' in status
    assert "it exceeded the max allowed execution duration." in status
    assert not working.exists()


def test_delete_stops_a_run(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    source = f"import os\nopen('pid', 'w').write(f'{{os.getpid()}}\\n')\n{SLEEP}"
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-stop", source))
    session = kaggle.wait_status("tester/x-stop", "RUNNING")
    pid = int(wait_for(session.working / "pid"))
    assert "deleted successfully" in cli("kernels", "delete", "tester/x-stop", "-y").stdout
    kaggle.wait_idle()
    assert not is_running(pid)
    assert not session.folder.exists()
    gone = cli("kernels", "status", "tester/x-stop")
    assert gone.returncode == 1
    assert "Permission 'kernels.get' was denied" in gone.stderr


def test_logs_follow_a_run_to_its_end(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    source = "import time\nfor i in range(3):\n    print('line', i, flush=True)\n    time.sleep(0.5)"
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-talks", source))
    followed = cli("kernels", "logs", "tester/x-talks", "-f")
    assert followed.returncode == 0
    assert followed.stdout.splitlines() == ["line 0", "line 1", "line 2"]


# -- rules of a push


def test_third_gpu_run_is_refused_in_the_body(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    gpu = {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4"}
    folders = [write_kernel(tmp_path / f"{i}", f"tester/x-gpu-{i}", SLEEP, **gpu) for i in range(3)]
    pushed = [cli("kernels", "push", "-p", folder) for folder in folders]
    assert [p.returncode for p in pushed] == [0, 0, 0]
    assert "Kernel version 1 successfully pushed." in pushed[1].stdout
    refusal = "Kernel push error: Maximum batch GPU session count of 2 reached.\n"
    assert pushed[2].stdout == refusal
    assert kaggle.calls("SaveKernel")[2].status == 200
    cpu = write_kernel(tmp_path / "cpu", "tester/x-cpu-run", "print(1)")
    assert "successfully pushed" in cli("kernels", "push", "-p", cpu).stdout


@rules(gpu_quota_s=36000.0)
def test_used_up_gpu_quota_refuses_gpu_runs(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    kaggle.use_gpu_quota(36000.0)
    rows = json.loads(cli("quota", "--format", "json").stdout)
    gpu = next(row for row in rows if row["resource"] == "GPU")
    assert (gpu["used"], gpu["remaining"]) == ("10.00h", "0.00h")  # 36000 s of 36000 s
    folder = write_kernel(tmp_path / "k", "tester/x-train", "print(1)", enable_gpu=True)
    pushed = cli("kernels", "push", "-p", folder)
    assert (pushed.returncode, pushed.stdout[:19]) == (0, "Kernel push error: ")
    assert kaggle.kernels == {}


def test_invalid_sources_are_named_and_the_kernel_runs_without_them(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    sources = {"dataset_sources": ["tester/typo-data"], "kernel_sources": ["tester/x-train"]}
    source = "import os\nprint(os.listdir('../input'))"
    folder = write_kernel(tmp_path / "k", "tester/x-train", source, **sources)
    pushed = cli("kernels", "push", "-p", folder)
    assert pushed.returncode == 0
    for kind, name in (("dataset", "tester/typo-data"), ("kernel", "tester/x-train")):
        text = f"The following are not valid {kind} sources and could not be added to the kernel:"
        assert f"{text} ['{name}']" in pushed.stdout
    assert "Kernel version 1 successfully pushed." in pushed.stdout
    kaggle.wait_idle()
    assert json.loads(cli("kernels", "logs", "tester/x-train").stdout)[0]["data"] == "[]\n"
    again = cli("kernels", "push", "-p", folder).stdout  # now its own last version is COMPLETE
    assert "not valid kernel sources" not in again


def test_kernel_slug_of_a_dataset_is_a_409(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    pushed = cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-data", "print(1)"))
    assert (pushed.returncode, kaggle.calls("SaveKernel")[0].status) == (1, 409)
    assert "Conflict" in pushed.stderr


def test_kernel_is_filed_under_its_titles_slug(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    folder = write_kernel(tmp_path / "k", "tester/x-train", "print(1)", title="Other Name")
    first = cli("kernels", "push", "-p", folder)
    assert "Your kernel title does not resolve to the specified id" in first.stdout
    assert list(kaggle.kernels) == ["tester/other-name"]
    assert cli("kernels", "status", "tester/x-train").returncode == 1
    assert cli("kernels", "push", "-p", folder).returncode == 1  # the title is taken now
    assert kaggle.requests[-1].status == 409


def test_source_of_more_than_1_mb_is_refused(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    folder = write_kernel(tmp_path / "k", "tester/x-big", "#" * 1_000_001)
    pushed = cli("kernels", "push", "-p", folder)
    assert pushed.returncode == 1
    assert "kernel source must be less than 1 megabytes" in pushed.stderr
    assert kaggle.kernels == {}


@rules(dataset_delay_s=600.0)
def test_push_before_the_new_version_is_ready_mounts_the_old_one(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    kaggle.add_dataset("tester/x-data", {"v.txt": b"old"})
    new = write_dataset(tmp_path / "d", "tester/x-data", {"v.txt": b"new"})
    cli("datasets", "version", "-p", new, "-m", "new")
    source = "print(open('../input/datasets/tester/x-data/v.txt').read())"
    sources = {"dataset_sources": ["tester/x-data"]}
    folder = write_kernel(tmp_path / "k", "tester/x-train", source, **sources)
    assert "not valid" not in cli("kernels", "push", "-p", folder).stdout
    kaggle.wait_status("tester/x-train", "COMPLETE")
    log = json.loads(cli("kernels", "logs", "tester/x-train").stdout)
    assert log[0]["data"] == "old\n"
