"""The commands of the pages are run, page by page and in their order, in one small folder like a user's.

Three tables say what is different from what a user types: `SHORTER`, what is taken off so that a command ends soon;
`STAND_INS`, what brings what another machine would; `NOT_RUN`, which are only parsed (`test_doc_commands.py`), and why.
A command that stands in several pages runs once. Each finds what those before it left: run the whole file.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.live.model_store import ModelStore
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_bars, make_data
from tests.project.test_doc_commands import PAGES, commands_of, cut_comment
from tests.use_models import lively_agent

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("README.md", "docs/tutorial.md", "docs/use.md", "docs/sweep.md")
"""Pages in the order in which a user reads them; the others follow."""

TINY = (
    " --set eval_frequency=1 --set checkpoint_frequency=1 --set env_episode_length=60"
    " --set sac_batch_size=16 --set sac_hidden_dims=[8]"
)
SHORTER = (
    # of which commands, what of it, what instead
    ("python build_kernel.py", r" --rehearse$", ""),  # `retrain --rehearse` runs it, once for all
    ("python -m sac_kernel retrain --bars", r"num_episodes=50$", "num_episodes=1" + TINY),
    ("python -m sac_kernel train", r"num_episodes=100", "num_episodes=1"),
    ("python -m sac_kernel sweep --seeds", r" --workers 2", ""),
    ("python -m sac_kernel sweep", r"--seeds [0-9,]+", "--seeds 0"),
    ("python -m sac_kernel sweep", r"--folds 4 --test-days 60 --val-days 40", "--folds 1 --test-days 10 --val-days 5"),
    ("python -m sac_kernel sweep", r" --set num_episodes=20", ""),
    ("python -m sac_kernel sweep", r"$", " --set num_episodes=1" + TINY),
    ("python -m sac_kernel walk-forward", r" --workers 2", ""),
    ("python -m sac_kernel walk-forward", r" --updates \d+", ""),
    ("python -m sac_kernel walk-forward", r"$", " --updates 4 --evaluations 1 --agents 1 --seeds 0 --folds 1"),
    ("python -m sac_kernel walk-forward", r"$", " --test-days 10 --val-days 5 --tiers base"),
    ("python -m benchmarks.promotion", r"--sets 300", "--sets 2"),
    ("python -m benchmarks.export MODEL", r"$", " --states 2000"),
    ("python -m benchmarks.export", r"MODEL", "outputs/agent_1_best.pt"),
    ("python -m tests.", r"(--episodes|--count) \d+$", r"\1 5"),
    ("python build_kernel.py --data", r"PATH$", "eurusd_m5.csv --price-side bid"),
    ("python build_kernel.py --data", r"FOLDER", "folder"),
    ("python build_kernel.py --data bars/", r"bars/(.* --instruments)", r"several/\1"),
)  # fmt: skip

STAND_INS = {
    # A run on Kaggle leaves what a run here leaves.
    "kaggle kernels output OWNER/sac-trading-train -p outputs/": (
        "python -m sac_kernel train --set num_episodes=1 --output outputs"
    ),
}

STORY = "runs in kaggle/test_story.py with the real client on a local Kaggle"
NOT_RUN = (
    # commands that begin so, and why
    (r"(python -m )?pip install|python -m venv|\. \.venv/", "installs packages: no test has a network, `.ci/run` has"),
    (r"make (run|test|docs|locked|lock|check-wheels|audit-deps)$", "the same"),
    (r"make kaggle-rehearsal$", STORY),
    (
        r"make |python -m tests\.(crash|soak|fuzz_files|test_kaggle|commands_at_random)",
        "minutes to hours; what it calls has short tests",
    ),
    (r"python -m pytest", "the suite itself"),
    (r"kaggle kernels push|python build_kernel.py .*--(push|follow|fetch|resume|until-done|stop)", STORY),
    (r"python -m sac_kernel retrain --bars bars/ --kaggle", "`--rehearse` with `--until-done` instead, which " + STORY),
    (r"python -m sac_kernel null", "needs more than a year of bars: experiment/test_pipeline_null.py has short ones"),
    (r"python -m sac_kernel download", "asks a provider: prices/test_download.py has one on this machine"),
    (r"kaggle auth login", "opens a browser"),
    (r"kaggle kernels output OWNER/X", STORY),
    (r"python build_kernel.py --data data/downloads", "follows a download"),
    (r"python -m sac_kernel export .*--safetensors", "needs safetensors: live/test_export.py, where it is installed"),
    (r"python -c .import getpass", "asks for a token at the terminal"),
    (r"python -m sac_kernel train --preset quick", "50 episodes; cli/test_command_line.py has the presets"),
    (r"ray |.*--address auto", "needs ray: experiment/test_job_pool_ray.py, where it is installed"),
    (r"python -m benchmarks\.\w+ (--guide )?FOLDER", "needs real bars"),
    (r"python -m benchmarks\.(?!promotion|export )", "measures for minutes to hours"),
)  # fmt: skip
STATUS = {
    "python -m sac_kernel retrain --bars": (0, 3),
    "python -m sac_kernel retrain --judge": (0, 3),
    "python -m sac_kernel paper": (0, 130),
}
"""3: the candidate was not better; 130: stopped by Ctrl-C. Whether four updates are better is no matter here."""


def shortened(command):
    command = STAND_INS.get(command, command)
    for start, old, new in SHORTER:
        if command.startswith(start):
            command = re.sub(old, new, command, count=1)
    return command


def why_not(command):
    return next((why for pattern, why in NOT_RUN if re.match(pattern, command)), "")


def all_commands():
    """Return every command of every page, in the pages' order, once."""
    names = {page.relative_to(ROOT).as_posix(): page for page in PAGES}
    pages = [names.pop(name) for name in FIRST] + list(names.values())
    found = (cut_comment(c) for page in pages for c in commands_of(page.read_text("utf-8")))
    return list(dict.fromkeys(found))


RUN = list(dict.fromkeys(shortened(c) for c in all_commands() if c in STAND_INS or not why_not(shortened(c))))


class Shell:
    """A user's folder and the process that runs commands in it."""

    def __init__(self, folder):
        self.folder, self._log = folder, (folder.parent / "said.txt").open("w+")
        home = folder.parent / "home"
        home.mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE_", "XDG_", "SAC_"))}
        env |= {"HOME": str(home), "USERPROFILE": str(home), "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "command_runner.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=pipe, stdout=pipe, stderr=self._log, text=True
        )

    def run(self, command, **more):
        """Return the exit status of a command and what it said."""
        start = self._log.seek(0, os.SEEK_END)
        request = {"words": shlex.split(command)[1:], **more}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self._log.seek(start)
        return answer["status"], self._log.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self._log.close()


HOURS = make_bars(6400)
"""What `eurusd_m5.csv` holds is 6,300 hours: the default horizon of 3,000 bars fits into their train split."""
BARS = {
    "eurusd_m5.csv": HOURS[:6300],
    "folder/EURUSD.csv": HOURS[:6300],
    "bars/EURUSD.csv": HOURS[6200:],
    "several/EURUSD.csv": HOURS[:6300],
    "several/GBPUSD.csv": HOURS[:6300],
    "several/XAUUSD.csv": HOURS[:6300] * 1_500.0,
}


def write_csv(bars, path):
    path.parent.mkdir(exist_ok=True)
    bars.rename_axis("time").to_csv(path)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A clone; a year of hours, and some newer ones; the models of two earlier months."""
    folder = tmp_path_factory.mktemp("user") / "clone"
    for name in ("sac_kernel", "notebooks", "benchmarks", "tests"):
        # With numba's cache, less what another process is just writing.
        ignored = shutil.ignore_patterns("*.tmp.*", "*.pyc.*")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("build_kernel.py", "kernel-metadata.json", "dataset-metadata.json"):
        shutil.copy(ROOT / name, folder)
    for name, part in BARS.items():
        write_csv(part, folder / name)
    page = (ROOT / "docs" / "own-features.md").read_text(encoding="utf-8")
    for name, start in (("my_features.py", "# my_features"), ("my_cot.py", "# my_cot")):
        (code,) = (block.split("```")[0] for block in page.split("```python\n") if block.startswith(start))
        (folder / name).write_text(code, encoding="utf-8")
    published = pd.date_range(HOURS.index[0] - pd.Timedelta("60D"), HOURS.index[-1], freq="7D")
    for name in ("cot", "vix"):
        values = {"net": np.arange(len(published)) % 7, "open_interest": 100 + np.arange(len(published))}
        pd.DataFrame({"known_at": published.astype(str), **values}).to_csv(
            folder / f"{name}.csv", index=False
        )
    page = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
    (folder / "my_policy.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    header = page.split("```text\n")[1].splitlines()[0]
    times = HOURS.index[100:6000:100]  # the page's own fills are of other bars
    rows = [
        f"{t.isoformat()},{('buy', 'sell')[i % 2]},50000,{HOURS.open[t]},1.6" for i, t in enumerate(times)
    ]
    (folder / "my_fills.csv").write_text("\n".join((header, *rows, "")), encoding="utf-8")
    store = ModelStore(folder / "models")
    for month in (1, 2):
        path = folder / f"month_{month}.pt"
        lively_agent(path, make_data(900 + month), 1, TradingEnvConfig())
        store.promote(path, HOURS.index[5000 + month].isoformat(), {"why": "planted"})
    shell = Shell(folder)
    yield shell
    shell.close()


def test_every_row_of_the_tables_is_of_some_command():
    commands = all_commands()
    assert len(RUN) + len([c for c in commands if why_not(c)]) > 100
    assert [row for row in NOT_RUN if not any(re.match(row[0], c) for c in commands)] == []
    assert [c for c in STAND_INS if c not in commands] == []
    whole = list(commands)
    for start, old, new in SHORTER:
        changed = [re.sub(old, new, c, count=1) if c.startswith(start) else c for c in whole]
        assert changed != whole, (start, old)
        whole = changed
    named = re.findall(r"[\w/]*test_\w+\.py", " ".join(why for _, why in NOT_RUN))
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_run_is_the_command_that_the_page_gives_for_it():
    recipe = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True).stdout
    recipe = " ".join(recipe.replace("\\\n", " ").split())
    (command,) = [c for c in all_commands() if "num_episodes=8" in c]
    assert command.removeprefix("python ") in recipe


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_the_command_runs(command, shell):
    more = {}
    if "--bars EURUSD_M5.csv" in command:  # not before: to some systems it is eurusd_m5.csv
        write_csv(HOURS[6250:6350], shell.folder / "EURUSD_M5.csv")
        if " paper " in command and "--speed" not in command:  # it watches the file until it is told to stop
            line = HOURS[6350:6351].to_csv(header=False)
            # A journal of its own: one that has the line already would be interrupted before it listens.
            shutil.rmtree(shell.folder / "paper", ignore_errors=True)
            more = {"grow": ["EURUSD_M5.csv", line, "paper/journal.jsonl"]}
    status, said = shell.run(command, **more)
    expected = next((s for start, s in STATUS.items() if command.startswith(start)), (0,))
    assert status in expected, said[-3000:]
