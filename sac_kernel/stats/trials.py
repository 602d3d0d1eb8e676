"""The ledger of trials: every configuration ever scored, so that the verdict can account for luck.

`trials.csv` is append-only, written atomically and merged by trial id. It travels with the code and state datasets;
at home `stats.ledgers` keeps those of each data set together. A trial is one configuration at one checkpoint scored on
one split; scoring it again gives the same id and adds nothing. Other cost tiers are not trials.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core import files
from sac_kernel.core.errors import DataError
from sac_kernel.stats import significance
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE
from sac_kernel.stats.verdict import TrialCount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

NAME = "trials.csv"
_COLUMNS = (
    "trial_id",
    "agent_id",
    "seed",
    "split",
    "checkpoint",
    "config_hash",
    "data_hash",
    "days",
    "daily_bps",
)
_SHARED_DAYS = 20  # fewer shared days are too few for a correlation


@dataclass(frozen=True)
class Trial:
    """One configuration at one checkpoint, scored on one split at base cost.

    Attributes
    ----------
    checkpoint : updates or episode at which it was scored
    config_hash, data_hash : of the configuration and the data
    day : trading-day numbers, shape (n_days,)
    daily : simple net returns of those days, shape (n_days,)
    """

    agent_id: int
    seed: int
    split: str
    checkpoint: int
    config_hash: str
    data_hash: str
    day: IntArray
    daily: FloatArray

    @property
    def trial_id(self) -> str:
        """Return a hash that identifies the trial; it does not depend on results."""
        key = [self.agent_id, self.seed, self.split, self.checkpoint, self.config_hash, self.data_hash]
        return files.content_hash(key)[:16]

    def row(self) -> dict[str, str]:
        """Return the trial as a line of the ledger: days as first + steps, returns in bps."""
        steps = np.diff(self.day, prepend=self.day[:1] * 0)
        return {
            "trial_id": self.trial_id,
            "agent_id": str(self.agent_id),
            "seed": str(self.seed),
            "split": self.split,
            "checkpoint": str(self.checkpoint),
            "config_hash": self.config_hash,
            "data_hash": self.data_hash,
            "days": " ".join(map(str, steps.tolist())),
            "daily_bps": " ".join(f"{1e4 * value:.3f}" for value in self.daily),
        }


def read(path: Path, data_hash: str = "") -> list[Trial] | None:
    """Return the trials of a ledger in its order, or those on one data set; None if there is no file.

    Raises
    ------
    DataError
        If the file is not a ledger, or a line is damaged; the message gives the line.
    """
    if not path.is_file():
        return None
    # An invalid byte becomes a character that no ledger has, so its line counts as damaged.
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = csv.DictReader(io.StringIO(text))
    try:
        if tuple(lines.fieldnames or ()) != _COLUMNS:
            msg = (
                f"{path} must have the columns {', '.join(_COLUMNS)}, got {lines.fieldnames}. "
                "Restore the file from an earlier run, or move it away to start a new one."
            )
            raise DataError(msg)
        listed = [_trial(row, f"{path}, line {i}") for i, row in enumerate(lines, 2)]
        return [trial for trial in listed if data_hash in ("", trial.data_hash)]
    except csv.Error as err:
        msg = f"{path} is not a CSV file: {err}. Restore it from an earlier run."
        raise DataError(msg) from err


def append(path: Path, trials: Iterable[Trial]) -> int:
    """Add trials that the ledger does not list yet; return their number. The file is created if missing."""
    known = {trial.trial_id: trial for trial in read(path) or ()}
    before = len(known)
    for trial in trials:
        known.setdefault(trial.trial_id, trial)
    if len(known) > before or not path.is_file():
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(trial.row() for trial in known.values())
        files.write_text(path, text.getvalue())
    return len(known) - before


def merge(into: Path, others: Iterable[Path]) -> int:
    """Add the trials of other ledgers, ignoring missing files; return the number of new ones."""
    return append(into, [trial for path in others for trial in read(path) or ()])


def count(
    trials: Iterable[Trial] | None, at_least: int = 1, own: Collection[str] | None = None
) -> TrialCount:
    """Return the number of trials and their effective number.

    Parameters
    ----------
    trials : of one question, one split of one data set; None if the ledger is missing
    at_least : trials known from elsewhere, for a missing ledger
    own : configuration hashes of the run itself: trials of others are its `elsewhere`; None leaves it 0

    Notes
    -----
    effective: the effective rank of the correlation matrix of all rows (configuration x checkpoint), each
    pair over its shared days; pairs with fewer than 20 shared days count as independent. spread: the variance
    of Sharpe ratios times days, 1 by luck alone; never below 1.
    """
    if trials is None:
        return TrialCount(listed=at_least, effective=float(at_least), known=False)
    scored = [trial for trial in trials if trial.daily.size >= MIN_DAYS_FOR_SHARPE]
    if not scored:
        return TrialCount()
    scored.sort(key=lambda trial: trial.trial_id)  # the sums below must not depend on the rows' order
    sharpes = np.nan_to_num(
        [significance.moments(trial.daily).sharpe for trial in scored]
    )  # 0 if it held still
    scaled = sharpes * np.sqrt([trial.daily.size for trial in scored])
    spread = float(np.var(scaled, ddof=1)) if len(scored) > 1 else 1.0
    effective = significance.rank_of_correlation(_correlation(scored))
    others = 0 if own is None else sum(trial.config_hash not in own for trial in scored)
    bounded = min(max(effective, 1.0), float(len(scored)))
    return TrialCount(len(scored), bounded, max(spread, 1.0), elsewhere=others)


def matrix(trials: Iterable[Trial]) -> tuple[IntArray, FloatArray]:
    """Return all days and the returns, shape (n_days, n_trials), NaN on days that a trial lacks."""
    listed = list(trials)
    days = np.unique(np.concatenate([trial.day for trial in listed])) if listed else np.zeros(0, np.int64)
    values = np.full((days.size, len(listed)), np.nan)
    for i, trial in enumerate(listed):
        values[np.searchsorted(days, trial.day), i] = trial.daily
    return days, values


def _correlation(trials: list[Trial]) -> FloatArray:
    values = matrix(trials)[1]
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    has = known.astype(np.float64)
    shared = has.T @ has
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_i = filled.T @ has / shared  # of i over the days it shares with j
        covariance = filled.T @ filled / shared - mean_i * mean_i.T
        variance = (filled**2).T @ has / shared - mean_i**2
        r = covariance / np.sqrt(variance * variance.T)
    r = np.where((shared >= _SHARED_DAYS) & np.isfinite(r), np.clip(r, -1.0, 1.0), 0.0)
    np.fill_diagonal(r, 1.0)
    return r


def _trial(row: dict[str, Any], where: str) -> Trial:
    try:
        trial = Trial(
            agent_id=int(row["agent_id"]),
            seed=int(row["seed"]),
            split=row["split"],
            checkpoint=int(row["checkpoint"]),
            config_hash=row["config_hash"],
            data_hash=row["data_hash"],
            day=np.cumsum([int(x) for x in row["days"].split()], dtype=np.int64),
            daily=np.array([float(x) for x in row["daily_bps"].split()]) * 1e-4,
        )
        whole = trial.day.size == trial.daily.size and bool(np.isfinite(trial.daily).all())
        whole = whole and trial.trial_id == row["trial_id"]
    except (TypeError, ValueError, AttributeError, OverflowError):
        whole = False
    if not whole:
        msg = f"{where} is damaged. Restore the file from an earlier run."
        raise DataError(msg)
    return trial
