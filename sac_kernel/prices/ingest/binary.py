"""Readers of binary files of bars and ticks: MetaTrader 4 .hst, Dukascopy .bi5, Parquet, and of archives.

Nothing is extracted to disk. The size that a file states is checked before memory is allocated.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import MAX_ROWS, utc_index
from sac_kernel.prices.ingest.instrument_names import guess_instrument, point_digits
from sac_kernel.prices.ingest.text import Raw, from_table

MAX_BYTES = 1 << 30
"""Largest file and largest content of an archive: a year of HistData minutes has 20 MB, of ticks 1 GB."""

MAX_RATIO = 250
"""Largest growth by unpacking: HistData's text grows 10-fold, a zip bomb 1000-fold."""

_MAX_MEMBERS = _MAX_COLUMNS = 64
_LZMA_MEMORY = 1 << 28
_SMALL = 1 << 20  # small contents may grow by any ratio

_HST_HEADER = struct.Struct("<i64s12siiii")
_HST_HEADER_BYTES = 148
_HST_RECORDS = {
    400: np.dtype({"names": ["t", "o", "l", "h", "c"], "formats": ["<i4", *["<f8"] * 4],
                   "offsets": [0, 4, 12, 20, 28], "itemsize": 44}),
    401: np.dtype({"names": ["t", "o", "h", "l", "c"], "formats": ["<i8", *["<f8"] * 4],
                   "offsets": [0, 8, 16, 24, 32], "itemsize": 60}),
}  # fmt: skip
_TICK = np.dtype(
    [("ms", ">u4"), ("ask", ">u4"), ("bid", ">u4"), ("ask_volume", ">f4"), ("bid_volume", ">f4")]
)
_CANDLE = np.dtype([("s", ">u4"), *[(k, ">u4") for k in ("open", "close", "low", "high")], ("volume", ">f4")])
_CANDLE_NAME = re.compile(r"(BID|ASK)_candles_(min|hour|day)_1\.bi5")
_TICK_NAME = re.compile(r"([01]\d|2[0-3])h_ticks\.bi5")
_CANDLE_SECONDS = {"min": 60, "hour": 3600, "day": 86_400}
_FOLDERS = {"min": 3, "hour": 2, "day": 1}  # year, month, day above a candle file
_FLOAT_BITS = 0x3A000000  # a float32 price above 0.0005 read as an integer lies above


def read_hst(content: bytes, where: str) -> Raw:
    """Return the bars of a MetaTrader 4 history file, version 400 or 401: bid, on the server's clock."""
    if len(content) < _HST_HEADER_BYTES:
        msg = f"{where}: an .hst header has {_HST_HEADER_BYTES} bytes, but the file has {len(content)} bytes"
        raise DataError(msg)
    version, _, symbol, period_min, *_ = _HST_HEADER.unpack_from(content)
    body = memoryview(content)[_HST_HEADER_BYTES:]
    record = _HST_RECORDS.get(version)
    if record is None or period_min <= 0 or period_min > 43_200 or len(body) % record.itemsize:
        msg = (
            f"{where} must be an .hst file of version 400 or 401 with complete records, got version {version}, "
            f"period {period_min} min and {len(body)} bytes of records"
        )
        raise DataError(msg)
    rows = np.frombuffer(body, record)
    prices = np.stack([rows[k] for k in "ohlc"], axis=1).astype(np.float64)
    times = pd.DatetimeIndex(rows["t"].astype(np.int64).clip(0, 1 << 33).astype("datetime64[s]")).as_unit(
        "ns"
    )
    name = symbol.split(b"\0")[0].decode("ascii", "replace")
    layout = f"MetaTrader 4 .hst version {version}"
    return Raw(times, {"bid": prices}, layout, "", guess_instrument(name), period_min * 60)


def read_bi5(content: bytes, path: Path, where: str) -> Raw:
    """Return the ticks or candles of a Dukascopy file; its path gives instrument, date, side and bar length.

    Notes
    -----
    SYMBOL/YYYY/MM/DD/HHh_ticks.bi5, SYMBOL/YYYY/MM/DD/BID_candles_min_1.bi5, .../MM/..._hour_1.bi5 and
    .../YYYY/..._day_1.bi5, months counted from 00. Candles of volume 0 repeat the last price while the
    market is closed: they are left out and counted in a note.
    """
    ticks, candles = _TICK_NAME.fullmatch(path.name), _CANDLE_NAME.fullmatch(path.name)
    kind = candles.group(2) if candles else ""
    depth = _FOLDERS.get(kind, 3)
    folders = path.parts[-1 - depth : -1]
    symbol = path.parts[-2 - depth] if len(path.parts) > depth + 1 else ""
    instrument = guess_instrument(symbol)
    start = _bi5_start(folders, int(ticks.group(1)) if ticks else 0)
    if not (ticks or candles) or start is None or not instrument:
        msg = (
            f"{where}: date and scale of a .bi5 file come from its path, which must be Dukascopy's, such as "
            "EURUSD/2019/01/04/08h_ticks.bi5 or EURUSD/2019/01/04/BID_candles_min_1.bi5 (months from 00)"
        )
        raise DataError(msg)
    record = _TICK if ticks else _CANDLE
    rows = (
        np.frombuffer(unpack_lzma(content, where), record)
        if _has_records(content, record, where)
        else np.empty(0, record)
    )
    columns = ("ask", "bid") if ticks else ("open", "high", "low", "close")
    points = np.stack([rows[k] for k in columns], axis=1).astype(np.int64)
    if points.size and points.max() >= _FLOAT_BITS:
        msg = f"{where}: prices must be whole points, got {points.max()}: the file has another encoding"
        raise DataError(msg)
    prices = points / 10.0 ** point_digits(instrument)
    if ticks:
        times = start + pd.to_timedelta(rows["ms"].astype(np.int64), unit="ms")
        sides = {"bid": prices[:, 1], "ask": prices[:, 0]}
        return Raw(pd.DatetimeIndex(times), sides, "Dukascopy ticks", "UTC", instrument, ticks=True)
    assert candles is not None
    traded = rows["volume"] > 0
    times = utc_index(int(start.timestamp()) + rows["s"].astype(np.int64))[traded]
    closed = int((~traded).sum())
    notes = (
        (f"{where}: {closed} candles of volume 0 (the market was closed) were left out",) if closed else ()
    )
    sides = {candles.group(1).lower(): prices[traded]}
    return Raw(times, sides, "Dukascopy candles", "UTC", instrument, _CANDLE_SECONDS[kind], notes=notes)


def read_parquet(content: bytes, where: str) -> Raw:
    """Return the rows of a Parquet table, its columns found by name as those of a CSV."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as err:
        msg = f"{where}: Parquet files need the package pyarrow ({err}). Run `pip install pyarrow`, or pass a CSV."
        raise DataError(msg) from err
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        rows, size = (
            file.metadata.num_rows,
            sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)),
        )
        if not 0 < rows <= MAX_ROWS or size > 4 * MAX_BYTES or len(file.schema_arrow.names) > _MAX_COLUMNS:
            limits = f"1 to {MAX_ROWS:,} rows and at most {_MAX_COLUMNS} columns"
            msg = f"{where} must have {limits}, got {rows:,} rows ({size:,} bytes)"
            raise DataError(msg)
        table = file.read().to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, LookupError) as err:
        if isinstance(err, DataError):
            raise
        msg = f"{where} is not a readable Parquet file: {str(err)[:200]}"
        raise DataError(msg) from err
    return from_table(_with_index(table), where)


def read_feather(content: bytes, where: str) -> Raw:
    """Return the rows of a Feather (Arrow IPC) file, its columns found by name as those of a CSV."""
    try:
        import pyarrow as pa
    except ImportError as err:
        msg = f"{where}: Feather files need the package pyarrow ({err}). Run `pip install pyarrow`, or pass a CSV."
        raise DataError(msg) from err
    try:
        file = pa.ipc.open_file(pa.BufferReader(content))
        if len(file.schema.names) > _MAX_COLUMNS:
            msg = f"{where} must have at most {_MAX_COLUMNS} columns, got {len(file.schema.names)}"
            raise DataError(msg)
        batches, size, rows = [], 0, 0
        for i in range(file.num_record_batches):
            batches.append(file.get_batch(i))
            size, rows = size + batches[-1].nbytes, rows + batches[-1].num_rows
            if size > MAX_BYTES or rows > MAX_ROWS:
                msg = f"{where} must have 1 to {MAX_ROWS:,} rows, got {rows:,} rows ({size:,} bytes)"
                raise DataError(msg)
        if not rows:
            msg = f"{where} must have 1 to {MAX_ROWS:,} rows, got none"
            raise DataError(msg)
        whole = pa.Table.from_batches(batches)
        whole.validate(full=True)  # offsets of a damaged file lead outside its buffers
        table = whole.to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, LookupError) as err:
        if isinstance(err, DataError):
            raise
        msg = f"{where} is not a readable Feather file: {str(err)[:200]}"
        raise DataError(msg) from err
    return from_table(_with_index(table), where)


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose index of times, if it has one, is a column."""
    if not isinstance(table.index, pd.DatetimeIndex):
        return table
    return table.rename_axis(str(table.index.name or "")).reset_index()


def unzip(content: bytes, where: str) -> tuple[str, bytes]:
    """Return name and bytes of the one table in a zip; HistData's .txt gap report is ignored.

    Raises
    ------
    DataError
        If it is damaged or encrypted, holds unsafe names or several tables, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members, len(content), where)
            tables = [
                m
                for m in members
                if m.filename.lower().endswith((".csv", ".json", ".hst", ".parquet", ".feather"))
            ]
            if len(tables) != 1:
                names = ", ".join(m.filename for m in tables[:3]) or "none"
                msg = f"{where}: the archive must hold one table, got {len(tables)} ({names})"
                raise DataError(msg)
            with archive.open(tables[0]) as stream:
                inner = stream.read(tables[0].file_size + 1)
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError,
        ValueError, struct.error, LookupError, OverflowError,
    ) as err:  # fmt: skip
        if isinstance(err, DataError):
            raise
        msg = f"{where} is not a complete zip archive: {str(err)[:150] or type(err).__name__}"
        raise DataError(msg) from err
    return PurePosixPath(tables[0].filename).name, inner


def unpack_lzma(content: bytes, where: str) -> bytes:
    """Return the unpacked bytes of an LZMA stream of bounded size and memory."""
    limit = max(_SMALL, min(MAX_BYTES, MAX_RATIO * len(content)))
    unpacker = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    try:
        unpacked = unpacker.decompress(content, max_length=limit + 1)
    except (lzma.LZMAError, EOFError, ValueError) as err:
        msg = f"{where} is not an LZMA stream: {err}. Fetch the file again."
        raise DataError(msg) from err
    if len(unpacked) > limit or not unpacker.eof or unpacker.unused_data:
        fault = (
            f"unpacks to more than {limit:,} bytes"
            if len(unpacked) > limit
            else "is cut or has data after its end"
        )
        msg = f"{where}: the LZMA stream {fault}. Fetch the file again."
        raise DataError(msg)
    return unpacked


def _check_members(members: list[zipfile.ZipInfo], packed: int, where: str) -> None:
    if len(members) > _MAX_MEMBERS:
        msg = f"{where}: the archive may hold at most {_MAX_MEMBERS} files, got {len(members)}"
        raise DataError(msg)
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or member.filename.startswith(("/", "\\")) or ":" in member.filename:
            msg = f"{where}: the archive may hold plain file names only, got {member.filename[:80]!r}"
            raise DataError(msg)
        if member.file_size > min(MAX_BYTES, max(_SMALL, MAX_RATIO * packed)):
            msg = f"{where}: a file may unpack to at most {MAX_RATIO} times the archive, got {member.file_size:,} bytes"
            raise DataError(msg)


def _has_records(content: bytes, record: np.dtype[np.void], where: str) -> bool:
    """Return whether there are any records; raise DataError for an incomplete one."""
    if not content:  # an hour without ticks is an empty file
        return False
    size = len(unpack_lzma(content, where))
    if size % record.itemsize:
        msg = f"{where}: the content must be records of {record.itemsize} bytes, got {size} bytes"
        raise DataError(msg)
    return True


def _bi5_start(folders: tuple[str, ...], hour: int) -> pd.Timestamp | None:
    """Return the UTC time that a file's offsets count from, None if its folders are not a date."""
    try:
        year, month, day = (*(int(f) for f in folders), *(0, 1)[len(folders) - 1 :])
        return pd.Timestamp(datetime(year, month + 1, day, hour, tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
