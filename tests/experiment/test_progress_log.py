"""logs/progress.csv and TensorBoard events: one entry an episode, the same after a resume."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from sac_kernel.core.errors import StorageError
from sac_kernel.experiment.progress_log import COLUMNS, CSV_FILE, EVENTS_FILE, ProgressLog
from sac_kernel.experiment.trainer import STATS_KEYS

if TYPE_CHECKING:
    from pathlib import Path

STATS: dict[str, list[Any]] = {
    **{key: [None, None, None] for key in STATS_KEYS},
    "episode_rewards": [0.125, -0.5, 0.25],
    "eval_sharpes": [None, 1.5, math.nan],
    "updates": [0, 750, 750],
}


def written(folder: Path, done: int = 0) -> ProgressLog:
    log = ProgressLog(folder, {key: values[:done] for key, values in STATS.items()})
    for episode in range(done + 1, 4):
        log.write(episode, {key: values[episode - 1] for key, values in STATS.items()})
    return log


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_key_of_the_training_has_a_column() -> None:
    assert set(COLUMNS) == set(STATS_KEYS)
    assert len({column for column, _ in COLUMNS.values()}) == len({tag for _, tag in COLUMNS.values()}) == 12


def test_csv_has_one_row_an_episode_and_empty_cells_where_there_is_no_value(tmp_path: Path) -> None:
    written(tmp_path)
    table = pd.read_csv(tmp_path / CSV_FILE)
    assert table["episode"].tolist() == [1, 2, 3]
    assert table["reward_log_return"].tolist() == [0.125, -0.5, 0.25]
    assert table["updates"].tolist() == [0, 750, 750]
    assert table["validation_sharpe_ann"].dropna().to_dict() == {1: 1.5}
    assert table["critic_loss"].isna().all()


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_continued_run_leaves_the_files_of_an_uncut_one(tmp_path: Path, done: int) -> None:
    written(tmp_path / "uncut")
    written(tmp_path / "cut")  # the killed session had gone beyond its last state
    with (tmp_path / "cut" / CSV_FILE).open("ab") as torn:
        torn.write(b"4,0.")
    written(tmp_path / "cut", done)
    written(tmp_path / "elsewhere", done)  # from a mounted state: no file of the first session
    assert contents(tmp_path / "cut") == contents(tmp_path / "elsewhere") == contents(tmp_path / "uncut")


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    written(tmp_path)
    events = accumulator.EventAccumulator(str((tmp_path / EVENTS_FILE).parent))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/reward_log_return")] == [
        (1, 0.125),
        (2, -0.5),
        (3, 0.25),
    ]
    assert [(e.step, e.value) for e in events.Scalars("validation/sharpe_ann")] == [(2, 1.5)]
    assert "losses/critic" not in events.Tags()["scalars"]


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path)
    (tmp_path / CSV_FILE).unlink()
    (tmp_path / CSV_FILE).mkdir()
    with pytest.raises(StorageError, match=r"progress\.csv"):
        log.write(1, {})
