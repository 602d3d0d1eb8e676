"""Back home: the evaluation notebook gives the figures of the run that trained the agent, to the last digit."""

import shutil
from pathlib import Path

import papermill
import pytest

from sac_kernel import report
from sac_kernel.data_pipeline import write_processed
from sac_kernel.job_queue import run_jobs
from sac_kernel.run_config import RunConfig
from tests.conftest import make_data

ROOT = Path(__file__).resolve().parents[1]
SHOW_ALL_DIGITS = "for row in judgement.rows:\n    print(sorted(row.items()))"


@pytest.mark.notebook
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["best", "final"])
def test_evaluation_notebook_gives_the_training_run_s_figures(tmp_path, kind):
    h5 = tmp_path / "processed_data.h5"
    write_processed(make_data(1600), h5)
    config = RunConfig(
        h5_path=str(h5),
        output_dir=str(tmp_path / "outputs"),
        num_episodes=4,
        eval_frequency=1,
        num_envs=6,
        sac_hidden_dims=(16, 16),
        sac_batch_size=32,
        sac_warmup_steps=60,
        env_episode_length=240,
        env_horizon=200,
    )
    run = run_jobs(config)
    label = f"agent 1 ({kind})"
    wanted = [sorted(row.items()) for row in run.judgements[0].rows if row["policy"] == label]
    assert len(wanted) == 3

    # The notebook stands in a checkout; one line more prints every digit.
    checkout = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "sac_kernel", checkout / "sac_kernel", ignore=shutil.ignore_patterns("__pycache__")
    )
    notebook = papermill.iorw.load_notebook_node(str(ROOT / "notebooks" / "evaluate.ipynb"))
    notebook.cells[-1].source = SHOW_ALL_DIGITS
    papermill.iorw.write_ipynb(notebook, str(checkout / "evaluate.ipynb"))
    done = papermill.execute_notebook(
        str(checkout / "evaluate.ipynb"),
        str(checkout / "done.ipynb"),
        parameters={"model_path": str(config.top_folder / f"agent_1_{kind}.pt"), "h5_path": str(h5)},
        cwd=str(checkout),
        kernel_name="python3",
        progress_bar=False,
    )
    printed = "".join(out.get("text", "") for out in done.cells[-1].outputs)
    for row in wanted:
        assert str(row) in printed
    assert report.results_table(run.judgements[0].rows).shape[0] == len(run.judgements[0].rows)
