"""The pool of jobs: every job once, a lost worker costs an attempt, a stop saves what there is."""

import collections
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest

from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import CheckpointError, ConfigError
from sac_kernel.experiment import job_pool, ray_pool
from tests import pool_jobs
from tests.support import says, told

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def diary(tmp_path):
    path = tmp_path / "diary.txt"
    path.touch()
    return str(path)


def counted(diary):
    return collections.Counter(Path(diary).read_text().splitlines())


def jobs_of(diary, n, **more):
    return [{"x": x, "diary": diary, **more} for x in range(n)]


def test_every_job_runs_once_and_never_again(tmp_path, diary):
    (tmp_path / "bars.txt").write_text("bars")
    jobs = jobs_of(diary, 6)
    given = {"inputs": {"bars": tmp_path / "bars.txt"}, "devices": ("a", "b"), "workers": 2}
    first = job_pool.run([*jobs, jobs[0]], pool_jobs.square, tmp_path / "out", **given)
    assert [o.result["square"] for o in first] == [0, 1, 4, 9, 16, 25]
    assert {o.result["input"] for o in first} == {"bars"}
    assert len({o.result["pid"] for o in first}) <= 2  # a process runs one job after the other
    assert {(tmp_path / "out" / o.name / "seen.txt").read_text() for o in first} <= {"a", "b"}
    again = job_pool.run([*jobs, {"x": 6, "diary": diary}], pool_jobs.square, tmp_path / "out")
    assert [o.result for o in again[:6]] == [o.result for o in first]
    assert again[6].result["square"] == 36
    assert set(counted(diary).values()) == {1}


def test_a_job_is_its_content_and_its_function(tmp_path):
    name = job_pool.job_name({"a": 1, "b": 0.5}, "m:f")
    assert name == job_pool.job_name({"b": 0.5, "a": 1}, "m:f")
    assert name != job_pool.job_name({"a": 1, "b": 0.25}, "m:f")
    assert name != job_pool.job_name({"a": 1, "b": 0.5}, "m:g")
    # The SHA-256 of the strict JSON, worked out apart from the package's own function.
    text = '{\n "function": "m:f",\n "job": {\n  "a": 1,\n  "b": 0.5\n }\n}'
    assert name == files.sha256(text.encode())[:16]


def test_a_lost_worker_costs_its_job_one_attempt_and_the_others_nothing(tmp_path, diary):
    jobs = [{"x": x, "diary": diary, "deaths": 2 if x == 1 else 0} for x in range(4)]
    outcomes = job_pool.run(jobs, pool_jobs.dies, tmp_path / "out", workers=2)
    assert [o.result["square"] for o in outcomes] == [0, 1, 4, 9]
    assert counted(diary) == {"begun 0": 1, "begun 1": 3, "begun 2": 1, "begun 3": 1}


def test_a_job_whose_worker_is_always_lost_is_given_up(tmp_path, diary):
    outcomes = job_pool.run(
        [{"x": 1, "diary": diary, "deaths": 9}], pool_jobs.dies, tmp_path / "out", workers=2
    )
    assert outcomes[0].result is None
    assert told(outcomes[0].failure, "status 9")
    assert counted(diary) == {"begun 1": job_pool.ATTEMPTS}


def test_an_error_fails_its_job_alone_and_the_next_run_tries_it_again(tmp_path):
    outcomes = job_pool.run([{"x": 0}, {"x": 1}, {"x": 2}], pool_jobs.fails, tmp_path / "out")
    assert [bool(o.failure) for o in outcomes] == [False, True, False]
    assert told(outcomes[1].failure, "DataError")
    assert [o.result and o.result["square"] for o in outcomes] == [0, None, 4]
    assert outcomes[0].result["pid"] != outcomes[2].result["pid"]  # what it left may harm the next job
    assert "Traceback" in (tmp_path / "out" / outcomes[1].name / "log.txt").read_text()
    assert not (tmp_path / "out" / outcomes[1].name / "result.json").exists()
    again = job_pool.run([{"x": 1}], pool_jobs.fails, tmp_path / "out")
    assert again[0].failure == outcomes[1].failure


def test_a_job_without_a_folder_has_its_log_lines_passed_on_and_says_how_far_it_is(caplog):
    progress, answers = mock.Mock(), {}
    requests = {name: {"function": "tests.pool_jobs:talks", "job": {"x": x}} for x, name in enumerate("abc")}
    with caplog.at_level(logging.INFO, logger=job_pool.__name__):
        job_pool.Processes(requests, ["cpu", "cpu"], Deadline(), answers.__setitem__, progress).run()
    assert {name: answer["result"] for name, answer in answers.items()} == {
        "a": {"square": 0},
        "b": {"square": 1},
        "c": {"square": 4},
    }
    calls = [mock.call.report(name, 0.5) for name in "abc"] + [mock.call.finish(name) for name in "abc"]
    progress.assert_has_calls([*calls, mock.call.close()], any_order=True)
    assert len(progress.mock_calls) == 7
    assert {"a | a line", "b | a line", "c | a line"} < set(caplog.messages)


def test_a_stop_lets_jobs_save_and_begins_no_more(tmp_path, diary):
    deadline = Deadline()

    def stop_when_begun():
        while "begun" not in Path(diary).read_text():
            time.sleep(0.02)
        deadline.request_stop()

    threading.Thread(target=stop_when_begun, daemon=True).start()
    outcomes = job_pool.run(jobs_of(diary, 3), pool_jobs.waits, tmp_path / "out", deadline=deadline)
    assert all(told(o.failure, "stopped") for o in outcomes)
    assert counted(diary) == {"begun 0": 1, "stopped 0": 1}


def test_a_job_that_does_not_stop_in_time_is_killed(tmp_path, diary, monkeypatch):
    monkeypatch.setattr(job_pool, "_GRACE_S", 0.5)
    deadline = Deadline()

    def stop_when_begun():
        wait_for(diary, "begun 0")
        deadline.request_stop()

    threading.Thread(target=stop_when_begun, daemon=True).start()
    first, second = job_pool.run(jobs_of(diary, 2), pool_jobs.hangs, tmp_path / "out", deadline=deadline)
    assert first.result is second.result is None
    assert first.failure != second.failure  # one was killed, one never begun


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path, diary):
    program = (
        "import sys; from pathlib import Path; from tests import pool_jobs\n"
        "from sac_kernel.experiment import job_pool\n"
        "job_pool.run([{'x': 0, 'diary': sys.argv[1]}], pool_jobs.waits, Path(sys.argv[2]))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", program, diary, str(tmp_path / "out")], env=env) as parent:
        wait_for(diary, "begun 0")
        parent.kill()
    wait_for(diary, "stopped 0")


@pytest.mark.skipif(os.name != "posix", reason="this test sends POSIX signals, and this system has none")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)])
def test_a_job_that_hears_nothing_is_ended_after_a_signal(tmp_path, diary, number):
    program = (
        "import sys; from pathlib import Path; from tests import pool_jobs\n"
        "from sac_kernel.core import interrupts; from sac_kernel.experiment import job_pool\n"
        "jobs = [{'x': 0, 'diary': sys.argv[1]}]\n"
        "run = lambda: len(job_pool.run(jobs, pool_jobs.hears_nothing, Path(sys.argv[2])))\n"
        "sys.exit(interrupts.run(run))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, diary, str(tmp_path / "out")]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as parent:
        wait_for(diary, " ")
        worker = psutil.Process(int(Path(diary).read_text().split()[1]))
        parent.send_signal(number)
        said = parent.communicate()[1]
    assert parent.returncode == (143 if number == signal.SIGTERM else -number)
    assert said.count("Stopped. ") == (number == signal.SIGTERM)
    assert "Traceback" not in said
    psutil.wait_procs([worker], timeout=60)  # of the 120 seconds that it would run
    assert not worker.is_running()


def wait_for(diary, line, seconds=60):
    end_s = time.monotonic() + seconds
    while line not in Path(diary).read_text():
        assert time.monotonic() < end_s, line
        time.sleep(0.02)


def test_a_damaged_result_is_named(tmp_path):
    (outcome,) = job_pool.run([{"x": 2}], pool_jobs.fails, tmp_path)
    for content, words in (("{", ["JSON"]), ("{}", []), ("[]", []), ('{"result": 1, "seconds": 0}', [])):
        (tmp_path / outcome.name / "result.json").write_text(content)
        with pytest.raises(CheckpointError, match=says("result.json", *words)):
            job_pool.run([{"x": 2}], pool_jobs.fails, tmp_path)


def test_a_function_that_other_processes_cannot_find_is_refused(tmp_path):
    def inner(job, place):
        return {}

    with pytest.raises(ConfigError, match=says("test_a_function_that", "inner")):
        job_pool.run([{"x": 0}], inner, tmp_path)


def test_an_address_without_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=says("pip install -r requirements/ray.txt")):
        ray_pool.at("auto")


def test_a_worker_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for name in ("h5py", "numpy", "tempfile"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    (outcome,) = job_pool.run([{"x": 3}], pool_jobs.square, tmp_path / "jobs")
    assert outcome.result["square"] == 9
    assert not (tmp_path / "ran").exists()
