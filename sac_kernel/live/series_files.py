"""The extra series of an agent in use: read again when their files grow, refused when they end too early."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.features.series import Series

if TYPE_CHECKING:
    from sac_kernel.features.own import OwnFeatures

USUAL, PATIENCE = 0.995, 1.5
"""The last value of a file may stand 1.5 times as long as all but the longest .5 % of the values before it."""


class SeriesFiles:
    """The files behind an agent's series.

    Parameters
    ----------
    own : the agent's own features, with the series as they were read
    """

    def __init__(self, own: OwnFeatures) -> None:
        self._own = own
        self._seen = {one.name: _mark(one) for one in own.series}

    def newest(self) -> OwnFeatures:
        """Return the features with the series as their files are at present.

        Raises
        ------
        CheckpointError
            If a row that was there before has changed.
        """
        several = []
        for one in self._own.series:
            if (mark := _mark(one)) != self._seen[one.name]:
                before, self._seen[one.name] = one.state(), mark
                one = Series.load(one.path)  # noqa: PLW2901
                one.check_continues(before)
            several.append(one)
        self._own = dataclasses.replace(self._own, series=tuple(several))
        return self._own

    def check(self, close_s: int) -> None:
        """Raise DataError if the last value of a file is too old for a decision at a close [Unix s]."""
        for one in self._own.series:
            usual_s = float(np.quantile(np.diff(one.known), USUAL, method="lower"))
            if (age_s := close_s - int(one.known[-1])) > PATIENCE * usual_s:
                msg = (
                    f"{one.path.name}: the last value became known at {pd.Timestamp(one.known[-1], unit='s', tz='UTC')}"
                    f", {age_s / 86_400:.1f} days before the close of the newest bar. Usually a value stands at most "
                    f"{usual_s / 86_400:.1f} days. Add the newer rows to the file and run again."
                )
                raise DataError(msg)


def _mark(one: Series) -> tuple[int, int]:
    facts = one.path.stat()
    return facts.st_size, facts.st_mtime_ns
