"""Somebody's policy: a function `target(observations)` in one Python file, proven causal before it is judged.

The function sees a whole table at once, so it could read later rows. It is refused if it does: targets are
recomputed without their future and with a changed one (`features.causality`), at random rows and where they change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core import home_strings
from sac_kernel.core.errors import DataError
from sac_kernel.experiment.judged import Judged
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.own import load_function, said
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.bars import PRICE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.prices.bars import Bars
    from sac_kernel.prices.ingest.whole import WholeBars

    FloatArray = NDArray[np.float64]

SIGNATURE = "target(observations)"
TARGET = "target"
_CHANGES = 16  # rows around a change of the target that are recomputed without their future


def observations(whole: WholeBars) -> pd.DataFrame:
    """Return what a policy sees at each close: the bar, and the features as they are, not scaled; no NaN.

    A scaler needs train rows; one fitted on all rows would look ahead. In the first two days the averages of the
    features are still filling.
    """
    pipeline = FeaturePipeline(whole.traded)
    pipeline.bar_seconds = whole.own.seconds
    features = pipeline.compute(whole.bars)
    return pd.concat([pd.DataFrame(whole.own)[list(PRICE_COLUMNS)], features], axis=1)


@dataclass(frozen=True)
class PolicyFile:
    """A user's function and where it comes from.

    Attributes
    ----------
    name, sha256 : of the file; the hash is that of its text with LF line ends
    function : observations -> targets in [-1, 1], one per row; row t may use rows up to t alone
    """

    name: str
    sha256: str
    function: Callable[[pd.DataFrame], Any]

    @classmethod
    def load(cls, path: Path) -> PolicyFile:
        """Run the file and return its function.

        Raises
        ------
        InputNotFoundError
            If there is no such file.
        DataError
            If it does not run or defines no function `target`.
        """
        return cls(path.name, *load_function(path, SIGNATURE))

    def targets(self, seen: pd.DataFrame) -> FloatArray:
        """Return the targets of observations, shape (n_rows,), after a strict check.

        Raises
        ------
        DataError
            If the function raises, or what it returns is no target for every row; the message names the row.
        """
        try:
            given = self.function(seen.copy())
        except Exception as err:
            raise DataError(said(self.name, f"fails in {SIGNATURE} on {len(seen)} rows", err)) from err
        if isinstance(given, pd.Series) and len(given) == len(seen) and not given.index.equals(seen.index):
            msg = f"{self.name}: {SIGNATURE} returned a Series on another index. Return it in the order of the rows."
            raise DataError(msg)
        try:
            values = np.array(given, np.float64)
        except (TypeError, ValueError) as err:
            msg = f"{self.name}: {SIGNATURE} must return numbers: {err}"
            raise DataError(msg) from err
        if values.shape != (len(seen),):
            msg = f"{self.name}: {SIGNATURE} must return {len(seen)} targets, one per row, got shape {values.shape}."
            raise DataError(msg)
        wrong = ~(np.abs(values) <= 1.0)
        if wrong.any():
            row = int(np.argmax(wrong))
            msg = (
                f"{self.name}: the target of row {row} ({seen.index[row]}) is {values[row]:g}; {int(wrong.sum())} of "
                f"{len(seen)} are not in [-1, 1]. Return 0 where there is no position."
            )
            raise DataError(msg)
        return values

    def compute(self, seen: pd.DataFrame) -> pd.DataFrame:
        """Return the targets as the table that `assert_causal` asks for."""
        return pd.DataFrame({TARGET: self.targets(seen)}, index=seen.index)


def assert_policy_causal(policy: PolicyFile, seen: pd.DataFrame) -> dict[str, int]:
    """Check that targets of row t are a function of rows up to t, bit for bit; return how many rows were checked.

    `assert_causal` takes random rows of the first 20,000, and a policy that seldom trades is flat in most. So rows
    around changes of the target, over all of the table, are recomputed without their future too, with every row
    before them.

    Raises
    ------
    DataError
        If a row depends on later ones, or two calls differ; the message names the first row that proves it.
    """
    targets = policy.targets(seen)
    again = policy.targets(seen)
    if not np.array_equal(targets, again):
        row = int(np.argmax(targets != again))
        msg = (
            f"{policy.name}: two calls gave {targets[row]:g} and {again[row]:g} in row {row} ({seen.index[row]}). "
            "Fix the seed of its random numbers."
        )
        raise DataError(msg)
    changes = _around_changes(targets)
    for t in changes:
        cut = policy.targets(seen.iloc[: t + 1])
        differs = cut != targets[: t + 1]
        if differs.any():
            row = int(np.argmax(differs))
            msg = (
                f"{policy.name} looks ahead: the target of row {row} ({seen.index[row]}) is {targets[row]:g}, but "
                f"{cut[row]:g} without the rows after {seen.index[t]}."
            )
            raise DataError(msg)
    try:
        report = assert_causal(policy, seen)
    except DataError as err:
        msg = f"{policy.name}: {err}"
        raise DataError(msg) from err
    return {"rows": report.rows, "changes": len(changes)}


def _around_changes(targets: FloatArray) -> list[int]:
    """Return rows at which the target changes and those before them, at most `_CHANGES` of either, in order."""
    changes = np.flatnonzero(np.diff(targets)) + 1
    picked = changes[np.unique(np.linspace(0, changes.size - 1, min(_CHANGES, changes.size)).astype(int))]
    return sorted({int(row) for row in (*picked, *(picked - 1)) if row >= 1})


def judged_policy(path: Path, whole: WholeBars, bars: Bars) -> Judged:
    """Return a policy as targets for the decisions on some of the bars, after the proof that it does not look ahead.

    Parameters
    ----------
    whole : up to the last bar judged; earlier rows than those judged are its past
    bars : of the traded instrument, those judged
    """
    policy = PolicyFile.load(path)
    seen = observations(whole)
    checked = assert_policy_causal(policy, seen)
    targets = policy.compute(seen)[TARGET].reindex(bars.index).to_numpy()[:-1]
    how = home_strings.JUDGED_POLICY.format(name=policy.name, **checked)
    facts = {"observations": list(seen.columns)}
    return Judged(policy.name, policy.sha256, "policy", targets, TradingEnvConfig(), how, facts)
