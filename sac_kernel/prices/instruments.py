"""Instruments: what is known of each, how files spell their names, which one is traded, the digits of their points."""

from __future__ import annotations

import re
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
"""The ten instruments that the thirty features are made of."""

DEFAULT = "EURUSD"
"""What is traded where several instruments are there and none was named; the one that the costs were measured on."""

DUKASCOPY_NAMES = {"SPXUSD": "USA500IDXUSD"}
"""What Dukascopy calls an instrument where it differs."""

_CODES = (
    "EUR USD JPY GBP CHF CAD AUD NZD SEK NOK DKK SGD HKD ZAR MXN TRY PLN CZK HUF CNH XAU XAG SPX NSX BTC ETH"
)
_ALIASES = {"USA500IDXUSD": "SPXUSD", "SPX500USD": "SPXUSD", "SPX500": "SPXUSD", "US500": "SPXUSD"}
_PAIR = re.compile(rf"(?=((?:{_CODES.replace(' ', '|')})[_/-]?(?:{_CODES.replace(' ', '|')})))")
_PLAUSIBLE = {"JPY": (20.0, 500.0), "XAU": (100.0, 20_000.0), "SPX": (200.0, 50_000.0), "SEK": (3.0, 30.0)}
_FX_RANGE = (0.2, 5.0)
_METATRADER_DIGITS = {"JPY": 3, "XAU": 2, "SPX": 1}


@dataclass(frozen=True)
class InstrumentSpec:
    """What is known of an instrument; a row of the table in `processed_data.h5`.

    Attributes
    ----------
    symbol : its name, such as EURUSD
    costs : whose costs an account pays for it; `prices.costs` knows those of EURUSD alone
    """

    symbol: str
    costs: str = DEFAULT


def choose_traded(names: Iterable[str], wanted: str, where: str) -> str:
    """Return the instrument to trade among `names`: the wanted one, or EURUSD if none was wanted.

    Raises
    ------
    DataError
        If it is not there; the names that are there are listed.
    """
    found = sorted(names)
    if (wanted or DEFAULT) in found:
        return wanted or DEFAULT
    what = (
        f"bars of {wanted}" if wanted else f"bars of {DEFAULT}, or the name of another instrument to trade,"
    )
    msg = f"{where}: {what} are required, found {', '.join(found)}; pass --instrument NAME with one of these"
    raise DataError(msg)


def guess_instrument(text: str) -> str:
    """Return the one instrument that a file's name or path speaks of, '' if there is none or several.

    >>> guess_instrument("DAT_ASCII_EURUSD_M1_202211.zip"), guess_instrument("oanda-EUR_USD-2019.csv")
    ('EURUSD', 'EURUSD')
    """
    upper = text.upper()
    found = {name for alias, name in _ALIASES.items() if alias in upper}
    if not found:
        found = {re.sub(r"[_/-]", "", pair) for pair in _PAIR.findall(upper)}
        found = {pair for pair in found if pair[:3] != pair[3:]}
    return found.pop() if len(found) == 1 else ""


def point_digits(instrument: str) -> int:
    """Return the decimals of a point: 3 for yen, metals and indices, 5 for other pairs (Dukascopy's rule)."""
    base, quote = instrument[:3], instrument[3:]
    return 3 if quote == "JPY" or base in ("XAU", "XAG", "SPX", "NSX") else 5


def points_scale(instrument: str, typical: float) -> float:
    """Return what a price in whole MetaTrader points must be divided by; 1 where it needs no division.

    Parameters
    ----------
    instrument : one of `INSTRUMENTS`; for any other the answer is 1
    typical : a median price of the file

    Notes
    -----
    127,801 points of EURUSD are 1.27801, 154,759 of gold 1547.59. The price itself must prove it: it is
    implausible as it stands and plausible after the division.
    """
    if instrument not in INSTRUMENTS:
        return 1.0
    key = next((k for k in _PLAUSIBLE if k in instrument), "")
    low, high = _PLAUSIBLE.get(key, _FX_RANGE)
    scale = 10.0 ** _METATRADER_DIGITS.get(key, 5)
    return scale if not low <= typical <= high and low <= typical / scale <= high else 1.0
