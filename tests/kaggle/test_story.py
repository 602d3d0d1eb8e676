"""The whole story with the real client on a local Kaggle: publish, push, follow, fetch, resume until done."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel.core import files
from sac_kernel.experiment.job_queue import job_trainer
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.stats import trials
from tests.conftest import make_bars, make_data
from tests.kaggle_standin import KaggleStandin, client_python, kaggle_env, run_kaggle
from tests.kaggle_standin.client import PLAIN
from tests.support import told

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "learner": "gaussian",
    "num_episodes": 4_000,
    "eval_frequency": 10,
    "checkpoint_frequency": 200,
    "sac_hidden_dims": [64, 64],
    "sac_batch_size": 128,
    "sac_warmup_steps": 600,
    "sac_buffer_capacity": 20_000,
    "env_episode_length": 600,
    "env_horizon": 500,
    "allow_cpu": True,  # the local platform has no GPU to give
}
UNCUT = """
import sys, json
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.experiment.job_queue import job_trainer
settings = json.loads(sys.argv[1])
config = RunConfig.from_flat({"h5_path": sys.argv[2], "output_dir": sys.argv[3], **settings})
job_trainer(config, config.jobs[0]).train()
"""


@pytest.fixture
def checkout(tmp_path):
    """The files of a fresh clone, with bars in data/processed/."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("sac_kernel", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "build_kernel.py", folder)
    for name in ("kernel-metadata.json", "dataset-metadata.json"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    write_processed(make_data(1600), folder / "data/processed/processed_data.h5")
    return folder


def build_kernel(checkout, env, *arguments, timeout=1500):
    """Run build_kernel.py; it takes the interpreter named here for the client's."""
    program = "import runpy, sys; sys.executable = sys.argv.pop(1); sys.argv[0] = 'build_kernel.py'; "
    program += "sys.path.insert(0, '.'); runpy.run_path('build_kernel.py', run_name='__main__')"
    command = [sys.executable, "-c", program, client_python(), "--poll-s", "0.5", *arguments]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=timeout)


def settings(**changes):
    pairs = {**SETTINGS, **changes}
    return [part for name, value in pairs.items() for part in ("--set", f"{name}={value}")]


def asked_once(kaggle):
    """One listing of the files of each dataset version that was published."""
    return sum(len(dataset.versions) for dataset in kaggle.datasets.values())


def uploads(kaggle):
    return len(kaggle.calls("StartBlobUpload"))


SHORT = {"num_episodes": 1, "eval_frequency": 1, "checkpoint_frequency": 1, "time_budget_h": 1.0}


def test_publishing_again_uploads_only_what_changed_and_asks_little(checkout, tmp_path):
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = kaggle_env(kaggle, tmp_path / "home")
        first = build_kernel(checkout, env, "--set", "env_horizon=500")
        assert first.returncode == 0, first.stderr[-2000:]
        assert first.stdout.rstrip().endswith("kaggle kernels push")
        metadata = json.loads((checkout / "kernel-metadata.json").read_text())
        assert metadata["id"] == "tester/sac-trading-train"
        assert metadata["dataset_sources"] == ["tester/sac-trading-data", "tester/sac-trading-code"]

        before, asked = uploads(kaggle), len(kaggle.calls("GetDatasetStatus"))
        assert build_kernel(checkout, env, "--set", "env_horizon=500").returncode == 0
        assert uploads(kaggle) == before
        assert len(kaggle.calls("GetDatasetStatus")) - asked == 2  # one question for each dataset
        assert len(kaggle.calls("ListDatasetFiles")) == asked_once(kaggle)

        module = checkout / "sac_kernel" / "stats" / "metrics.py"
        module.write_text(module.read_text() + "\n# edited\n")
        assert build_kernel(checkout, env, "--set", "env_horizon=500").returncode == 0
        assert len(kaggle.datasets["tester/sac-trading-data"].versions) == 1
        assert len(kaggle.datasets["tester/sac-trading-code"].versions) == 2


def plain(kaggle_words, checkout, env):
    done = run_kaggle(kaggle_words.split(), env, checkout, timeout=120, python=PLAIN)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_kaggle_commands_push_and_fetch_and_the_next_build_knows(checkout, tmp_path):
    """The README's two commands; then a build that goes on from what they brought, or starts over if told."""
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = {**kaggle_env(kaggle, tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        assert build_kernel(checkout, env, *settings(**SHORT)).returncode == 0
        assert "successfully pushed" in plain("kernels push", checkout, env)
        kaggle.wait_status("tester/sac-trading-train", "COMPLETE", 900)
        plain("kernels output tester/sac-trading-train -p outputs/", checkout, env)
        assert files.verify_manifest(checkout / "outputs")["status"] == "complete"

        fetched = build_kernel(checkout, env, "--fetch")
        assert fetched.returncode == 0, fetched.stderr
        assert fetched.stdout.rstrip().endswith(str(Path("outputs/report.html")))

        done = build_kernel(checkout, env, "--set", "num_episodes=2")
        assert done.returncode == 0, done.stderr
        assert told(done.stdout, "resuming", "step 600")
        assert "tester/sac-trading-state" in (checkout / "kernel-metadata.json").read_text()

        fresh = build_kernel(checkout, env, "--fresh", *settings(**SHORT))
        assert fresh.returncode == 0, fresh.stderr
        assert "resuming" not in fresh.stdout
        again = build_kernel(checkout, env, *settings(**SHORT))  # not pushed yet: it is still to start over
        assert "resuming" not in again.stdout
        assert "tester/sac-trading-state" not in (checkout / "kernel-metadata.json").read_text()


def test_without_credentials_nothing_is_published_and_a_push_ends_with_2(checkout, tmp_path):
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = kaggle_env(kaggle, tmp_path / "home", auth="none")
        done = build_kernel(checkout, env, "--push", "--set", "env_horizon=500")
        assert done.returncode == 2, done.stderr
        assert told(done.stdout, "published", "credentials")
        assert not kaggle.datasets


def test_a_run_without_a_gpu_says_so_at_once_and_a_planted_secret_is_nowhere(checkout, tmp_path):
    """Nothing that is built, published or said holds a secret; the run ends COMPLETE."""
    with KaggleStandin(tmp_path / "platform", key="planted-secret-key") as kaggle:
        env = {
            **kaggle_env(kaggle, tmp_path / "home"),
            "MY_TOKEN": "planted-secret-env",
            "OMP_NUM_THREADS": "1",
        }
        (checkout / ".env").write_text("TOKEN=planted-secret-file\n")
        (checkout / "data/secret.txt").write_text("planted-secret-data\n")
        done = build_kernel(checkout, env, *settings(**SHORT, allow_cpu=False), "--push", "--follow")
        assert kaggle.session("tester/sac-trading-train").status == "COMPLETE"
        assert done.returncode == 2
        assert told(done.stderr, "NOT TRAINED", "GPU T4 x2")
        assert "planted-secret" not in done.stdout + done.stderr
        assert kaggle.datasets["tester/sac-trading-data"].versions
        paths = [
            p for top in (checkout / "build", tmp_path / "platform") for p in top.rglob("*") if p.is_file()
        ]
        assert [p for p in paths if p.suffix == ".h5"]
        assert [p for p in paths if b"planted-secret" in p.read_bytes()] == []


@pytest.mark.parametrize("scheme", ["datasets", "flat"])
def test_the_probe_answers_what_it_is_asked(checkout, tmp_path, scheme):
    """Its answers are compared with what the local platform is known to do."""
    with KaggleStandin(tmp_path / "platform", mount_scheme=scheme) as kaggle:
        env = kaggle_env(kaggle, tmp_path / "home")
        done = build_kernel(checkout, env, "--probe", "--accelerator", "none", "--push", "--follow")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert not kaggle.foreign_requests
    folder = checkout / "build" / "sac-trading" / "probe" / "outputs"
    assert len(files.verify_manifest(folder)["files"]) == 312
    answers = files.read_json(folder / "probe.json")
    mounted = "datasets/tester/sac-trading-probe-data" if scheme == "datasets" else "sac-trading-probe-data"
    assert answers["mount_paths"] == [mounted]
    assert answers["arrived_pt"].startswith("unpacked")
    assert answers["arrived_zip"].startswith("unpacked")
    assert {answers[f"arrived_{s}"] for s in ("state", "h5", "json", "csv")} == {"as sent"}
    assert answers["input_writable"].startswith("no")
    assert answers["internet"].startswith("no")
    assert answers["child_process"] == "child"
    assert answers["cuda_devices"] == 0
    assert answers["run_type"] == "Batch"
    assert answers["files_written"] == 310
    assert f"numpy=={answers['version_numpy']}" in (folder / "probe_freeze.txt").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.notebook
def test_a_run_over_several_sessions_ends_with_the_agent_of_an_uncut_run(checkout, tmp_path):
    """A session is as long as this machine needs to start and to train a third as long again.

    4,000 episodes cannot be trained in two of them. After two the goal is lowered to what is near, so that the
    test ends.
    """
    with KaggleStandin(tmp_path / "platform", dataset_delay_s=0.5, session_limit_s=900.0) as kaggle:
        env = {**kaggle_env(kaggle, tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        for seconds in (20, 40, 80, 160, 320):
            budget = settings(time_budget_h=seconds / 3600)
            done = build_kernel(checkout, env, *budget, "--push", "--follow", "--fresh")
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            first = files.verify_manifest(checkout / "outputs")
            assert first["status"] == "cut"
            if files.read_json(checkout / "outputs" / "summary.json")["run"]["train_s"] > seconds / 4:
                break
        assert first["env_steps"] > 0

        # Changing nothing publishes nothing but the state; the parameters of the last run stay.
        before = uploads(kaggle)
        done = build_kernel(checkout, env, "--resume", "--follow")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert told(done.stdout, "resuming", f"step {first['env_steps']:,}")
        # The code is unchanged, too: each of the starts above took the ledger of the one before along with it.
        unchanged = [line for line in done.stdout.splitlines() if line.startswith("unchanged")]
        assert [told(unchanged[0], "tester/sac-trading-data", 1), "sac-trading-code" in unchanged[1]] == [
            True
        ] * 2
        assert uploads(kaggle) - before == 4  # one state, its index, the ledger of trials, the fingerprint
        second = files.verify_manifest(checkout / "outputs")
        assert second["status"] == "cut"
        assert second["env_steps"] > first["env_steps"]

        episodes = second["episodes"] + 2
        goal = ["--set", f"num_episodes={episodes}", "--set", "time_budget_h=1.0"]
        goal += ["--set", "checkpoint_frequency=200"]
        done = build_kernel(checkout, env, "--until-done", *goal)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        manifest = files.verify_manifest(checkout / "outputs")
        assert (manifest["status"], manifest["episodes"]) == ("complete", episodes)
        assert (manifest["env_steps"], manifest["updates"]) == (episodes * 600, episodes * 150)
        assert not kaggle.foreign_requests
    evaluated = {k for k in range(1, episodes + 1) if k % 10 == 0} | {episodes}
    (kept,) = (checkout / "data" / "ledgers").glob("*.csv")
    for ledger in (kept, checkout / "outputs" / "trials.csv"):
        assert {trial.checkpoint for trial in trials.read(ledger)} == evaluated
        assert len(trials.read(ledger)) == len(evaluated)

    uncut = tmp_path / "uncut"
    command = [sys.executable, "-c", UNCUT, json.dumps({**SETTINGS, "num_episodes": episodes})]
    paths = [str(checkout / "data/processed/processed_data.h5"), str(uncut)]
    subprocess.run([*command, *paths], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    for name in ("agent_1_final.pt", "agent_1_best.pt", "logs/training_stats.json"):
        assert (checkout / "outputs" / name).read_bytes() == (uncut / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.notebook
def test_a_run_of_two_instruments_is_fetched_and_goes_on_from_the_state_of_both(checkout, tmp_path):
    """One episode of each, then two: the second session restores both trainings and ends as an uncut run."""
    bars = tmp_path / "bars"
    bars.mkdir()
    for seed, name in enumerate(("EURUSD", "GBPUSD")):
        make_bars(1600, seed).rename_axis("time").to_csv(bars / f"{name}.csv")
    traded = ["--data", str(bars), "--price-side", "bid", "--instruments", "EURUSD,GBPUSD"]
    outputs = checkout / "outputs"
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = {**kaggle_env(kaggle, tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        done = build_kernel(checkout, env, *traded, *settings(**SHORT), "--push", "--follow")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        first = files.verify_manifest(outputs)
        assert (first["status"], first["episodes"], first["env_steps"]) == ("complete", 1, 2 * 600)
        done = build_kernel(checkout, env, "--set", "num_episodes=2", "--until-done")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert told(done.stdout, "resuming", "step 600, 600")
        manifest = files.verify_manifest(outputs)
        assert (manifest["status"], manifest["episodes"], manifest["env_steps"]) == ("complete", 2, 2 * 1200)
        assert manifest["run"] == first["run"]
    names = [row[0] for row in files.read_json(outputs / "summary.json")["tables"][0]["rows"]]
    assert names == ["EURUSD", "GBPUSD"]
    kept = (checkout / "data" / "ledgers").glob("*.csv")  # one for each instrument
    assert [len(trials.read(ledger)) for ledger in kept] == [2, 2]

    config = RunConfig.from_flat(
        {
            **{name: tuple(v) if isinstance(v, list) else v for name, v in {**SETTINGS, **SHORT}.items()},
            "num_episodes": 2,
            "instruments": ("EURUSD", "GBPUSD"),
            "h5_path": str(checkout / "data/processed/processed_data.h5"),
            "output_dir": str(tmp_path / "uncut"),
        }
    )
    for run in config.runs:
        job_trainer(run, run.jobs[0]).train()
        name = f"instruments/{run.instruments[0]}/agent_1_final.pt"
        assert (outputs / name).read_bytes() == (tmp_path / "uncut" / name).read_bytes()
