"""Back home: the evaluation notebook gives the figures of the run that trained the agent, to the last digit."""

import copy
import shutil
from pathlib import Path

import nbformat
import papermill
import pytest

from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.report.tables import results_table
from tests.conftest import make_data

ROOT = Path(__file__).resolve().parents[2]
SHOW_ALL_DIGITS = "for row in judgement.rows:\n    print(sorted(row.items()))"


@pytest.mark.notebook
@pytest.mark.slow
def test_evaluation_notebook_gives_the_training_run_s_figures(tmp_path, blank_figures):
    """For both agents of a run, one after the other in one fresh process."""
    h5 = tmp_path / "processed_data.h5"
    write_processed(make_data(1600), h5)
    config = RunConfig.from_flat(
        {
            "h5_path": str(h5),
            "output_dir": str(tmp_path / "outputs"),
            "num_episodes": 4,
            "eval_frequency": 1,
            "sac_hidden_dims": (16, 16),
            "sac_batch_size": 32,
            "env_episode_length": 240,
            "env_horizon": 200,
        }
    )
    run = run_jobs(config)
    kinds = ("best", "final")
    models = {kind: str(config.top_folder / f"agent_1_{kind}.pt") for kind in kinds}

    # The notebook stands in a checkout; one line more prints every digit.
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "sac_kernel", checkout / "sac_kernel", ignore=shutil.ignore_patterns("*.tmp*"))
    notebook = papermill.iorw.load_notebook_node(str(ROOT / "notebooks" / "evaluate.ipynb"))
    notebook.cells[-1].source = SHOW_ALL_DIGITS
    once_more = [cell for cell in copy.deepcopy(notebook.cells) if cell.cell_type == "code"]
    notebook.cells += [nbformat.v4.new_code_cell(f"model_path = {models['final']!r}"), *once_more[1:]]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    papermill.iorw.write_ipynb(notebook, str(checkout / "evaluate.ipynb"))
    done = papermill.execute_notebook(
        str(checkout / "evaluate.ipynb"),
        str(checkout / "done.ipynb"),
        parameters={"model_path": models["best"], "h5_path": str(h5)},
        cwd=str(checkout),
        kernel_name="python3",
        progress_bar=False,
    )
    shown = [cell for cell in done.cells if cell.source == SHOW_ALL_DIGITS]
    for kind, cell in zip(kinds, shown, strict=True):
        rows = [row for row in run.judgements[0].rows if row["policy"] == f"agent 1 ({kind})"]
        assert len(rows) == 3
        printed = "".join(out.get("text", "") for out in cell.outputs)
        assert [row for row in rows if str(sorted(row.items())) not in printed] == []
    assert results_table(run.judgements[0].rows).shape[0] == len(run.judgements[0].rows)
