"""Mutated files of every format: each loads to valid bars or raises the package's own error.

python -m tests.fuzz_bars --count 20000        # the full count; the suite runs 300

Each case is made from its number alone, so a failure is repeated with --first N --count 1. Cases run in a
process of their own: a crash or a hang of a library is a failure like any other.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import lzma
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import psutil

from sac_kernel.core.errors import SacKernelError
from sac_kernel.prices.bars import PRICE_COLUMNS
from sac_kernel.prices.ingest.formats import peek, read_bars
from sac_kernel.prices.ingest.holes import find_holes
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.processed_file import read_processed

HANG_S = 30.0
ROOM_BYTES = 1 << 30
"""Most memory that a case may take beyond what the process has before it."""
CLOCKS = {"mt5.csv": "mt-eet", "tick_table.csv": "mt-eet"} | dict.fromkeys(
    ("day.csv", "epoch.csv", "banner.csv", "quoted.csv", "comma.csv", "headerless.csv"), "UTC"
)
USER_FILES = Path(__file__).parent / "prices" / "user_files"
USER_FACTS = {
    "ABC_daily_alphavantage.csv": (None, None), "ETHUSDT-1h-2024-01.csv": (None, None),
    "EURUSD_H1_filled_weekends.csv": ("bid", None), "EURUSD_Hourly_Bid_jforex.csv": (None, None),
    "EURUSD_ticks_mt5.csv": (None, "mt-eet"), "Exchange_BTCUSDT_1h_cdd.csv": (None, None),
    "Index_Historical_Data_investing.csv": ("bid", "America/New_York"), "US30_M60.csv": ("bid", None),
    "USDJPY_D1_mt5.csv": (None, "mt-eet"), "XYZ_yfinance_1h.csv": (None, None),
}  # fmt: skip
"""Files as users have them: price side and clock that the user gives."""
_ROWS = 40
_USER_BYTES = 10_000
_WORDS = (
    b"nan", b"inf", b"-inf", b"-1", b"0", b"", b"1e308", b"1e-320", b"9" * 400, b"\xff", b"\x00", b'"', b"1,5",
    b"NaT", b"2019-02-30", b"31.12.9999", b"0000-00-00", b"\xe2\x80\xae", b"+", b"0x10", b"1_0", b"\n", b"\r",
    b";", b"\t", b"99999999999999999999", b"2019-02-04T00:00:00+25:00",
)  # fmt: skip


def prices(n=_ROWS):
    """Valid bars of n minutes as times and an (n, 4) array."""
    rng = np.random.default_rng(7)
    close = 1.1 + np.cumsum(rng.integers(-9, 10, n)) * 1e-5
    open_ = np.concatenate(([1.1], close[:-1]))
    spread = rng.integers(0, 5, (2, n)) * 1e-5
    table = np.stack(
        [open_, np.maximum(open_, close) + spread[0], np.minimum(open_, close) - spread[1], close], axis=1
    )
    return pd.date_range("2019-02-04", periods=n, freq="min"), np.round(table, 5)


def text_of(time_form, separator=",", header="", tail=""):
    times, table = prices()
    rows = [
        separator.join([t.strftime(time_form), *(f"{v:.5f}" for v in row)]) + tail
        for t, row in zip(times, table, strict=True)
    ]
    return (header + "\n".join(rows) + "\n").encode()


def epochs(header):
    times, table = prices()
    rows = [",".join(map(str, [t, *row])) for t, row in zip(times.as_unit("s").asi8, table, strict=True)]
    return (header + "\n".join(rows)).encode()


def ticks_text():
    times, table = prices()
    rows = [
        f"{t:%Y%m%d %H%M%S}000,{row[0]:.5f},{row[0] + 1e-4:.5f},0"
        for t, row in zip(times, table, strict=True)
    ]
    return "\n".join(rows).encode()


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def lean():
    _, table = prices()
    return "\n".join(
        ",".join(map(str, [60_000 * i, *row, 0, *(row + 1e-4), 0])) for i, row in enumerate(table)
    ).encode()


def hst(version):
    times, table = prices()
    header = struct.pack("<i64s12siiii", version, b"", b"EURUSD", 1, 5, 0, 0).ljust(148, b"\0")
    seconds = times.as_unit("s").asi8
    if version == 400:
        rows = [
            struct.pack("<i5d", t, o, lo, h, c, 9.0) for t, (o, h, lo, c) in zip(seconds, table, strict=True)
        ]
    else:
        rows = [struct.pack("<q4dqiq", t, *row, 9, 0, 0) for t, row in zip(seconds, table, strict=True)]
    return header + b"".join(rows)


def bi5(kind):
    _, table = prices()
    points = np.round(table * 1e5).astype(int)
    if kind == "ticks":
        return b"".join(
            struct.pack(">IIIff", 60_000 * i, o + 10, o, 1, 1) for i, (o, *_) in enumerate(points)
        )
    return b"".join(struct.pack(">5If", 60 * i, o, c, lo, h, 1) for i, (o, h, lo, c) in enumerate(points))


def pack_lzma(content):
    return lzma.compress(content, format=lzma.FORMAT_ALONE, preset=0)


def oanda():
    times, table = prices()
    side = [dict(zip("ohlc", map(str, row), strict=True)) for row in table]
    candles = [{"complete": True, "volume": 1, "time": t.isoformat() + ".000000000Z", "bid": s, "ask": s}
               for t, s in zip(times, side, strict=True)]  # fmt: skip
    return json.dumps({"instrument": "EUR_USD", "granularity": "M1", "candles": candles}, indent=0).encode()


def h5(own):
    times, table = prices(3 * _ROWS)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for i, split in enumerate(("train", "val", "test")):
            part = slice(i * _ROWS, (i + 1) * _ROWS)
            group = file.create_group(f"{split}/EURUSD")
            packing = {"compression": "gzip", "chunks": (16,), "fletcher32": True} if own else {}
            group.create_dataset("timestamp", data=times.as_unit("s").asi8[part], **packing)
            for k, name in enumerate(PRICE_COLUMNS):
                group.create_dataset(name, data=table[part, k], **packing)
        attrs = file.create_group("metadata").attrs
        attrs["pairs"] = np.array(["EURUSD"], dtype=object)
        attrs["created_at"] = "2025-01-01"
        if own:
            attrs["price_side"], attrs["bar_seconds"] = "bid", 60
    return buffer.getvalue()


def parquet():
    times, table = prices()
    buffer = io.BytesIO()
    frame = pd.DataFrame(table, columns=list(PRICE_COLUMNS)).assign(timestamp=times.tz_localize("UTC"))
    try:
        frame.to_parquet(buffer)
    except ImportError:
        return b""
    return buffer.getvalue()


def feather():
    times, table = prices()
    buffer = io.BytesIO()
    frame = pd.DataFrame(table, columns=list(PRICE_COLUMNS)).assign(timestamp=times.tz_localize("UTC"))
    try:
        frame.to_feather(buffer)
    except ImportError:
        return b""
    return buffer.getvalue()


def klines():
    times, table = prices()
    rows = [
        ",".join([str(t), *(f"{v:.5f}" for v in row), "1.5", str(t + 59_999), "9.0", "7", "0.5", "3.0", "0"])
        for t, row in zip(times.as_unit("ms").asi8, table, strict=True)
    ]
    return "\n".join(rows + rows[-2:]).encode()


def newest_first(header, form, quote=""):
    """Dates newest first, prices quoted and above a thousand with a separator if `quote` is given."""
    times, table = prices()
    rows = [
        ",".join(
            [
                quote + (t + pd.Timedelta(days=i)).strftime(form) + quote,
                *(f"{quote}{1e4 * v:,.1f}{quote}" if quote else f"{v:.5f}" for v in row),
            ]
        )
        for i, (t, row) in enumerate(zip(times, table, strict=True))
    ]
    return (header + "\n".join(rows[::-1]) + "\n").encode()


def tick_table():
    times, table = prices()
    rows = [f"{t:%Y.%m.%d\t%H:%M:%S}.{7 * i % 1000:03d}\t{row[0]:.5f}\t{row[0] + 1e-4:.5f}\t\t\t6"
            for i, (t, row) in enumerate(zip(times, table, strict=True))]  # fmt: skip
    return ("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n" + "\n".join(rows) + "\n").encode()


def seeds():
    """File name -> content, and how the content is packed before it is written (None: as it is)."""
    header = "time,open,high,low,close\n"
    ascii_minutes = text_of("%Y%m%d %H%M%S", ";", tail=";0")
    day = "EURUSD/2019/01/04/"
    return {
        "iso.csv": (text_of("%Y-%m-%dT%H:%M:%SZ", header=header), None),
        "day.csv": (text_of("%d/%m/%Y %H:%M", header=header).replace(b"04/02", b"14/02"), None),
        "epoch.csv": (epochs(header), None),
        "DAT_ASCII_EURUSD_M1_2019.csv": (ascii_minutes, None),
        "DAT_MT_EURUSD_M1_2019.csv": (text_of("%Y.%m.%d,%H:%M", tail=",0"), None),
        "ticks.csv": (ticks_text(), None),
        "mt5.csv": (text_of("%Y.%m.%d\t%H:%M:%S", "\t", "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\n"), None),
        "20190204_eurusd_minute_quote.zip": (lean(), lambda c: zipped("20190204_eurusd_minute_quote.csv", c)),
        "DAT_ASCII_EURUSD_M1_201902.zip": (zipped("DAT_ASCII_EURUSD_M1_201902.csv", ascii_minutes), None),
        "EURUSD1.hst": (hst(401), None),
        "EURUSD1_400.hst": (hst(400), None),
        day + "08h_ticks.bi5": (bi5("ticks"), pack_lzma),
        day + "09h_ticks.bi5": (pack_lzma(bi5("ticks")), None),
        day + "BID_candles_min_1.bi5": (bi5("candles"), pack_lzma),
        "v20.json": (oanda(), None),
        "bars.parquet": (parquet(), None),
        "bars.feather": (feather(), None),
        "ETHUSDT-1m-2019-02.csv": (klines(), None),
        "banner.csv": (newest_first("https://example.com\nDate,Open,High,Low,Close\n", "%Y-%m-%d %H:%M:%S"), None),
        "quoted.csv": (
            b"\xef\xbb\xbf" + newest_first('"Date","Open","High","Low","Price"\n', "%m/%d/%Y", '"'), None),
        "offsets.csv": (text_of("%Y-%m-%d %H:%M:%S-05:00", header="Datetime,Open,High,Low,Close\n")
                        .replace(b"00:30:00-05:00", b"01:30:00-04:00"), None),
        "eet.csv": (text_of("%Y.%m.%d %H:%M:%S", header="Time (EET),Open,High,Low,Close,Volume \n", tail=",1.5"), None),
        "wide.csv": (text_of("%Y-%m-%dT%H:%M:%SZ", header=header).decode().encode("utf-16"), None),
        "comma.csv": (text_of("%Y-%m-%d %H:%M:%S", ";", "Date;Open;High;Low;Close\n").replace(b".", b","), None),
        "headerless.csv": (text_of("%Y-%m-%d %H:%M:%S", tail=",1"), None),
        "tick_table.csv": (tick_table(), None),
        "own.h5": (h5(own=True), None),
        "first.h5": (h5(own=False), None),
        **{name: (user_file(name), None) for name in USER_FACTS},
    }  # fmt: skip


def user_file(name):
    """The first lines of a file as users have it."""
    content = (USER_FILES / name).read_bytes()
    end = b"\n\0" if content.startswith(b"\xff\xfe") else b"\n"
    return content[: content.rindex(end, 0, _USER_BYTES) + len(end)]


def bit(data, i, j, rng):
    data[i] ^= 1 << int(rng.integers(8))


def byte(data, i, j, rng):
    data[i] = int(rng.integers(256))


def block(data, i, j, rng):
    data[i:j] = (b"", bytes(data[i:j]) * 2, rng.bytes(j - i))[rng.integers(3)]


def end(data, i, j, rng):
    del data[i:]


def word(data, i, j, rng):
    data[i : i + int(rng.integers(0, 9))] = _WORDS[rng.integers(len(_WORDS))]


def digit(data, i, j, rng):
    i = next((k for k in range(i, len(data)) if 48 <= data[k] <= 57), i)
    data[i] = 48 + int(rng.integers(10))


def line(data, i, j, rng):
    lines = bytes(data).split(b"\n")
    a, b = rng.integers(len(lines), size=2)
    lines[a], lines[b] = lines[b], lines[a]
    data[:] = b"\n".join(lines)


MUTATIONS = (bit, byte, block, block, end, word, digit, digit, digit, line)


def mutated(content, rng):
    """Return content after one to four changes: bits, bytes, digits, words, lines, blocks, the end."""
    data = bytearray(content)
    for _ in range(min(4, int(rng.geometric(0.6)))):
        if data:
            i = int(rng.integers(len(data)))
            MUTATIONS[rng.integers(len(MUTATIONS))](
                data, i, min(len(data), i + int(rng.integers(1, 40))), rng
            )
    return bytes(data)


def mutate_h5(path, rng):
    """Change the file through HDF5 itself: values, types, shapes, links, attributes."""
    split, column = ("train", "val", "test")[rng.integers(3)], ("timestamp", *PRICE_COLUMNS)[rng.integers(5)]
    name = f"{split}/EURUSD/{column}"
    value = (0, -1, 2**40, 5, "many", np.arange(3), 1e300, np.nan)[rng.integers(8)]
    replacements = (
        lambda file: h5py.ExternalLink("elsewhere.h5", "/x"),
        lambda file: h5py.SoftLink("/train/EURUSD/open"),
        lambda file: file.create_dataset(None, (10**12,), "f8", chunks=(1024,), compression="gzip"),
        lambda file: np.array([b"x"] * _ROWS),
        lambda file: np.full((_ROWS, 2), 1.1),
    )
    with h5py.File(path, "r+") as file:
        if (kind := rng.integers(4)) == 0:
            file["metadata"].attrs[
                ("price_side", "bar_seconds", "schema_version", "notes")[rng.integers(4)]
            ] = value
        elif kind == 1:
            replacement = replacements[rng.integers(len(replacements))](file)
            del file[name]
            file[name] = replacement
        elif kind == 2:
            file.move(split, "/deep/within")
        else:
            file[name][int(rng.integers(_ROWS))] = value if isinstance(value, int) else 7


def make_case(number, folder, files):
    """Write the file of a case and return its path."""
    rng = np.random.default_rng([20261122, number])
    name = list(files)[number % len(files)]
    content, pack = files[name]
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".h5" and rng.random() < 0.4:
        path.write_bytes(content)
        mutate_h5(path, rng)
    else:
        changed = mutated(content, rng)
        path.write_bytes(pack(changed) if pack else changed)
    return path


def judge(path):
    """Return 'loaded' or 'refused'; anything else is an exception."""
    try:
        if path.suffix == ".h5":
            data = read_processed(path, "bid")
            tables = [bars for split in data.splits.values() for bars in split.values()]
        else:
            plain = "bid" if path.suffix in (".csv", ".parquet", ".feather") else None
            side, clock = USER_FACTS.get(path.name, (plain, CLOCKS.get(path.name)))
            peek(path)
            bars = read_bars(
                path, side, "mt-eet" if path.suffix == ".hst" else clock, repair_rounding="z" in path.stem
            ).bars
            suspects(bars)
            find_holes(bars, bars.seconds)
            tables = [bars]
    except SacKernelError as err:
        return "refused" if path.name in str(err) else f"FAILED a message that does not name the file: {err}"
    for bars in tables:
        o, h, lo, c = (bars[k].to_numpy() for k in PRICE_COLUMNS)
        assert len(bars) > 0
        assert str(bars.index.tz) == "UTC"
        assert (np.diff(bars.index.asi8) > 0).all(), "open times must increase"
        assert np.isfinite(np.stack([o, h, lo, c])).all(), "prices must be finite"
        assert (lo > 0).all()
        assert ((h >= o) & (h >= c) & (lo <= o) & (lo <= c)).all(), "high and low must enclose"
    return "loaded"


def work(connection):
    """Judge case after case until told to stop."""
    warnings.simplefilter("error")
    files = {name: seed for name, seed in seeds().items() if seed[0]}
    with tempfile.TemporaryDirectory() as folder:
        while (number := connection.recv()) is not None:
            path = make_case(number, folder, files)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                outcome = judge(path)
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
                if grown > ROOM_BYTES:
                    outcome = f"FAILED took {grown:,} bytes"
                connection.send((path.suffix, outcome))
            except Exception as err:  # noqa: BLE001  # this is what the fuzzing looks for
                connection.send((path.suffix, f"FAILED {type(err).__name__}: {str(err)[:200]}"))


def answers(here, process, patience_s):
    """Tell whether a case ends: within so much processor time, or twenty times as much on a busy machine's clock."""
    clock, end = psutil.Process(process.pid), time.monotonic() + 20 * patience_s
    before_s = sum(clock.cpu_times()[:2])
    while not here.poll(1.0):
        if sum(clock.cpu_times()[:2]) - before_s > patience_s or time.monotonic() > end:
            return False
    return True


def fuzz(first, count, work=work):
    """Run cases in a process `work`; return (kind -> outcome -> count, failures as (case, outcome))."""
    context = multiprocessing.get_context("spawn")
    outcomes, failures = collections.defaultdict(collections.Counter), []
    process = None
    for number in range(first, first + count):
        if process is None:
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there,), daemon=True)
            process.start()
            there.close()
            patience = 5 * HANG_S  # imports and the first compiled calls
        here.send(number)
        try:
            suffix, outcome = here.recv() if answers(here, process, patience) else ("?", "FAILED hang")
        except EOFError:
            suffix, outcome = "?", "FAILED crash"
        patience = HANG_S
        if suffix == "?":
            process.kill()
            process.join()
            process = None
        outcomes[suffix][outcome.split(" ")[0]] += 1
        if outcome.startswith("FAILED"):
            failures.append((number, outcome))
            sys.stdout.write(f"case {number}: {outcome}\n")
            sys.stdout.flush()
        if (number + 1) % 1000 == 0:
            sys.stdout.write(f"{number + 1:,} cases, {len(failures)} failed\n")
            sys.stdout.flush()
    if process is not None:
        here.send(None)
        process.join()
    return {suffix: dict(found) for suffix, found in sorted(outcomes.items())}, failures


def main(work=work, description=__doc__):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    outcomes, failures = fuzz(args.first, args.count, work)
    for suffix, found in outcomes.items():
        sys.stdout.write(f"{suffix:12} " + ", ".join(f"{k} {v:,}" for k, v in sorted(found.items())) + "\n")
    sys.stdout.write(
        f"{args.count:,} cases in {time.perf_counter() - began:.0f} s, {len(failures)} failed" + "\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
