"""The queue of jobs: in turn or side by side, the same results, and no job costs another its hours."""

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import sac_kernel
from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.device import device_names
from sac_kernel.core.errors import DataError, SacKernelError
from sac_kernel.experiment import checkpoint, job_outputs, job_pool, job_queue
from sac_kernel.experiment import trainer as train_sac_kaggle
from sac_kernel.experiment.job_queue import describe_queue, run_jobs
from sac_kernel.experiment.run_config import RunConfig
from tests.small_runs import TINY
from tests.support import says, told

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("blank_figures")

TWO_DEVICES = ("cpu", "cpu")  # two places on one processor: two processes


def config_of(h5, folder, **changes):
    return RunConfig.from_flat(
        {**TINY, "h5_path": str(h5), "output_dir": str(folder), "seeds": (0, 1), **changes}
    )


@pytest.fixture(scope="module")
def in_turn(h5, tmp_path_factory):
    config = config_of(h5, tmp_path_factory.mktemp("turn"), agent_ids=(1, 2), seeds=(0,))
    return config, run_jobs(config, devices=("cpu",))


@pytest.fixture(scope="module")
def spread(h5, tmp_path_factory):
    """Two processes whose clock is over before the first step, then two that go on; and what was logged."""
    config = config_of(h5, tmp_path_factory.mktemp("spread"), agent_ids=(1, 2), seeds=(0,))
    cut = run_jobs(config, Deadline(0.0), TWO_DEVICES)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(sac_kernel.__name__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return config, cut, run_jobs(config, devices=TWO_DEVICES), lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def names_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_processes_cut_and_resumed_write_what_a_queue_in_turn_writes_bit_for_bit(in_turn, spread):
    one, two = in_turn[0].top_folder, spread[0].top_folder
    cut, done = spread[1:3]
    assert cut.summary["status"] == "cut"
    assert [job["env_steps"] for job in cut.summary["jobs"]] == [0, 0]
    assert names_in(one) == names_in(two)
    same = [n for n in names_in(one) if n.endswith((".pt", "training_stats.json", ".npz", "models.zip"))]
    assert (
        len(same) == 2 * (2 + 2 + 2) + 4 + 1
    )  # a job's agents, checkpoints, logs; copies at the top; archive
    assert [n for n in same if (one / n).read_bytes() != (two / n).read_bytes()] == []
    assert done.summary["table"] == in_turn[1].summary["table"]
    assert files.strict_json(done.summary["verdict"]) == files.strict_json(in_turn[1].summary["verdict"])


def test_each_job_is_judged_in_the_queues_order(spread):
    run = spread[2]
    assert [(job["agent_id"], job["seed"]) for job in run.summary["jobs"]] == [(1, 0), (2, 0)]
    assert {job["device"] for job in run.summary["jobs"]} == {"cpu"}
    assert len(run.judgements) == 2
    assert run.failures == {}


def test_lines_of_a_process_carry_its_name(spread):
    lines = spread[3]
    assert told(lines[0], 2, "cpu", "2 cores")
    assert [line for line in lines if line.startswith("agent_2_seed_0 | ") and "2/2" in line]


def test_one_line_says_how_far_all_trainings_are(spread):
    lines = spread[3]
    of_all = [line for line in lines if line.startswith("updates ")]
    # 2 agents x 2 episodes x 60 steps at the planned updates a step
    total = f"{2 * 2 * 60 * spread[0].sac.utd_ratio:,.10g}"
    assert of_all
    assert all(told(line, f"/{total}", "/2 finished") for line in of_all)
    assert not [line for line in lines if "training steps" in line]


def test_the_manifest_counts_the_steps_of_all_jobs(in_turn):
    config, _ = in_turn
    manifest = job_outputs.read_manifest(config.top_folder)
    assert (manifest["env_steps"], manifest["episodes"], manifest["status"]) == (2 * 120, 2, "complete")


def test_a_finished_queue_of_processes_starts_anew_and_keeps_the_old_in_previous(spread, tmp_path):
    shutil.copytree(spread[0].top_folder, tmp_path / "run")
    config = dataclasses.replace(spread[0], output_dir=str(tmp_path / "run"))
    again = run_jobs(config, Deadline(0.0), TWO_DEVICES)
    (previous,) = (config.top_folder / "previous").iterdir()
    kept = previous / "runs" / "agent_2_seed_0" / "agent_2_final.pt"
    first = spread[0].top_folder / "runs" / "agent_2_seed_0" / "agent_2_final.pt"
    assert kept.read_bytes() == first.read_bytes()
    assert [job["env_steps"] for job in again.summary["jobs"]] == [0, 0]
    assert not list((config.top_folder / "previous").rglob("previous"))


def test_a_stop_lets_processes_save_and_begins_the_others_too(h5, tmp_path):
    """Three trainings without an end on two places: the third has no place, and its state is saved all the same."""
    config = config_of(h5, tmp_path, num_episodes=100_000, checkpoint_frequency=10_000, seeds=(0, 1, 2))
    deadline = Deadline()
    folders = [tmp_path / "runs" / f"agent_1_seed_{seed}" for seed in (0, 1, 2)]

    def stop_when_trained():
        started_s = time.monotonic()
        while not all((f / "agent_1_best.pt").exists() for f in folders[:2]):
            time.sleep(0.1)
            if time.monotonic() - started_s > 600:
                break
        deadline.request_stop()

    threading.Thread(target=stop_when_trained, daemon=True).start()
    run = run_jobs(config, deadline, TWO_DEVICES)
    assert run.failures == {}
    facts = [checkpoint.newest_facts(folder / "state") for folder in folders]
    assert [f["env_steps"] > 0 for f in facts] == [True, True, False]
    assert not any(f["finished"] for f in facts)
    assert [job["status"] for job in run.summary["jobs"]] == ["cut"] * 3


@pytest.mark.parametrize("devices", [("cpu",), TWO_DEVICES])
def test_a_job_that_fails_costs_the_others_nothing(h5, tmp_path, devices):
    """The first job finds a state that was learnt from other settings; the second trains."""
    other = config_of(h5, tmp_path, sac_batch_size=64, num_episodes=1)
    trainer = job_queue.job_trainer(other, other.jobs[0])
    trainer.train()
    run = run_jobs(config_of(h5, tmp_path), devices=devices)
    assert list(run.failures) == ["agent_1_seed_0"]
    assert told(run.failures["agent_1_seed_0"], "batch_size", 64, 32)
    assert [job["seed"] for job in run.summary["jobs"]] == [1]
    manifest = job_outputs.read_manifest(tmp_path)
    assert (manifest["status"], manifest["episodes"]) == ("cut", 2)
    summary = files.read_json(tmp_path / "summary.json")
    assert any("agent_1_seed_0" in note for note in summary["verdict"]["notes"])
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(("devices", "error"), [(("cpu",), DataError), (TWO_DEVICES, SacKernelError)])
def test_if_every_job_fails_the_run_fails_with_the_reason(h5, tmp_path, devices, error):
    config = config_of(h5, tmp_path, expect_data_hash="f" * 64)
    with pytest.raises(error, match=says("hash ffffffffffff")):
        run_jobs(config, devices=devices)
    assert not (tmp_path / "report.html").exists()


def test_a_process_ends_when_the_one_that_started_it_is_gone(h5, tmp_path):
    """kill -9 of the notebook's process closes the pipe: nothing trains on unseen."""
    config = config_of(h5, tmp_path, num_episodes=100_000, checkpoint_frequency=1000, seeds=(0,))
    program = (
        "import subprocess, sys, time\n"
        "w = subprocess.Popen([sys.executable, '-u', '-m', 'sac_kernel.experiment.job_pool'], stdin=subprocess.PIPE)\n"
        "w.stdin.write(sys.argv[1].encode() + b'\\n'); w.stdin.flush(); time.sleep(600)"
    )
    job = {"config": config.flat(), "job": (1, 0)}
    function = "sac_kernel.experiment.job_queue:train_job"
    request = json.dumps({"function": function, "device": "cpu", "job": job})
    command = [sys.executable, "-c", program, request]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as parent:
        started_s = time.monotonic()
        while not (tmp_path / "agent_1_best.pt").exists() and time.monotonic() - started_s < 600:
            time.sleep(0.1)
        parent.kill()
    while checkpoint.newest_facts(tmp_path / "state") is None and time.monotonic() - started_s < 900:
        time.sleep(0.1)
    assert not checkpoint.newest_facts(tmp_path / "state")["finished"]


@pytest.mark.parametrize(
    ("jobs", "devices", "named"),
    [
        (1, ("cpu",), ("1 job", "cpu")),
        (3, ("cuda:0",), ("3 jobs", "cuda:0")),
        (3, ("cuda:0", "cuda:1"), ("3 jobs", "cuda:0, cuda:1")),
        (3, ("cpu", "cpu"), ("3 jobs", "cpu", "2 cores")),
        (1, ("cuda:0", "cuda:1"), ("1 job", "cuda:1 idle")),
    ],
)
def test_the_queue_says_where_it_runs(jobs, devices, named):
    assert told(describe_queue(RunConfig(seeds=tuple(range(jobs))), devices), *named)


@pytest.mark.parametrize(("jobs", "cores", "places"), [(1, 4, 1), (3, 2, 2), (3, 4, 3), (2, None, 1)])
def test_on_the_cpu_each_core_takes_a_job(jobs, cores, places, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    config = RunConfig(device="cpu", seeds=tuple(range(jobs)))
    assert job_queue._devices(config) == ("cpu",) * places


def test_every_cuda_device_takes_jobs_unless_one_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_names("auto") == device_names("cuda") == ("cuda:0", "cuda:1")
    assert device_names("cuda:1") == ("cuda:1",)
    assert device_names("cpu") == ("cpu",)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_names("auto") == ("cpu",)


def test_the_grace_covers_an_evaluation():
    assert job_pool._GRACE_S > 60
    assert train_sac_kaggle.STATE_INTERVAL_S >= 60


def test_a_worker_imports_nothing_from_the_current_folder(h5, tmp_path, monkeypatch):
    for name in ("h5py", "gymnasium", "tempfile"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    run_jobs(config_of(h5, tmp_path / "out"), Deadline(0.0), TWO_DEVICES)
    assert not (tmp_path / "ran").exists()
