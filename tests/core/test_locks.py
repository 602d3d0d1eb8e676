"""Locks and interrupts, across processes that end well, are killed, or ignore the first signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sac_kernel.core import interrupts, locks
from sac_kernel.core.errors import BusyError, Interrupted, StorageError
from tests.kaggle_standin.runner import is_running
from tests.support import says

ROOT = Path(__file__).resolve().parents[2]
# Ctrl-C is ignored in what a shell starts in the background.
ORDINARY = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
HOLDER = """
import sys, time
from pathlib import Path
from sac_kernel.core import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
posix = pytest.mark.skipif(
    os.name != "posix", reason="this test sends POSIX signals, and this system has none"
)


def python(program, *words):
    return subprocess.Popen(
        [sys.executable, "-c", ORDINARY + program, *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    process = python(HOLDER, tmp_path / "place", "with-a-word")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_refused_and_told_who_holds_it_since_when(holder, tmp_path):
    expected = says(holder.pid, time.strftime("%Y-"), "UTC", "with-a-word")
    with pytest.raises(BusyError, match=expected) as refused, locks.hold(tmp_path / "place"):
        pass
    assert str(tmp_path / "place") in str(refused.value)
    assert str(ROOT) not in str(refused.value)


@pytest.mark.parametrize("how", ["the end", "a kill"])
def test_a_lock_is_free_after(how, holder, tmp_path):
    if how == "a kill":
        holder.kill()
        holder.wait()
    else:
        holder.communicate("\n")
        assert not (tmp_path / "place").exists()
    with locks.hold(tmp_path / "place"):
        assert (tmp_path / "place" / locks.LOCK_FILE).read_text().startswith(f"process {os.getpid()} ")


def test_one_can_wait_for_the_other(holder, tmp_path):
    threading.Timer(0.3, holder.kill).start()
    with locks.hold(tmp_path / "place", wait_s=60.0):
        assert holder.wait(60) != 0


def test_a_thread_enters_twice_and_another_thread_not(tmp_path):
    seen = []

    def enter():
        try:
            with locks.hold(tmp_path):
                seen.append("in")
        except BusyError:
            seen.append("refused")

    with locks.hold(tmp_path):
        enter()
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    enter()
    assert seen == ["in", "refused", "in"]


def test_of_many_processes_one_at_a_time_is_in(tmp_path):
    """Each adds one to a number in a file, read and written apart."""
    program = """
import sys, time
from pathlib import Path
from sac_kernel.core import locks
folder = Path(sys.argv[1])
for _ in range(40):
    with locks.hold(folder, wait_s=120.0):
        path = folder / "number"
        number = int(path.read_text())
        time.sleep(0.0005)
        path.write_text(str(number + 1))
"""
    (tmp_path / "number").write_text("0")
    processes = [python(program, tmp_path) for _ in range(4)]
    assert [(p.communicate()[0], p.returncode) for p in processes] == [("", 0)] * 4
    assert (tmp_path / "number").read_text() == "160"


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0,
    reason="a read-only folder does not stop the superuser, or this system has no POSIX permissions",
)
def test_a_read_only_folder_is_a_storage_error_that_names_it(tmp_path):
    (tmp_path / "fixed").mkdir(mode=0o555)
    with pytest.raises(StorageError, match=says("fixed")), locks.hold(tmp_path / "fixed"):
        pass


def test_a_file_in_the_folders_place_is_a_storage_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=says("file")), locks.hold(tmp_path / "file"):
        pass


# -- interrupts

COMMAND = """
import ctypes, subprocess, sys, time
from concurrent import futures
from sac_kernel.core import interrupts
interrupts.LIMIT_S = 2.0

def child():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

def in_thread():
    with futures.ThreadPoolExecutor() as pool:
        done = pool.submit(interrupts.finish, process, 600)
        print(process.pid, flush=True)
        done.result()

def deaf():
    print(process.pid, flush=True)
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass

def alone():
    print(process.pid, flush=True)
    interrupts.finish(process, 600)

def whole():
    with interrupts.deferred():
        print(process.pid, flush=True)
        for _ in range(10):
            time.sleep(0.1)
        print("written", flush=True)
    time.sleep(600)

def swallowed():
    ctypes.CFUNCTYPE(None)(alone)()  # a callback of compiled code ends without what it raises
    for _ in range(15):
        time.sleep(0.1)
    print("went on", flush=True)

def command():
    interrupts.advise("Do it again.")
    globals()[sys.argv[1]]()

process = child()
interrupts._children.add(process)
status = interrupts.run(command)
process.kill()
sys.exit(status)
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("case", ["alone", "in_thread", "deaf", "swallowed", "whole"])
def test_a_signal_ends_a_command_its_children_and_says_one_sentence(case, number):
    process = python(COMMAND, case)
    child = int(process.stdout.readline())
    started_s = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert time.monotonic() - started_s < 30  # hangs are minutes
    lines = [line for line in said.splitlines() if line]
    assert lines == (["written"] if case == "whole" else []) + ["Stopped. Do it again."]
    limit_s = time.monotonic() + 30
    while is_running(child) and time.monotonic() < limit_s:
        time.sleep(0.02)
    assert not is_running(child)


@posix
def test_a_wait_of_another_thread_ends_with_the_signal():
    seen = []

    def wait():
        try:
            interrupts.sleep(600)
        except Interrupted as err:
            seen.append(err.number)

    def command():
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(600)
        finally:
            thread.join()
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert interrupts.run(command) == 143
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before
    assert interrupts.run(lambda: 5) == 5
