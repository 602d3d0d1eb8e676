"""Folders, devices, the clock and the network guard of a run."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from sac_kernel.core import clock as run_clock
from sac_kernel.core import files, packages, paths
from sac_kernel.core.device import describe_device, resolve_device, set_threads
from sac_kernel.core.errors import ConfigError, DeviceError, InputNotFoundError
from tests.support import says, told

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_mount(monkeypatch, tmp_path):
    for name in (paths.INPUT_ROOT_VARIABLE, paths.WORKING_DIR_VARIABLE, "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_without_a_mount_outputs_go_to_a_local_folder():
    assert paths.paths() == paths.Paths(None, Path("outputs"))
    assert not paths.paths().mounted


def test_a_rehearsal_says_where_inputs_and_outputs_are(monkeypatch, tmp_path):
    monkeypatch.setenv(paths.INPUT_ROOT_VARIABLE, str(tmp_path / "in"))
    monkeypatch.setenv(paths.WORKING_DIR_VARIABLE, str(tmp_path / "out"))
    assert paths.paths() == paths.Paths(tmp_path / "in", tmp_path / "out")
    assert paths.paths().mounted


def test_on_kaggle_its_own_folders_are_used(monkeypatch, tmp_path):
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.setattr(paths, "KAGGLE_INPUT", tmp_path / "input")
    monkeypatch.setattr(paths, "KAGGLE_WORKING", working)
    assert paths.paths() == paths.Paths(None, Path("outputs"))  # the folder alone proves nothing
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert paths.paths() == paths.Paths(tmp_path / "input", working)


@pytest.mark.parametrize(
    "place", ["sac-trading-data", "datasets/someone/sac-trading-data", "sac-trading-data/data/processed"]
)
def test_an_input_is_found_under_each_mount_scheme(tmp_path, place):
    expected = touch(tmp_path / "input" / place / "processed_data.h5")
    assert paths.find_input("processed_data.h5", tmp_path / "input") == expected


def test_an_input_is_found_where_the_environment_says(monkeypatch, tmp_path):
    expected = touch(tmp_path / "input" / "slug" / "processed_data.h5")
    monkeypatch.setenv(paths.INPUT_ROOT_VARIABLE, str(tmp_path / "input"))
    assert paths.find_input("processed_data.h5") == expected


def test_the_nested_scheme_comes_first_when_both_hold_the_file(tmp_path):
    flat = touch(tmp_path / "slug" / "a.h5")
    nested = touch(tmp_path / "datasets" / "owner" / "slug" / "a.h5")
    assert paths.input_files(tmp_path, "a.h5") == [nested, flat]


def mounted(tmp_path, **owners):
    """Mount processed_data.h5 of several owners; return their SHA-256 by owner."""
    for owner, content in owners.items():
        path = touch(tmp_path / "datasets" / owner / "data" / "processed_data.h5")
        path.write_bytes(content)
    return {owner: files.sha256(content) for owner, content in owners.items()}


def test_of_several_inputs_the_one_with_the_hash_wins_whatever_its_place_or_name(tmp_path):
    digests = mounted(tmp_path, aaa=b"rogue", me=b"mine", zzz=b"another rogue")
    for owner, digest in digests.items():
        found = paths.find_input("processed_data.h5", tmp_path, [digest])
        assert found.parent.parent.name == owner
    renamed = tmp_path / "flat" / "bars.h5"
    touch(renamed)
    (tmp_path / "datasets" / "me" / "data" / "processed_data.h5").rename(renamed)
    assert paths.find_input("processed_data.h5", tmp_path, [digests["me"]]) == renamed


def test_an_input_without_the_hash_is_refused_with_the_hashes_of_what_is_there(tmp_path):
    digests = mounted(tmp_path, aaa=b"rogue", zzz=b"another rogue")
    with pytest.raises(
        InputNotFoundError, match=says("0" * 12, "aaa", digests["aaa"][:12], digests["zzz"][:12])
    ):
        paths.find_input("processed_data.h5", tmp_path, ["0" * 64])


def test_inputs_that_differ_are_refused_where_no_hash_is_known(tmp_path):
    digests = mounted(tmp_path, aaa=b"one", zzz=b"two")
    with pytest.raises(InputNotFoundError, match=says(digests["aaa"][:12], digests["zzz"][:12])):
        paths.find_input("processed_data.h5", tmp_path)
    mounted(tmp_path, aaa=b"two")
    assert paths.find_input("processed_data.h5", tmp_path).read_bytes() == b"two"


def test_an_entry_is_a_name_and_a_hash():
    entries = ["a.csv " + "1" * 64, "a.csv " + "2" * 64, "b.csv " + "3" * 64]
    assert paths.expected(entries, "a.csv") == ["1" * 64, "2" * 64]
    assert paths.expected(entries, "c.csv") == []
    assert all(map(paths.is_expected, entries))
    assert not any(map(paths.is_expected, ["a.csv", "1" * 64, "a.csv " + "1" * 63, "../a.csv " + "1" * 64]))


def test_a_folder_of_that_name_is_no_input(tmp_path):
    (tmp_path / "slug" / "a.h5").mkdir(parents=True)
    assert paths.input_files(tmp_path, "a.h5") == []


def test_a_missing_input_lists_what_is_mounted(tmp_path):
    touch(tmp_path / "other-data" / "bars.csv")
    with pytest.raises(InputNotFoundError, match=says("processed_data.h5", "other-data/", "bars.csv")):
        paths.find_input("processed_data.h5", tmp_path)


def test_the_listing_of_a_large_mount_is_cut_and_counts_the_rest(tmp_path):
    for i in range(15):
        touch(tmp_path / f"{i:02d}.csv")
    listing = paths.mounted_listing(tmp_path)
    assert told(listing, "11.csv", "3 more")
    assert not told(listing, "12.csv")


def test_the_listing_of_nothing_says_so(tmp_path):
    assert paths.mounted_listing(tmp_path)
    assert told(paths.mounted_listing(tmp_path / "no"), tmp_path / "no")


def test_without_a_mount_the_local_file_is_found_and_its_absence_says_how_to_make_it(tmp_path):
    with pytest.raises(InputNotFoundError, match=says("processed_data.h5", "processed")):
        paths.find_input("processed_data.h5")
    touch(tmp_path / "data" / "processed" / "processed_data.h5")
    assert paths.find_input("processed_data.h5") == Path("data/processed/processed_data.h5")


GUARD = """
import socket
from sac_kernel.core.network import block_network

block_network()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
socket.create_connection(("127.0.0.1", port), timeout=5).close()
socket.create_connection(("localhost", port), timeout=5).close()
refused = 0
for call in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
    lambda: socket.create_connection(("example.invalid", 80), timeout=5),
    lambda: socket.socket().connect(("192.0.2.1", 80)),
    lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    lambda: socket.getaddrinfo("example.invalid", 80),
):
    try:
        call()
    except OSError as error:
        refused += "network blocked in this run" in str(error)
assert refused == 6, refused
"""


def test_the_network_guard_refuses_all_but_loopback():
    # 192.0.2.0/24 and 2001:db8::/32 are reserved for documentation: no packet can reach anybody.
    done = subprocess.run([sys.executable, "-c", GUARD], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_importing_the_guard_blocks_nothing():
    assert socket.socket.connect.__qualname__ != "block_network.<locals>.guarded_connect"


@pytest.mark.parametrize("word", ["gpu", "", "cpu:0", "CUDA", "cud"])
def test_an_unknown_device_word_is_refused(word):
    with pytest.raises(ConfigError, match=says("device", repr(word), "auto", "cuda:N")):
        resolve_device(word)


def test_cuda_without_a_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=says("CUDA", "device='auto'")):
        resolve_device("cuda")


def test_a_gpu_whose_first_operation_fails_is_refused(monkeypatch):
    def broken(*args, **kwargs):
        msg = "no kernel image is available for execution on the device"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(DeviceError, match=says("no kernel image is available", "device='cpu'")):
        resolve_device("cuda:0")


def test_auto_without_a_gpu_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_the_cpu_is_described_by_its_cores():
    assert describe_device(torch.device("cpu")) == f"cpu ({os.cpu_count()} cores)"


@pytest.mark.parametrize(("wanted", "count", "expected"), [("3", None, 3), ("3", 2, 2), ("", None, 1)])
def test_threads_follow_the_argument_then_the_environment(monkeypatch, wanted, count, expected):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    try:
        assert set_threads(count) == expected
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_versions_name_what_a_result_depends_on():
    found = packages.versions()
    assert (
        found["torch"] == torch.__version__
    )  # with the build, +cpu or +cu130, which a wheel's metadata may lack
    assert {"python", "machine", "numpy", "pandas", "h5py", "gymnasium", "numba"} <= set(found)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(run_clock.time, "monotonic", lambda: now[0])
    return now


def test_a_deadline_passes_when_its_reserve_is_reached(clock):
    deadline = run_clock.Deadline(budget_s=100.0, started_s=1000.0)
    clock[0] = 1060.0
    assert (deadline.elapsed_s(), deadline.left_s()) == (60.0, 40.0)
    assert not deadline.passed()
    assert not deadline.passed(reserve_s=39.0)
    assert deadline.passed(reserve_s=40.0)
    clock[0] = 1101.0
    assert deadline.passed()
    assert deadline.left_s() == -1.0


def test_a_deadline_without_a_budget_never_passes_by_itself(clock):
    deadline = run_clock.Deadline(started_s=1000.0)
    clock[0] = 1e12
    assert not deadline.passed(reserve_s=1e9)
    deadline.request_stop()
    assert deadline.passed()


def test_a_stop_signal_asks_for_a_stop_and_handlers_come_back():
    deadline = run_clock.Deadline()
    before = signal.getsignal(signal.SIGTERM)
    restore = deadline.stop_on_signals()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert deadline.passed()
    finally:
        restore()
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_leaves_the_signal_handlers_alone():
    before = signal.getsignal(signal.SIGTERM)
    undo = []
    thread = threading.Thread(target=lambda: undo.append(run_clock.Deadline().stop_on_signals()))
    thread.start()
    thread.join()
    undo[0]()
    assert signal.getsignal(signal.SIGTERM) == before


def test_progress_logs_rate_share_and_eta(clock, caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    progress = run_clock.Progress(logging.getLogger("test"), "steps", total=1000, done=200)
    with caplog.at_level(logging.INFO, logger="test"):
        progress.update(210)  # too early to say
        clock[0] += 40.0
        progress.update(600, "reward 1.5")  # 400 in 40 s: 10 a second, 400 left
        progress.update(601)  # within ten seconds of the last line
    (line,) = caplog.messages
    assert told(line, "steps", "600/1,000", "60%", "40 s", "reward 1.5")


def test_progress_of_a_run_leaves_out_of_the_rate_what_earlier_sessions_did(clock, caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    progress = run_clock.TotalProgress(logging.getLogger("test"), "updates", {"a": 100, "b": 300, "c": 400})
    with caplog.at_level(logging.INFO, logger="test"):
        progress.report("a", 0.5)  # resumed halfway
        progress.report("b", 0.0)
        progress.finish("a")
        clock[0] += 40.0
        progress.report("b", 0.25)
    (line,) = caplog.messages
    # 100 + 75 of 800; 125 of them in 40 s, so that 625 more take 200 s
    assert told(line, "updates", "175/800", "22%", "3 min 20 s", "1/3")


def test_progress_may_be_told_as_shares_or_not_at_all(clock, caplog):
    shares = []
    with caplog.at_level(logging.INFO, logger="test"):
        for show in (shares.append, False):
            progress = run_clock.Progress(logging.getLogger("test"), "steps", 1000, 200, show)
            progress.update(210)  # within a second
            clock[0] += 1.5
            progress.update(600)
            progress.close()
    assert shares == [0.2, 0.6]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125.0, "2 min 05 s"),
        (3599.0, "59 min 59 s"),
        (11_220.0, "3 h 07 min"),
    ],
)
def test_durations_are_words(seconds, words):
    assert run_clock.duration(seconds) == words
