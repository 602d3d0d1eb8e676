"""Instruments as files have them: their names, and the size of their points."""

from __future__ import annotations

import re

from sac_kernel.prices.instruments import INSTRUMENTS

DUKASCOPY_NAMES = {"SPXUSD": "USA500IDXUSD"}
"""Dukascopy's names of instruments where they differ."""
_CODES = (
    "EUR USD JPY GBP CHF CAD AUD NZD SEK NOK DKK SGD HKD ZAR MXN TRY PLN CZK HUF CNH XAU XAG SPX NSX BTC ETH"
)
_ALIASES = {"USA500IDXUSD": "SPXUSD", "SPX500USD": "SPXUSD", "SPX500": "SPXUSD", "US500": "SPXUSD"}
_PAIR = re.compile(rf"(?=((?:{_CODES.replace(' ', '|')})[_/-]?(?:{_CODES.replace(' ', '|')})))")
_PLAUSIBLE = {"JPY": (20.0, 500.0), "XAU": (100.0, 20_000.0), "SPX": (200.0, 50_000.0), "SEK": (3.0, 30.0)}
_FX_RANGE = (0.2, 5.0)
_METATRADER_DIGITS = {"JPY": 3, "XAU": 2, "SPX": 1}


def guess_instrument(text: str) -> str:
    """Return the one instrument that a file's name or path names, '' if it names none or several.

    >>> guess_instrument("DAT_ASCII_EURUSD_M1_202211.zip"), guess_instrument("oanda-EUR_USD-2019.csv")
    ('EURUSD', 'EURUSD')
    """
    upper = text.upper()
    names = {name for alias, name in _ALIASES.items() if alias in upper}
    if not names:
        names = {re.sub(r"[_/-]", "", pair) for pair in _PAIR.findall(upper)}
        names = {pair for pair in names if pair[:3] != pair[3:]}
    return names.pop() if len(names) == 1 else ""


def point_digits(instrument: str) -> int:
    """Return the decimals of a point: 3 for yen, metals and indices, 5 for other pairs (Dukascopy's rule)."""
    base, quote = instrument[:3], instrument[3:]
    return 3 if quote == "JPY" or base in ("XAU", "XAG", "SPX", "NSX") else 5


def points_scale(instrument: str, typical: float) -> float:
    """Return the divisor of prices in whole MetaTrader points; 1 if the prices are not in points.

    Parameters
    ----------
    instrument : one of `INSTRUMENTS`; 1 is returned for any other
    typical : a median price of the file

    Notes
    -----
    127,801 points of EURUSD are 1.27801, 154,759 of gold 1547.59. Prices are taken as points only if they are
    implausible as they are and plausible after the division.
    """
    if instrument not in INSTRUMENTS:
        return 1.0
    key = next((k for k in _PLAUSIBLE if k in instrument), "")
    low, high = _PLAUSIBLE.get(key, _FX_RANGE)
    scale = 10.0 ** _METATRADER_DIGITS.get(key, 5)
    return scale if not low <= typical <= high and low <= typical / scale <= high else 1.0
