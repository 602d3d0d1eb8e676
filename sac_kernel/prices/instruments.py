"""Instruments: their facts and the choice of the traded one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

INSTRUMENTS = (
    "EURUSD",
    "USDJPY",
    "GBPUSD",
    "USDCAD",
    "USDSEK",
    "USDCHF",
    "EURGBP",
    "EURJPY",
    "XAUUSD",
    "SPXUSD",
)
"""The ten instruments that the thirty features are computed from."""

DEFAULT = "EURUSD"
"""Traded when there are several instruments and none is named; the costs were measured on it."""


@dataclass(frozen=True)
class InstrumentSpec:
    """Facts about an instrument; a row of the table in `processed_data.h5`.

    Attributes
    ----------
    symbol : its name, such as EURUSD
    costs : the instrument whose costs are charged; `prices.costs` knows those of EURUSD alone
    """

    symbol: str
    costs: str = DEFAULT


def choose_traded(names: Iterable[str], wanted: str, where: str) -> str:
    """Return the instrument to trade among `names`: `wanted`, or EURUSD if that is ''.

    Raises
    ------
    DataError
        If it is not among them; the message lists the names.
    """
    traded = wanted or DEFAULT
    available = sorted(names)
    if traded in available:
        return traded
    msg = f"{where} has no bars of {traded}, only of {', '.join(available)}. Pass --instrument NAME with one of these."
    raise DataError(msg)
