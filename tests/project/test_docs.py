"""The pages say what the code does: feature lists, README snippets, links."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_bars, make_data
from tests.support import compute_features

ROOT = Path(__file__).resolve().parents[2]
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
    row = re.search(r"agent 1 \(final\) +(-?[\d.]+)", done.stdout.split("base costs")[1])
    assert abs(float(row[1]) - total_return) < 0.006
    assert (tmp_path / "outputs/curves.png").stat().st_size > 1000


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FRENCH = sorted((ROOT / "docs/fr").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXTERNAL = {"pytorch.org", "pypi.org"}
"""Hosts that the pages link to; everything else is in the repository."""


def anchors_of(page):
    """The anchors that GitHub gives the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?:[^>]+)>", text):
        if target.startswith("http"):
            assert target.split("/")[2] in EXTERNAL, target
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_a_lost_anchor_is_seen():
    assert "in-python" in anchors_of(ROOT / "README.md")
    assert "nowhere" not in anchors_of(ROOT / "README.md")


def test_every_page_is_reached_from_the_readme():
    todo, seen = [ROOT / "README.md"], set()
    while todo:
        page = todo.pop().resolve()
        if page not in seen:
            seen.add(page)
            links = re.findall(r"\]\(([^)#:\s]+\.md)", page.read_text(encoding="utf-8"))
            todo += [page.parent / link for link in links if (page.parent / link).is_file()]
    assert [page.name for page in PAGES if page.resolve() not in seen] == []


def statements(text):
    """Top-level statements of the Python fences, comments and layout aside."""
    blocks = [block for kind, block in FENCE.findall(text) if kind == "python"]
    return {ast.dump(node) for block in blocks for node in ast.parse(block).body}


@pytest.mark.parametrize("page", [ROOT / "docs/tutorial.md", *FRENCH], ids=lambda page: page.name)
def test_snippets_of_the_guides_are_those_that_the_readme_test_runs(page):
    assert statements(page.read_text(encoding="utf-8")) <= statements(README)


def test_the_snippet_of_the_verdict_page_runs(capsys):
    page = (ROOT / "docs/verdict.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (.+)$", page, re.MULTILINE)
    exec("\n".join(line for line in lines if not line.startswith(("make", "python"))), {})
    assert capsys.readouterr().out == "4 15 (5, 6)\n"  # C(6, 2) = 15 splits, 15 x 2 / 6 = 5 paths


def commands(pages):
    """Shell lines of the pages, comments aside."""
    blocks = [
        block for page in pages for kind, block in FENCE.findall(page.read_text("utf-8")) if kind == "bash"
    ]
    return {re.split(r"\s+#", line)[0] for block in blocks for line in block.splitlines()}


def test_the_french_commands_are_english_ones():
    english = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page not in FRENCH)
    own = {line for line in commands(FRENCH) if line not in english}
    assert own == {
        # In the English page its parts stand in a sentence.
        'python build_kernel.py --set "agent_ids=[1, 2]" --set "seeds=[0, 1, 2]" --set checkpoint_frequency=10'
    }
    assert len(commands(FRENCH)) > 10


@pytest.mark.parametrize("name", ["parameters.md", "fr/parametres.md"])
def test_the_parameter_pages_give_the_names_and_defaults_that_are(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| (\S+|\[.*?\]) \|", page, re.MULTILINE))
    assert len(listed) == 33
    for parameter, default in listed.items():
        value = RunConfig().flat()[parameter]
        assert str(value) == default, parameter


def test_the_french_parameter_page_lists_what_the_english_one_does():
    pages = [(ROOT / "docs" / name).read_text("utf-8") for name in ("parameters.md", "fr/parametres.md")]
    first, second = (re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE) for page in pages)
    assert first == second


def test_readme_test_command_is_the_one_that_ci_runs():
    assert "make test" in README
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_makefile_has_the_promised_targets():
    for target in ("run", "test", "lint", "type", "bench", "build", "clean"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
