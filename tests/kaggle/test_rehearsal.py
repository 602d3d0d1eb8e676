"""The rehearsal: a built notebook in a real kernel, killed half-way and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

from sac_kernel.cli.settings import parse_settings
from sac_kernel.core import files, locks
from sac_kernel.core.errors import SacKernelError
from sac_kernel.core.packages import code_hash
from sac_kernel.experiment import checkpoint, job_outputs
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.kaggle.kernel_notebook import build_notebook
from sac_kernel.kaggle.rehearsal import rehearse
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import figures_left_blank, make_data
from tests.support import says, told

pytestmark = [pytest.mark.notebook, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SECRET = "5ec2e7000000deadbeef00000000cafe"
SETTINGS = [
    "learner=gaussian",
    "num_episodes=6",
    "eval_frequency=2",
    "checkpoint_frequency=1",
    "learner=gaussian",
    "num_envs=6",
    "device=cpu",
    "sac_hidden_dims=[16, 16]",
    "sac_batch_size=32",
    "sac_buffer_capacity=500",
    "sac_warmup_steps=60",
    "sac_utd_ratio=1.5",
    "env_episode_length=60",
    "env_horizon=200",
]
# What the kernel sees, written down by one more cell at the notebook's end.
PROBE = """
import json, os, socket
seen = {"environment": dict(os.environ), "cwd": os.getcwd()}
for host in ("192.0.2.1", "www.kaggle.com"):
    try:
        socket.create_connection((host, 443), timeout=2).close()
        seen[host] = "connected"
    except OSError as err:
        seen[host] = str(err)
with open("probe.json", "w") as stream:
    json.dump(seen, stream)
"""
RUN = """
import sys
from pathlib import Path
from sac_kernel.kaggle.rehearsal import rehearse
notebook, folder, datasets = map(Path, sys.argv[1:])
rehearse(notebook, folder, {path.name: path for path in sorted(datasets.iterdir())})
"""


STOPPABLE = """
import signal, sys
from pathlib import Path
from sac_kernel.core import interrupts
from sac_kernel.kaggle.rehearsal import rehearse
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
notebook, folder, datasets = map(Path, sys.argv[1:])
mounted = {path.name: path for path in sorted(datasets.iterdir())}
sys.exit(interrupts.run(lambda: int(rehearse(notebook, folder, mounted) is None)))
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    parameters = parse_settings(SETTINGS)
    template, package = ROOT / "notebooks" / "train.ipynb", ROOT / "sac_kernel"
    built = nbformat.reads(build_notebook(template, package, parameters, code_hash()), as_version=4)
    built.cells.append(nbformat.v4.new_code_cell(PROBE))
    path = tmp_path_factory.mktemp("build") / "train.ipynb"
    nbformat.write(built, path)
    return path


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    for slug in ("sac-trading-data", "sac-trading-code"):
        (folder / slug).mkdir()
        (folder / slug / "dataset-metadata.json").write_text("{}")
    write_processed(make_data(2400), folder / "sac-trading-data" / "processed_data.h5")
    (folder / "sac-trading-code" / "code_manifest.json").write_text("{}")
    return folder


def start(notebook, folder, datasets, program=RUN):
    """Start a rehearsal as a user would, with credentials in the environment."""
    env = {**os.environ, "KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", program, str(notebook), str(folder), str(datasets)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(notebook, folder, datasets):
    process = start(notebook, folder, datasets)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said[-3000:]
    return said


def kill_once_a_state_exists(process, state):
    """End the rehearsal and its kernel at once, as a power cut would; only what this test started."""
    limit = time.monotonic() + 600
    while not state.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in reversed(family):
        member.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.communicate(timeout=60)
    psutil.wait_procs(family, timeout=30)


def names_in(folder):
    """Files of a run; what came before it and the probe's are no part of it."""
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(n for n in found if not n.startswith("previous/") and n != "probe.json")


@pytest.fixture(scope="module")
def killed(notebook, datasets, tmp_path_factory):
    """A rehearsal that died once it had a state: its folder and what the state says."""
    folder = tmp_path_factory.mktemp("une répétition")
    state = folder / "working" / "state" / "state.json"
    kill_once_a_state_exists(start(notebook, folder, datasets), state)
    finished = (folder / "working" / "manifest.json").exists()
    return folder, files.read_json(state)["slots"][0]["facts"], finished


@pytest.fixture(scope="module")
def resumed(killed, notebook, datasets):
    """The same command again: its folder, what it said, and the files that it left."""
    folder = killed[0]
    said = run(notebook, folder, datasets)
    working = folder / "working"
    return folder, said, {n: (working / n).read_bytes() for n in names_in(working)}


@pytest.fixture(scope="module")
def uncut(datasets, tmp_path_factory):
    """The same run in this process, never cut: its folder."""
    folder = tmp_path_factory.mktemp("uncut")
    data = str(datasets / "sac-trading-data" / "processed_data.h5")
    with figures_left_blank():
        run_jobs(
            RunConfig.from_flat({"h5_path": data, "output_dir": str(folder), **parse_settings(SETTINGS)})
        )
    return folder


# -- a whole rehearsal ---------------------------------------------------------------------------


def test_a_rehearsal_ends_with_every_output_and_says_how_it_went(resumed):
    folder, said, _ = resumed
    working = folder / "working"
    manifest = job_outputs.read_manifest(working)
    assert (manifest["status"], manifest["episodes"], manifest["env_steps"]) == ("complete", 6, 360)
    assert {"agent_1_final.pt", "agent_1_best.pt", "report.html", "summary.json", "models.zip"} <= set(
        names_in(working)
    )
    assert "episode 6/6" in said
    assert "Writing" not in said


def test_the_executed_notebook_and_its_page_are_kept(resumed):
    folder = resumed[0]
    executed = nbformat.read(folder / "train.ipynb", as_version=4)
    code = [c for c in executed.cells if c.cell_type == "code"]
    assert all(c.execution_count is not None for c in code)
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    page = (folder / "train.html").read_text("utf-8")
    sentence = files.read_json(folder / "working" / "summary.json")["verdict"]["sentence"]
    assert sentence.split(":")[0] in page
    assert page.count("<img") >= 5


def test_the_run_header_says_as_built(resumed):
    executed = nbformat.read(resumed[0] / "train.ipynb", as_version=4)
    (header,) = [
        o["data"]["text/html"]
        for c in executed.cells
        if c.cell_type == "code" and "run_header" in c.source
        for o in c.outputs
        if "data" in o
    ]
    assert "(as built)" in header


def test_inputs_lie_under_both_schemes_and_stay_as_they_were(resumed, datasets):
    folder = resumed[0]
    data = (datasets / "sac-trading-data" / "processed_data.h5").read_bytes()
    found = {p.relative_to(folder / "input").as_posix() for p in (folder / "input").rglob("*.*")}
    assert found == {
        "datasets/you/sac-trading-code/code_manifest.json",
        "datasets/you/sac-trading-data/processed_data.h5",
        "sac-trading-code/code_manifest.json",
        "sac-trading-data/processed_data.h5",
    }
    for scheme in ("datasets/you/sac-trading-data", "sac-trading-data"):
        assert (folder / "input" / scheme / "processed_data.h5").read_bytes() == data


def test_the_kernel_has_kaggles_environment_and_no_network(resumed):
    folder = resumed[0]
    seen = json.loads((folder / "working" / "probe.json").read_text())
    environment = seen["environment"]
    assert environment["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"
    assert Path(environment["SAC_INPUT_ROOT"]) == (folder / "input").resolve()
    assert Path(seen["cwd"]) == Path(environment["SAC_WORKING_DIR"]) == (folder / "working").resolve()
    assert "network blocked" in seen["192.0.2.1"]
    assert "network blocked" in seen["www.kaggle.com"]


def test_credentials_are_not_visible_to_the_kernel_nor_written_anywhere(resumed):
    folder = resumed[0]
    environment = json.loads((folder / "working" / "probe.json").read_text())["environment"]
    assert not [n for n in environment if n in ("KAGGLE_USERNAME", "KAGGLE_KEY", "PYTHONPATH")]
    leaked = [p for p in folder.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert leaked == []


# -- killed and run again ------------------------------------------------------------------------


def test_a_killed_rehearsal_goes_on_from_its_state(killed, resumed):
    _, facts, finished = killed
    assert 1 <= facts["episodes"] < 6
    assert not finished
    assert told(resumed[1], f"episode {facts['episodes']}", f"step {facts['env_steps']}")


def test_the_killed_and_resumed_run_ends_as_the_uncut_one(resumed, uncut):
    _, _, before = resumed
    same = [n for n in before if n.endswith((".pt", "training_stats.json", "metrics_ep6.json"))]
    assert len(same) == 10
    assert [n for n in [*same, "models.zip"] if (uncut / n).read_bytes() != before[n]] == []
    assert files.read_json(uncut / "summary.json")["table"] == json.loads(before["summary.json"])["table"]


@pytest.mark.skipif(os.name != "posix", reason="this test sends POSIX signals, and this system has none")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_rehearsal_and_its_kernel_with_the_state_saved(notebook, datasets, tmp_path, number):
    process = start(notebook, tmp_path, datasets, STOPPABLE)
    state = tmp_path / "working" / "state" / "state.json"
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said[-2000:]
    assert said.count("Stopped. ") == 1
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    _, facts = checkpoint.load_state(state.parent)
    assert 1 <= facts["episodes"] <= 6
    with locks.hold(tmp_path / "working"):
        assert not (tmp_path / "working" / "manifest.json").exists()


# -- what goes wrong -----------------------------------------------------------------------------


def one_cell(path, source):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(book, path)
    return path


def slug_folders(datasets):
    return {path.name: path for path in sorted(datasets.iterdir())}


def test_a_failing_cell_is_an_error_that_names_the_page_to_read(datasets, tmp_path):
    broken = one_cell(tmp_path / "broken.ipynb", "print('before')\n1 / 0")
    with pytest.raises(SacKernelError, match=says("ZeroDivisionError", "broken.html")):
        rehearse(broken, tmp_path / "r", slug_folders(datasets))
    assert "ZeroDivisionError" in (tmp_path / "r" / "broken.html").read_text("utf-8")
    assert "SAC_INPUT_ROOT" not in os.environ


def test_a_changed_input_is_an_error_that_names_it(datasets, tmp_path):
    source = (
        "import os, pathlib\n"
        "path = pathlib.Path(os.environ['SAC_INPUT_ROOT'], 'sac-trading-code', 'code_manifest.json')\n"
        "path.write_text('{ }')"
    )
    meddler = one_cell(tmp_path / "meddler.ipynb", source)
    with pytest.raises(SacKernelError, match=says("sac-trading-code/code_manifest.json")):
        rehearse(meddler, tmp_path / "r", slug_folders(datasets))


def test_a_rehearsal_with_folds_shows_the_joined_verdict_and_the_model_that_goes_home(datasets, tmp_path):
    fields = [
        "num_episodes=2", "eval_frequency=2", "checkpoint_frequency=2", "sac_hidden_dims=[8]", "folds=2",
        'tiers=["base"]',
    ]  # fmt: skip
    template, package = ROOT / "notebooks" / "train.ipynb", ROOT / "sac_kernel"
    path = tmp_path / "train.ipynb"
    path.write_text(build_notebook(template, package, parse_settings(fields), code_hash()), encoding="utf-8")
    run(path, tmp_path / "répétition", datasets)
    working = tmp_path / "répétition" / "working"
    summary = files.read_json(working / "summary.json")
    assert files.verify_manifest(working)["status"] == "complete"
    assert summary["walk_forward"]["trainings"] == 2  # the home model and the first fold's
    assert summary["verdict"]["days"] == 2 * len(pd.read_csv(working / "daily_returns.csv"))
    page = (tmp_path / "répétition" / "train.html").read_text(encoding="utf-8")
    assert all(text in page for text in (summary["table"][0]["policy"], "The model that goes home"))
