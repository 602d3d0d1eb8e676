"""Instruments as files have them: their names, and the size of their points."""

from __future__ import annotations

import re

from sac_kernel.prices.instruments import INSTRUMENTS, canonical, known

DUKASCOPY_NAMES = {"SPXUSD": "USA500IDXUSD"}
"""Dukascopy's names of instruments where they differ."""
_CODES = (
    "EUR USD JPY GBP CHF CAD AUD NZD SEK NOK DKK SGD HKD ZAR MXN TRY PLN CZK HUF CNH XAU XAG SPX NSX BTC ETH"
)
_ALIASES = {"USA500IDXUSD": "SPXUSD", "SPX500USD": "SPXUSD", "SPX500": "SPXUSD", "US500": "SPXUSD"}
_PAIR = re.compile(rf"(?=((?:{_CODES.replace(' ', '|')})[_/-]?(?:{_CODES.replace(' ', '|')})))")
_COIN_PAIR = re.compile(r"(?<![A-Z0-9])[A-Z0-9]{2,10}?[_/-]?(?:USDT|USDC|BUSD|FDUSD)(?![A-Z0-9])")
_WORDS = frozenset(
    re.findall(
        r"\w+",
        "ALL ASCII ASK BAR BARS BID BY CANDLE CANDLES CLEAN CLOSE CONVERTED COPY CRYPTO CSV DAILY DAT DATA DAY EET EST "
        "ETF EXPORT FINAL FOREX FULL FX GMT HISTORY HOUR HOURLY HST INDEX INTRADAY KLINE KLINES LAST LIVE LOCAL MAX "
        "MERGED MID MIN MINUTE MT MT4 MT5 NEW NEWS NY OHLC OHLCV OLD OPEN ORIGINAL PRICE PRICES QUOTE QUOTES RAW REAL "
        "README SAMPLE SERVER SPOT STOCK STOCKS TEST TICK TICKS TIME TRAIN UTC VAL VOLUME YEAR",
    )
)
"""Words of file names that are no tickers."""
_PERIOD = re.compile(r"[MHDWSPTU]\d{0,4}|MN\d?|\d+[A-Z]*")
_TICKER = re.compile(r"[A-Z]{2,6}\d{0,4}|[A-Z]{1,5}\.[A-Z]{1,3}")
_PLAUSIBLE = {"JPY": (20.0, 500.0), "XAU": (100.0, 20_000.0), "SPX": (200.0, 50_000.0), "SEK": (3.0, 30.0)}
_FX_RANGE = (0.2, 5.0)
_METATRADER_DIGITS = {"JPY": 3, "XAU": 2, "SPX": 1}


def guess_instrument(text: str) -> str:
    """Return the one currency pair, metal, coin or known index that a text names, '' if it names none or several.

    >>> guess_instrument("DAT_ASCII_EURUSD_M1_202211.zip"), guess_instrument("oanda-EUR_USD-2019.csv")
    ('EURUSD', 'EURUSD')
    >>> guess_instrument("Exchange_BTCUSDT_1h.csv"), guess_instrument("AAPL_1h.csv")
    ('BTCUSDT', '')
    """
    upper = text.upper()
    names = {name for alias, name in _ALIASES.items() if alias in upper}
    if not names:
        names = {plain_symbol(coin) for coin in _COIN_PAIR.findall(re.sub("_", " ", upper))}
    if not names:
        names = {re.sub(r"[_/-]", "", pair) for pair in _PAIR.findall(upper)}
        names = {pair for pair in names if pair[:3] != pair[3:]}
    return names.pop() if len(names) == 1 else ""


def instrument_of_file(name: str) -> str:
    """Return the instrument that a file's name tells, '' if none or several: a known one, or a word like a ticker.

    A ticker is a word of two to six capitals, with digits after them, that is no period and no usual word.

    >>> instrument_of_file("US30_M60.csv"), instrument_of_file("XYZ_yfinance_1h.csv"), instrument_of_file("BRK.B.csv")
    ('US30', 'XYZ', 'BRKB')
    >>> instrument_of_file("Index_Historical_Data.csv"), instrument_of_file("OHLC_M5.csv")
    ('', '')
    """
    if pair := guess_instrument(name):
        return pair
    stem = re.sub(r"\.(csv|txt|json|zip|parquet|feather|hst|bi5|arrow)$", "", name, flags=re.IGNORECASE)
    words = [word for word in re.split(r"[^A-Za-z0-9.]+", stem) if not _PERIOD.fullmatch(word)]
    tickers = {word.upper() for word in words if len(word) > 2 and known(word)}
    if not tickers:
        tickers = {word for word in words if _TICKER.fullmatch(word) and word not in _WORDS}
    return plain_symbol(tickers.pop()) if len(tickers) == 1 else ""


def plain_symbol(symbol: str) -> str:
    """Return a symbol as letters and digits in capitals: 'BTC/USDT' is BTCUSDT, '^GSPC' GSPC."""
    return re.sub(r"[^A-Z0-9]", "", symbol.upper())[:20]


def kind_of_symbol(symbol: str) -> str:
    """Return 'crypto' for a symbol quoted in a stable coin, else ''.

    >>> kind_of_symbol("NEARUSDT"), kind_of_symbol("AAPL")
    ('crypto', '')
    """
    return "crypto" if re.fullmatch(r"[A-Z0-9]{2,}(USDT|USDC|BUSD|FDUSD)", symbol) else ""


def same_instrument(one: str, other: str) -> bool:
    """Return whether two names mean one instrument: an exchange's BTCUSDT is BTCUSD.

    >>> same_instrument("BTCUSDT", "BTCUSD"), same_instrument("EURUSD", "GBPUSD")
    (True, False)
    """
    return canonical(one) == canonical(other)


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
