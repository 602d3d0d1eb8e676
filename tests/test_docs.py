"""The pages say what the code does: feature lists, README snippets, links."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel.data_pipeline import write_processed
from sac_kernel.feature_engineering import compute_features
from tests.conftest import make_bars, make_data

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("label", "bar_seconds", "count"), [("M5", 300, 17), ("M15", 900, 16), ("H1", 3600, 16)]
)
def test_feature_page_lists_the_features_that_exist(label, bar_seconds, count):
    page = (ROOT / "docs/features.md").read_text(encoding="utf-8")
    listed = page.split(f"## {label}\n")[1].split("```text\n")[1].split("\n```")[0].split("\n")
    names = list(compute_features(make_bars(600, bar_seconds=bar_seconds), bar_seconds, "EURUSD").columns)
    assert listed == names
    assert len(names) == count


def test_readme_snippets_run_as_they_stand(tmp_path):
    """All of them in order, in one folder; only the number of episodes is lowered, to one."""
    data = make_data(n=6300)
    write_processed(data, tmp_path / "data/processed/processed_data.h5")
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 5
    program = "\n".join(snippets).replace("num_episodes=100", "num_episodes=1")
    assert "num_episodes=1," in program
    (tmp_path / "snippets.py").write_text(program, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "snippets.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Test Reward: " in done.stdout
    assert "Total Return: " in done.stdout
    total_return = float(re.search(r"Total Return: (-?[\d.]+)%", done.stdout)[1])
    # The step-by-step loop and the table row of the same agent must be one number.
    row = re.search(r"agent 1 \(best\) +(-?[\d.]+)", done.stdout.split("base costs")[1])
    assert abs(float(row[1]) - total_return) < 0.006
    assert (tmp_path / "outputs/curves.png").stat().st_size > 1000


def test_relative_links_of_the_pages_exist():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_test_command_is_the_one_that_ci_runs():
    assert "make test" in README
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_makefile_has_the_promised_targets():
    for target in ("run", "test", "lint", "type", "bench", "build", "clean"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
