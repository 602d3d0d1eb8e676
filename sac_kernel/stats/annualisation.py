"""Annualise a Sharpe ratio of returns with serial correlation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def lo_factor(autocorrelation: ArrayLike, periods: int) -> float:
    """Return the factor from a one-period Sharpe ratio to one of `periods` with serial correlation.

    Lo 2002, eq. 20: q / sqrt(q + 2 sum (q - k) rho_k); sqrt(q) for independent returns.

    Parameters
    ----------
    autocorrelation : rho_1, rho_2, ...; later ones count as 0
    """
    rho = np.asarray(autocorrelation, np.float64)[: periods - 1]
    spread = periods + 2.0 * float(np.sum((periods - 1.0 - np.arange(rho.size)) * rho))
    if spread <= 0.0:
        msg = f"lo_factor: autocorrelation {rho[:3].tolist()} cannot be that of a real series"
        raise DataError(msg)
    return periods / math.sqrt(spread)
