"""Bars from Dukascopy or HistData.com through the optional package tradedesk-marketdata.

That package fetches and decodes ticks and keeps one-minute bars of each day in a cache, so an interrupted run
can be continued. This module reads the days, makes larger bars and returns one instrument at a time.
"""

from __future__ import annotations

import datetime as dt
import importlib
import socket
import threading
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.prices import bars as bar_table
from sac_kernel.prices.ingest import text
from sac_kernel.prices.ingest.binary import MAX_BYTES
from sac_kernel.prices.ingest.instrument_names import DUKASCOPY_NAMES, point_digits
from sac_kernel.prices.ingest.tables import BarTable, aggregate, join
from sac_kernel.prices.instruments import INSTRUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROVIDERS = ("dukascopy", "histdata")
EXTRA = "tradedesk-marketdata==2.0.0"

_FIRST_MONTHS = {"USDCAD": "2000-06", "EURGBP": "2002-03", "EURJPY": "2002-03", "USDSEK": "2008-08",
                 "XAUUSD": "2009-03", "SPXUSD": "2010-11"}  # fmt: skip
_EARLIEST_MONTH = "2000-05"
_DAY = dt.timedelta(days=1)
_CONNECT_S = 6.0


@dataclass(frozen=True)
class Download:
    """What to fetch.

    Attributes
    ----------
    provider : 'dukascopy' (one request for each hour of ticks: 8,760 a year and instrument) or 'histdata'
        (one file a month); both are free for your own research
    first_day, last_day : inclusive, UTC
    cache : folder of downloaded files; a second run fetches only what is missing
    price_side : 'bid' or 'ask'
    bar_seconds : length of the bars made from the minutes
    retries, timeout_s : attempts for one file, and seconds to wait for each
    """

    provider: str
    first_day: dt.date
    last_day: dt.date
    cache: Path
    price_side: str
    bar_seconds: int
    retries: int = 3
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        require(
            self.provider in PROVIDERS,
            "Download",
            f"provider must be one of {', '.join(PROVIDERS)}",
            self.provider,
        )
        require(
            self.first_day <= self.last_day,
            "Download",
            "first_day must not be after last_day",
            self.first_day,
        )
        require(
            self.price_side in ("bid", "ask"), "Download", "price_side must be bid or ask", self.price_side
        )


def fetch(download: Download, instrument: str) -> BarTable | None:
    """Fetch the missing days of one instrument and return its bars; None if the provider has none.

    Progress goes to the terminal's error stream.

    Raises
    ------
    InputNotFoundError
        If tradedesk-marketdata is not installed, or the provider did not answer for some days. The days
        received are kept: run again to continue.
    """
    try:
        import tradedesk_marketdata.export as exporter
        from rich.console import Console
        from rich.progress import Progress
    except ImportError as err:
        msg = (
            f"Downloads need the package tradedesk-marketdata ({err}). Run `pip install {EXTRA}`, or pass your "
            "own bars with --data."
        )
        raise InputNotFoundError(msg) from err
    cache = download.cache / download.provider
    cache.mkdir(parents=True, exist_ok=True)
    source = _source(download, instrument, cache)
    symbol = _symbol(download, instrument)
    if any(not day_file(download, cache, symbol, day).is_file() for day in _days(download)):
        check_reachable(download.provider)
    missed: set[dt.date] = set()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        spans = list(_spans(download))
        overall = progress.add_task(f"{instrument} from {download.provider}", total=len(spans))
        for first, last in spans:
            before = {*progress.task_ids}
            exporter.export_range(
                source=source,
                symbol=symbol,
                start_utc=_midnight(first),
                end_utc_inclusive=_midnight(last),
                out=cache,
                resample_rule=None,
                cache_dir=cache,
                progress=progress,
                timeout=(download.timeout_s, download.timeout_s),
                retries=download.retries,
            )
            for task in {*progress.task_ids} - before:
                progress.remove_task(task)
            progress.advance(overall)
            now_missed = source.missed_days()
            missed |= now_missed
            if now_missed and last == download.first_day:
                break  # the provider cannot be reached
    if missed:
        msg = (
            f"{download.provider} did not answer for {len(missed)} days of {instrument}, first {min(missed)}. "
            f"The days received are kept in {cache}. Run again to continue."
        )
        raise InputNotFoundError(msg)
    return read_cache(cache, symbol, instrument, download)


def read_cache(cache: Path, symbol: str, instrument: str, download: Download) -> BarTable | None:
    """Return the bars of the cached days, None if no day has any."""
    tables, empty_weekdays = [], 0
    for day in _days(download):
        path = day_file(download, cache, symbol, day)
        if path.is_file():
            bars = _read_day(path)
            if bars is not None:
                bars = bar_table.Bars(bars, side=download.price_side, seconds=60, instrument=instrument)
                table = BarTable(bars, f"{download.provider} {instrument}", "UTC")
                tables.append(aggregate(table, min(download.bar_seconds, 3600)))
        elif day.weekday() < 5:
            empty_weekdays += 1
    if not tables:
        return None
    table = join(tables, instrument)
    table = aggregate(table, download.bar_seconds)
    notes = []
    if empty_weekdays:
        notes.append(f"{instrument}: {download.provider} has no data for {empty_weekdays} weekdays")
    notes.append(
        f"{instrument}: {len(tables):,} days of {download.provider} ticks, {download.price_side}, UTC"
    )
    return BarTable(table.bars, f"{download.provider} {instrument}", "UTC", tuple(notes))


def day_file(download: Download, cache: Path, symbol: str, day: dt.date) -> Path:
    """Return where the cache keeps the minutes of a day; months count from 00."""
    folder = cache / symbol / f"{day.year}" / f"{day.month - 1:02d}"
    return folder / f"{day.day:02d}_{download.price_side}.csv.zst"


def check_reachable(provider: str) -> None:
    """Raise InputNotFoundError within ten seconds if no connection to the provider can be opened.

    Where the environment names a proxy, the connection to the proxy is tried.
    """
    module = importlib.import_module(f"tradedesk_marketdata.sources.{provider}")
    url = urllib.parse.urlsplit(str(getattr(module, "PAGE_URL", module.BASE_URL)))
    proxy = urllib.request.getproxies().get(url.scheme, "")
    if proxy and not urllib.request.proxy_bypass(url.hostname or ""):
        url = urllib.parse.urlsplit(proxy)
    address = (url.hostname or "", url.port or {"http": 80}.get(url.scheme, 443))
    faults: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_CONNECT_S).close()
        except OSError as err:
            faults.append(str(err))
        else:
            faults.append("")

    # looking a name up has no time limit of its own
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_S + 1.0)
    if not faults or faults[0]:
        why = faults[0] if faults else "no answer"
        msg = f"{provider} cannot be reached at {address[0]} ({why}). Check the network, then run again."
        raise InputNotFoundError(msg)


def _days(download: Download) -> Iterator[dt.date]:
    for k in range((download.last_day - download.first_day).days + 1):
        yield download.first_day + k * _DAY


def _read_day(path: Path) -> Any:  # noqa: ANN401  # bars or None
    """Return the one-minute bars of a day, None if the market was closed."""
    import zstandard

    try:
        with path.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
            content = reader.read(MAX_BYTES // 16)
    except (zstandard.ZstdError, OSError) as err:
        msg = f"{path} is damaged: {err}. Delete the file and run again."
        raise DataError(msg) from err
    if content.count(b"\n") < 2:
        return None
    raw = text.read_text(content, path.name, str(path))
    return bar_table.make_bars(raw.times, raw.sides[""], str(path))


def _source(download: Download, instrument: str, cache: Path) -> Any:  # noqa: ANN401  # a class of the extra
    """Return the provider's source, with a method that gives the days it could not fetch."""
    from tradedesk_marketdata.sources import dukascopy, histdata

    if download.provider == "dukascopy":
        base: Any = dukascopy.DukascopySource
        options: dict[str, Any] = {"price_divisor": 10.0 ** point_digits(instrument)}
    else:
        base, options = histdata.HistDataSource, {"symbol_map": _symbol_map(instrument, cache)}

    class Watched(base):  # type: ignore[misc]  # its base is chosen at run time
        """Remembers its run."""

        def open(self, ctx: Any) -> Any:  # noqa: ANN401  # classes of the extra
            self.run = super().open(ctx)
            return self.run

        def missed_days(self) -> set[dt.date]:
            months = {*getattr(self.run, "failed_months", ())}
            days = {dt.date(year, month, 1) for year, month in months}
            return days | {*getattr(self.run, "day_unavailable", ())}

    return Watched(options)


def _symbol_map(instrument: str, cache: Path) -> Path:
    """Write HistData's entry of one instrument, in the prices it quotes."""
    path = cache / f"{instrument}.toml"
    first = _FIRST_MONTHS.get(instrument, _EARLIEST_MONTH)
    path.write_text(
        f'[symbols.{instrument}]\nname = "{instrument}"\nscale = 1\nfirst_month = "{first}"\n'
        'scale_verified = true\nscale_evidence = "prices are kept as HistData quotes them"\n',
        encoding="utf-8",
    )
    return path


def _symbol(download: Download, instrument: str) -> str:
    return DUKASCOPY_NAMES.get(instrument, instrument) if download.provider == "dukascopy" else instrument


def _spans(download: Download) -> Iterator[tuple[dt.date, dt.date]]:
    """Yield the first day, then months: ticks stay in memory until their span is done."""
    first, last = download.first_day, download.last_day
    if download.provider == "histdata":
        yield first, last
        return
    yield first, first
    first += _DAY
    while first <= last:
        end = min(last, (first.replace(day=1) + 32 * _DAY).replace(day=1) - _DAY)
        yield first, end
        first = end + _DAY


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


__all__ = ["EXTRA", "INSTRUMENTS", "PROVIDERS", "Download", "fetch", "read_cache"]
