"""The installed package, in a folder of its own: the console script works, and paths are the current folder's."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_bars, make_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("flit_core") is None,
        reason="building the wheel needs flit_core: pip install -r requirements/dev.txt",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("pip") is None,
        reason="installing the wheel needs pip, which this environment lacks",
    ),
]
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
num_episodes = 1
eval_frequency = 1
checkpoint_frequency = 1
sac_hidden_dims = [8]
sac_batch_size = 16
env_episode_length = 60
env_horizon = 50
"""


class Installed:
    """A virtual environment with the wheel, which sees this environment's packages, and a user's folder."""

    def __init__(self, folder):
        self.folder, venv = folder / "user", folder / "venv"
        self.folder.mkdir()
        build = "import flit_core.buildapi as b, sys; print(b.build_wheel(sys.argv[1]))"
        name = self.checked([sys.executable, "-c", build, str(folder)], ROOT).splitlines()[-1]
        self.checked([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder)
        self.bin = venv / ("Scripts" if os.name == "nt" else "bin")
        python = str(self.bin / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q"]
        self.checked([*pip, str(folder / name)], folder)
        show = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(self.checked([python, "-c", show], folder).strip())
        (self.site / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def checked(self, command, cwd):
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words):
        """Return status and output of `sac-kernel WORDS` in the user's folder."""
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        env |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        command = [str(self.bin / "sac-kernel"), *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    before = {path for path in ROOT.iterdir() if path.name not in ("__pycache__",)}
    installed = Installed(tmp_path_factory.mktemp("wheel"))
    assert {path for path in ROOT.iterdir() if path.name not in ("__pycache__",)} == before
    data = installed.folder / "data" / "processed" / "processed_data.h5"
    data.parent.mkdir(parents=True)
    write_processed(make_data(1600), data)
    make_bars(1640)[1500:].rename_axis("time").to_csv(installed.folder / "EURUSD.csv")
    (installed.folder / "run.toml").write_text(SETTINGS, encoding="utf-8")
    return installed


@pytest.fixture(scope="module")
def trained(installed):
    status, said = installed.run("train", "--config", "run.toml", "--device", "cpu", "--seeds", "3")
    assert status == 0, said
    return installed


def test_the_console_script_lists_its_commands(installed):
    status, said = installed.run("--help")
    assert status == 0
    assert "walk-forward" in said


@pytest.mark.parametrize("command", ["build", "rehearse"])
def test_a_build_needs_a_clone_and_names_what_it_looked_for(installed, command):
    status, said = installed.run(command)
    assert status == 2
    assert "build_kernel.py" in said
    assert "Traceback" not in said


def test_retraining_needs_a_clone_before_it_changes_the_bars(trained):
    data = trained.folder / "data" / "processed" / "processed_data.h5"
    before = data.read_bytes()
    status, said = trained.run("retrain", "--bars", "EURUSD.csv")
    assert status == 2
    assert "build_kernel.py" in said
    assert data.read_bytes() == before


def test_training_writes_into_the_current_folder(trained):
    manifest = json.loads((trained.folder / "outputs" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["env_steps"] == 30 * 16  # one episode of 30 updates, each on a batch of 16 decisions
    assert (trained.folder / "outputs" / "agent_1_final.pt").is_file()


def test_a_model_is_judged_decided_with_and_exported(trained):
    model = ("--model", "outputs/agent_1_final.pt")
    status, said = trained.run("evaluate", *model)
    assert status == 0, said
    assert "base" in said
    status, said = trained.run("decide", *model)
    assert status == 0, said
    assert -1.0 <= json.loads(said)["target"] <= 1.0
    status, said = trained.run("export", *model)
    assert status == 0, said
    assert (trained.folder / "agent_1_final.onnx").is_file()


def test_paper_trading_and_the_model_store_live_in_the_current_folder(trained):
    model = ("--model", "outputs/agent_1_final.pt")
    status, said = trained.run("paper", *model, "--bars", "EURUSD.csv", "--journal", "paper", "--speed", "0")
    assert status == 0, said
    assert (trained.folder / "paper" / "journal.jsonl").read_bytes().count(b"\n") > 100
    status, said = trained.run("retrain", "--judge", "outputs/agent_1_final.pt")
    assert status == 0, said
    assert (trained.folder / "models" / "current.json").is_file()


def test_nothing_was_written_beside_the_package(trained):
    names = {path.name for path in trained.site.parent.rglob("*") if path.suffix in (".pt", ".h5", ".html")}
    assert names == set()
    assert not {"outputs", "models", "data", "build"} & {path.name for path in trained.site.iterdir()}
