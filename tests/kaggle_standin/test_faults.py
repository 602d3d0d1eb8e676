"""Scripted faults against the real `kaggle` client: what it makes of each, and what is left."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.kaggle_standin import (
    Body,
    Drop,
    Expired,
    KaggleStandin,
    Partial,
    PassThrough,
    Silence,
    Status,
)
from tests.kaggle_standin.samples import write_kernel
from tests.support import says

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kaggle_standin.client import Cli

pytest_plugins = ["tests.kaggle_standin.fixtures"]

PINNED_CLIENT = pytest.mark.skipif(
    "KAGGLE_CLIENT_PYTHON" in os.environ, reason="a weakness of the pinned client"
)


@pytest.mark.parametrize("code", [403, 404, 409, 429, 500, 503])
def test_status_of_a_push_is_reported_once_with_exit_1(
    kaggle: KaggleStandin, cli: Cli, tmp_path: Path, code: int
) -> None:
    kaggle.fault("SaveKernel", Status(code, f"msg{code}"))
    pushed = cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-train", "1"))
    assert pushed.returncode == 1
    assert f"msg{code}" in pushed.stderr
    assert [r.status for r in kaggle.calls("SaveKernel")] == [code]  # no retry
    assert kaggle.kernels == {}
    assert kaggle.faults.pending() == {}


def test_401_prints_help_on_stdout_and_denies_kernels(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.fault("CreateDataset", Status(401))
    kaggle.fault("GetKernelSessionStatus", Status(401))
    created = cli("datasets", "create", "-p", upload)
    assert (created.returncode, created.stdout != "") == (1, True)
    status = cli("kernels", "status", "tester/x-train")
    assert status.returncode == 1
    assert "Cannot access kernel 'tester/x-train'" in status.stderr


def test_429_with_retry_after_is_tried_again(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.fault("CreateDataset", Status(429, retry_after=1))
    kaggle.fault("blob", Status(429, retry_after=0))
    assert "Dataset is being created" in cli("datasets", "create", "-p", upload).stdout
    assert [r.status for r in kaggle.calls("CreateDataset")] == [429, 200]
    assert [r.body["bytes"] for r in kaggle.calls("blob")] == [100, 100]  # the whole body again


@PINNED_CLIENT
def test_403_of_an_upload_drops_the_file_silently(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    (upload / "second.bin").write_bytes(b"2")
    kaggle.fault("blob", Status(403))
    created = cli("datasets", "create", "-p", upload)
    assert created.returncode == 0
    assert "Upload unsuccessful" in created.stdout
    assert len(kaggle.datasets["tester/x-data"].latest.files()) == 1


@PINNED_CLIENT
def test_partial_upload_is_resumed_where_it_stopped(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.fault("blob", Partial(50))
    cli("datasets", "create", "-p", upload)
    assert [(r.status, r.body["bytes"], r.body["range"]) for r in kaggle.calls("blob")] == [
        (503, 100, ""),
        (308, 0, "bytes */100"),
        (200, 50, "bytes 50-99/100"),
    ]
    stored = kaggle.datasets["tester/x-data"].latest.folder / "bars.bin"
    assert stored.read_bytes() == b"0123456789" * 10


@PINNED_CLIENT
def test_expired_upload_is_given_up(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.fault("blob", Partial(50), Status(404))
    created = cli("datasets", "create", "-p", upload)
    assert (created.returncode, "expired" in created.stdout) == (0, True)
    assert kaggle.datasets["tester/x-data"].latest.files() == []


def test_dropped_uploads_are_repeated_by_the_client(kaggle: KaggleStandin, cli: Cli, upload: Path) -> None:
    kaggle.fault("blob", Drop(), Drop())
    assert "Dataset is being created" in cli("datasets", "create", "-p", upload).stdout
    assert [r.status for r in kaggle.calls("blob")] == [0, 0, 200]


@PINNED_CLIENT
def test_unchanged_size_and_time_reuse_the_upload_of_a_failed_publish(
    kaggle: KaggleStandin, cli: Cli, upload: Path
) -> None:
    os.utime(upload / "bars.bin", (1e9, 1e9))
    kaggle.fault("CreateDataset", Status(503))
    assert cli("datasets", "create", "-p", upload).returncode == 1
    (upload / "bars.bin").write_bytes(b"B" * 100)
    os.utime(upload / "bars.bin", (1e9, 1e9))
    assert "Dataset is being created" in cli("datasets", "create", "-p", upload).stdout
    assert len(kaggle.calls("StartBlobUpload")) == 1
    stored = kaggle.datasets["tester/x-data"].latest.folder / "bars.bin"
    assert stored.read_bytes() == b"0123456789" * 10  # the old content


def test_error_in_the_body_exits_0(kaggle: KaggleStandin, cli: Cli, upload: Path, tmp_path: Path) -> None:
    kaggle.fault("CreateDataset", Body({"status": "error", "error": "no room"}))
    created = cli("datasets", "create", "-p", upload)
    assert (created.returncode, "Dataset creation error: no room" in created.stdout) == (0, True)
    kaggle.fault("SaveKernel", PassThrough(), Body({"error": "closed today"}))
    folder = write_kernel(tmp_path / "k", "tester/x-train", "1")
    assert "successfully pushed" in cli("kernels", "push", "-p", folder).stdout
    second = cli("kernels", "push", "-p", folder)
    assert (second.returncode, second.stdout) == (0, "Kernel push error: closed today\n")


def test_answer_lost_after_the_push_took_effect(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    kaggle.fault("SaveKernel", Drop(processed=True))
    pushed = cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-train", "1"))
    assert pushed.returncode == 1
    assert kaggle.kernels["tester/x-train"].versions == 1


@PINNED_CLIENT
def test_expired_output_address_is_saved_as_the_file(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    source = "open('m.bin', 'w').write('model')"
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-train", source))
    kaggle.wait_idle()
    kaggle.fault("output", Expired())
    fetched = cli("kernels", "output", "tester/x-train", "-p", tmp_path / "out")
    assert fetched.returncode == 0
    assert "ExpiredToken" in (tmp_path / "out" / "m.bin").read_text()


@PINNED_CLIENT
def test_output_cut_off_halfway_fails_the_command(kaggle: KaggleStandin, cli: Cli, tmp_path: Path) -> None:
    source = "open('m.bin', 'w').write('model')"
    cli("kernels", "push", "-p", write_kernel(tmp_path / "k", "tester/x-train", source))
    kaggle.wait_idle()
    kaggle.fault("output", Partial(2))
    assert cli("kernels", "output", "tester/x-train", "-p", tmp_path / "new").returncode == 1
    assert not (tmp_path / "new" / "m.bin").exists() or not (tmp_path / "new/m.bin").read_bytes()


def test_silence_hangs_the_client(kaggle: KaggleStandin, cli: Cli) -> None:
    kaggle.fault("GetKernelSessionStatus", Silence(600.0))
    with pytest.raises(subprocess.TimeoutExpired):
        cli("kernels", "status", "tester/x-train", timeout=3.0)
    assert kaggle.requests[-1].status == 0


def test_unknown_place_of_a_fault_names_the_known_ones(kaggle: KaggleStandin) -> None:
    with pytest.raises(ValueError, match=says("SaveKernel", "Push")):
        kaggle.fault("Push", Status(500))
