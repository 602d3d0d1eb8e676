"""Logins, the guard against other hosts, and the settings of the local platform."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import tarfile
import time
import zipfile
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.kaggle_standin import KaggleStandin, Silence, client_python, kaggle_env, run_kaggle
from tests.kaggle_standin.client import PLAIN, quick
from tests.kaggle_standin.samples import rules, write_kernel
from tests.support import says

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kaggle_standin.client import Cli

pytest_plugins = ["tests.kaggle_standin.fixtures"]


def zip_of(name: str, content: bytes) -> bytes:
    """Return a zip archive of one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(name: str, content: bytes) -> bytes:
    """Return a tar archive of one member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_token_login_asks_who_it_is(kaggle: KaggleStandin, tmp_path: Path) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    env = kaggle_env(kaggle, tmp_path / "home", auth="token")
    assert run_kaggle(["datasets", "status", "x-data"], env, tmp_path).stdout == "ready"
    assert [r.rpc for r in kaggle.requests] == ["IntrospectToken", "GetDatasetStatus"]
    env["KAGGLE_API_TOKEN"] = "wrong"
    assert run_kaggle(["datasets", "status", "x-data"], env, tmp_path).returncode == 1
    legacy = {**kaggle_env(kaggle, tmp_path / "home"), "KAGGLE_KEY": "wrong"}
    assert run_kaggle(["datasets", "status", "x-data"], legacy, tmp_path).returncode == 1
    assert kaggle.requests[-1].status == 401


def ask_the_real_host(tmp_path: Path) -> None:
    """Run the client without LOCALHOST, so that it means the real site."""
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = kaggle_env(kaggle, tmp_path / "home")
        del env["KAGGLE_API_ENVIRONMENT"]
        assert run_kaggle(["datasets", "status", "tester/x-data"], env, tmp_path).returncode == 1
        assert [r.status for r in kaggle.requests] == [403]


def test_request_to_the_real_host_is_refused_and_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=says("CONNECT", "api.kaggle.com:443")):
        ask_the_real_host(tmp_path)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("folder", ["pkg/a.py"]), ("root", ["a.py"]), ("whole", ["pkg.zip"])],
)
def test_layout_of_a_single_archive(tmp_path: Path, layout: str, expected: list[str]) -> None:
    with KaggleStandin(tmp_path / "platform", archive_layout=layout) as kaggle:
        dataset = kaggle.add_dataset("tester/x-code", {"pkg.zip": zip_of("a.py", b"1")})
        folder = dataset.latest.folder
        assert [p.relative_to(folder).as_posix() for p in dataset.latest.files()] == expected


def test_tar_and_gz_are_unpacked_and_a_plain_pt_is_kept(kaggle: KaggleStandin) -> None:
    files = {"t.tar": tar_of("a.txt", b"1"), "b.csv.gz": gzip.compress(b"2"), "plain.pt": b"3"}
    version = kaggle.add_dataset("tester/x-data", files).latest
    found = {p.relative_to(version.folder).as_posix(): p.read_bytes() for p in version.files()}
    assert found == {"t/a.txt": b"1", "b.csv": b"2", "plain.pt": b"3"}


@rules(gpu_quota_s=0.0, without_quota="cpu")
def test_gpu_push_without_quota_can_fall_back_to_the_cpu(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    shape = {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4"}
    folder = write_kernel(tmp_path / "k", "tester/x-train", "print(1)", **shape)
    assert "successfully pushed" in cli("kernels", "push", "-p", folder).stdout
    kaggle.wait_idle()
    session = kaggle.session("tester/x-train")
    assert (session.status, session.uses_gpu) == ("COMPLETE", False)


def test_slug_of_a_deleted_dataset_stays_reserved(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    assert cli("datasets", "delete", "tester/x-data", "-y").returncode == 0
    assert cli("datasets", "create", "-p", upload).returncode == 1
    assert kaggle.requests[-1].status == 500


def test_unknown_machine_shape_is_stored_as_a_t4(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    shape = {"enable_gpu": True, "machine_shape": "NvidiaTeslaP100"}
    folder = write_kernel(tmp_path / "k", "tester/x-train", "print(1)", **shape)
    cli("kernels", "push", "-p", folder)
    cli("kernels", "pull", "tester/x-train", "-p", tmp_path / "pull", "-m")
    stored = json.loads((tmp_path / "pull" / "kernel-metadata.json").read_text())
    assert stored["machine_shape"] == "NvidiaTeslaT4"


@rules(newest_client="99.0.0")
def test_newer_client_version_adds_a_line_to_stdout(kaggle: KaggleStandin, cli: Cli) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    status = cli("datasets", "status", "tester/x-data").stdout
    assert "ready" in status
    assert status != "ready"


@pytest.mark.notebook
def test_notebook_whose_process_dies_reports_memory(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    cells = ["import os\nos.kill(os.getpid(), 9)"]
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-dies", cells))
    kaggle.wait_idle()
    assert kaggle.session("tester/x-dies").failure_message == (
        "Your notebook tried to allocate more memory than is available."
    )


def test_second_push_runs_beside_the_first_and_versions_count(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path
) -> None:
    folder = write_kernel(tmp_path / "k", "tester/x-train", "import time\ntime.sleep(600)")
    cli("kernels", "push", "-p", folder)
    assert "Kernel version 2 successfully" in cli("kernels", "push", "-p", folder).stdout
    kaggle.wait_status("tester/x-train", "RUNNING")
    assert [s.active for s in kaggle.kernels["tester/x-train"].sessions] == [True, True]


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says("mount_scheme", "nested")):
        KaggleStandin(tmp_path / "platform", mount_scheme="nested")


# -- the quick client


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["datasets", "nonsense"],
        ["datasets", "status", "tester/x-data"],
        ["kernels", "push", "-p", "é"],
    ],
    ids=" ".join,
)
def test_the_quick_client_says_and_ends_as_the_plain_one(
    kaggle: KaggleStandin, tmp_path: Path, words: list[str]
) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    env = kaggle_env(kaggle, tmp_path / "home")
    fast, plain = (run_kaggle(words, env, tmp_path, python=p) for p in (client_python(), PLAIN))
    assert fast.returncode == plain.returncode
    # A traceback names the lines that started the client: they differ, and what was raised does not.
    own = re.compile(r"File .*\n.*\n", re.MULTILINE)
    assert (fast.stdout, own.sub("", fast.stderr)[-300:]) == (
        plain.stdout,
        own.sub("", plain.stderr)[-300:],
    )


@pytest.mark.skipif(client_python() == PLAIN, reason="this system cannot fork")
def test_the_quick_client_is_killed_with_the_process_that_stands_for_it(
    kaggle: KaggleStandin, tmp_path: Path
) -> None:
    kaggle.fault("GetDatasetStatus", Silence(60.0))
    command = [client_python(), "-P", "-m", "kaggle", "datasets", "status", "tester/x-data"]
    process = subprocess.Popen(command, env=kaggle_env(kaggle, tmp_path / "home"), stdout=subprocess.DEVNULL)
    server = psutil.Process(quick.server_pid)
    limit = time.monotonic() + 60.0
    while not kaggle.calls("GetDatasetStatus") and time.monotonic() < limit:
        time.sleep(0.02)
    clients = [child for child in server.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    assert len(clients) == 2  # the client, and who watches it
    process.kill()
    process.wait()
    limit = time.monotonic() + 20.0
    while any(map(is_alive, clients)) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not any(map(is_alive, clients))


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie waits to be collected and does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
