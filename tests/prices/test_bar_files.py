"""Text, binary and packed files made here: what a layout proves, and what no file may do to the reader."""

import io
import lzma
import struct
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.prices.ingest import binary
from sac_kernel.prices.ingest.formats import find_files, read_bars, read_instrument
from tests import fuzz_bars
from tests.support import says, told

HEADER = "time,open,high,low,close\n"
BAR = ",1.10,1.12,1.09,1.11\n"


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def opens(path, *given):
    return read_bars(path, *given).bars.index.strftime("%Y-%m-%d %H:%M:%S").tolist()


# -- dates


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("31/01/2017 22:00", "01/02/2017 22:00"), ["2017-01-31 22:00:00", "2017-02-01 22:00:00"]),
        (("01/31/2017 22:00", "02/01/2017 22:00"), ["2017-01-31 22:00:00", "2017-02-01 22:00:00"]),
        (("30.01.2017", "31.01.2017"), ["2017-01-30 00:00:00", "2017-01-31 00:00:00"]),
        (
            ("13.01.2017 00:00:00.000", "13.01.2017 01:00:00.000"),
            ["2017-01-13 00:00:00", "2017-01-13 01:00:00"],
        ),
        (("2017.01.02 10:00", "2017.01.02 11:00"), ["2017-01-02 10:00:00", "2017-01-02 11:00:00"]),
        (("2017/01/02 10:00:00", "2017/01/02 11:00:00"), ["2017-01-02 10:00:00", "2017-01-02 11:00:00"]),
        (("20170102 100000", "20170102 110000"), ["2017-01-02 10:00:00", "2017-01-02 11:00:00"]),
        (("1483315200", "1483318800"), ["2017-01-02 00:00:00", "2017-01-02 01:00:00"]),
        (("1483315200000", "1483318800000"), ["2017-01-02 00:00:00", "2017-01-02 01:00:00"]),
        (("1483315200000000000", "1483318800000000000"), ["2017-01-02 00:00:00", "2017-01-02 01:00:00"]),
    ],
)
def test_dates_are_read_as_they_prove_themselves(put, labels, expected):
    path = put("bars.csv", HEADER + "".join(label + BAR for label in labels))
    assert opens(path, "bid", "UTC") == expected


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (
            ("01/02/2017 22:00", "02/02/2017 22:00"),
            (12, "'01/02/2017 22:00'"),
        ),
        (("31/01/2017 22:00", "01/31/2017 22:00"), (12, "both")),
    ],
)
def test_an_order_of_day_and_month_that_the_file_does_not_prove_is_refused(put, labels, found):
    path = put("bars.csv", HEADER + "".join(label + BAR for label in labels))
    with pytest.raises(DataError, match=says("bars.csv", "day and month", *found)):
        read_bars(path, "bid", "UTC")


def test_local_time_of_dukascopy_carries_its_offset(put):
    rows = "".join(
        f"{d}.01.2017 {h}:00:00.000 GMT+0200{BAR}" for d, h in ((13, "00"), (13, "01"), (14, "00"))
    )
    path = put("EURUSD_Candlestick_1_Hour_BID.csv", HEADER.replace("time", "Local time") + rows)
    assert opens(path)[0] == "2017-01-12 22:00:00"


def test_gmt_time_proves_utc_and_closed_hours_are_left_out(put):
    flat = ",1.11,1.11,1.11,1.11,0\n"
    rows = (
        "".join(f"13.01.2017 {h}:00:00.000{BAR.strip()},5\n" for h in (20, 21))
        + f"14.01.2017 00:00:00.000{flat}"
    )
    path = put("EURUSD_BID.csv", HEADER.strip().replace("time", "Gmt time") + ",volume\n" + rows)
    table = read_bars(path)
    assert len(table.bars) == 2
    assert any(told(note, "1 flat", "volume 0") for note in table.changes)


def test_flat_rows_of_histdata_stay_its_volume_is_always_0(put):
    path = put("bars.csv", "".join(f"20190204 00{m:02d}00;1.1;1.1;1.1;1.1;0\n" for m in range(3)))
    assert len(read_bars(path).bars) == 3


def test_the_ascii_layout_of_another_program_needs_side_and_clock(put):
    path = put("bars.csv", "".join(f"20190204 00{m:02d}00;1.1;1.1;1.1;1.1;7\n" for m in range(3)))
    with pytest.raises(DataError, match=says("price side")):
        read_bars(path)
    assert opens(path, "bid", "UTC")[0] == "2019-02-04 00:00:00"


def test_a_brokers_metatrader_csv_is_not_taken_for_histdatas(put):
    rows = "".join(f"2019.02.04,00:{m:02d},1.1,1.1,1.1,1.1,0\n" for m in range(3))
    with pytest.raises(DataError, match=says("clock")):
        read_bars(put("EURUSD1.csv", rows))
    assert opens(put("EURUSD1.csv", rows), None, "mt-eet")[0] == "2019-02-03 22:00:00"
    assert opens(put("DAT_MT_EURUSD_M1_2019.csv", rows))[0] == "2019-02-04 05:00:00"


def test_the_columns_taken_are_said(put):
    content = "ignored;Close;Low;High;Open;DateTime\n" + "".join(
        f"x;1.11;1.09;1.12;1.10;2017-01-02 0{h}:00\n" for h in (1, 2)
    )
    table = read_bars(put("bars.csv", content), "mid", "UTC")
    assert table.bars.iloc[0].tolist() == [1.10, 1.12, 1.09, 1.11]
    assert told(table.notes[0], "bars.csv", "datetime", "open, high, low, close", "UTC", "mid")


def test_bid_and_ask_columns_are_told_apart(put):
    names = ",".join(f"{side}{k}" for side in ("bid", "ask") for k in ("open", "high", "low", "close"))
    rows = "".join(f"2017-01-02 0{h}:00Z,1.10,1.12,1.09,1.11,1.20,1.22,1.19,1.21\n" for h in (1, 2))
    path = put("bars.csv", f"time,{names}\n{rows}")
    assert read_bars(path).bars.iloc[0, 0] == 1.10
    assert read_bars(path, "ask").bars.iloc[0, 0] == 1.20
    with pytest.raises(DataError, match=says("mid", "bid, ask")):
        read_bars(path, "mid")


def test_utf16_of_a_terminal_is_read(put):
    text = HEADER + "".join(f"2017-01-02 0{h}:00Z{BAR}" for h in (1, 2))
    assert len(read_bars(put("bars.csv", text.encode("utf-16")), "bid").bars) == 2


def test_several_instruments_in_one_table_are_refused(put):
    text = "symbol," + HEADER + f"EURUSD,2017-01-02 01:00Z{BAR}" + f"GBPUSD,2017-01-02 02:00Z{BAR}"
    with pytest.raises(DataError, match=says("EURUSD", "GBPUSD", "symbol")):
        read_bars(put("bars.csv", text), "bid")


def test_a_lone_carriage_return_does_not_hang_the_reader(put):
    rows = "".join(f"20190204 00{m:02d}00;1.1;1.1;1.1;1.1;0\n" for m in range(3))
    with pytest.raises(DataError, match=says("bars.csv", "%Y%m%d %H%M%S")):
        read_bars(put("bars.csv", rows.replace("20190204 000100", "20190\r 000100")))


# -- binary


def test_version_400_keeps_low_before_high(put):
    path = put("EURUSD1.hst", fuzz_bars.hst(400))
    other = put("other.hst", fuzz_bars.hst(401))
    pd.testing.assert_frame_equal(read_bars(path, None, "UTC").bars, read_bars(other, None, "UTC").bars)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", ("148 bytes", "0 bytes")),
        (
            fuzz_bars.hst(401)[:-1],
            (401, "1 min", "2399 bytes"),
        ),
        (struct.pack("<i", 402) + fuzz_bars.hst(401)[4:], ("version 402",)),
        (fuzz_bars.hst(401)[:80] + struct.pack("<i", -5) + fuzz_bars.hst(401)[84:], ("-5 min",)),
    ],
    ids=["empty", "cut", "version", "period"],
)
def test_a_damaged_hst_is_refused(put, content, found):
    with pytest.raises(DataError, match=says("EURUSD1.hst", *found)):
        read_bars(put("EURUSD1.hst", content), None, "UTC")


@pytest.mark.parametrize("price", [np.inf, np.nan, -1.0])
def test_a_price_that_is_none_is_refused_without_a_warning(put, price):
    content = bytearray(fuzz_bars.hst(401))
    content[156:164] = struct.pack("<d", price)
    with pytest.raises(DataError, match=says(1, 40, "bar 0")):
        read_bars(put("EURUSD1.hst", bytes(content)), None, "UTC")


def bi5(rows, record=">IIIff"):
    return lzma.compress(b"".join(struct.pack(record, *row) for row in rows), format=lzma.FORMAT_ALONE)


TICKS = [
    (0, 114_545, 114_543, 1.0, 2.0),
    (500, 114_547, 114_544, 1.0, 2.0),
    (61_000, 114_546, 114_540, 1.0, 2.0),
]
DAY = "EURUSD/2019/01/04/"


@pytest.mark.parametrize(
    ("side", "first"),
    [
        ("bid", [1.14543, 1.14544, 1.14543, 1.14544]),
        ("ask", [1.14545, 1.14547, 1.14545, 1.14547]),
        ("mid", [1.14544, 1.145455, 1.14544, 1.145455]),
    ],
)
def test_ticks_have_three_sides(put, side, first):
    bars = read_bars(put(DAY + "08h_ticks.bi5", bi5(TICKS)), side).bars
    assert bars.index.strftime("%H:%M").tolist() == ["08:00", "08:01"]
    np.testing.assert_allclose(bars.iloc[0], first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["08h_ticks.bi5", "EURUSD/2019/12/04/08h_ticks.bi5", "EURUSD/2019/01/04/24h_ticks.bi5",
                                  "EURUSD/2019/01/32/08h_ticks.bi5", "NONAME/2019/01/04/08h_ticks.bi5",
                                  "EURUSD/2019/01/04/BID_candles_min_5.bi5"])  # fmt: skip
def test_a_bi5_without_its_path_is_refused(put, name):
    with pytest.raises(DataError, match=says("EURUSD/2019/01/04/08h_ticks")):
        read_bars(put(name, bi5(TICKS)))


def test_candles_of_closed_minutes_are_left_out(put):
    rows = [(0, 114_543, 114_569, 114_542, 114_570, 5.0), (60, 114_569, 114_569, 114_569, 114_569, 0.0)]
    table = read_bars(put(DAY + "ASK_candles_min_1.bi5", bi5(rows, ">5If")))
    assert (len(table.bars), table.bars.side) == (1, "ask")
    assert table.bars.iloc[0].tolist() == [1.14543, 1.1457, 1.14542, 1.14569]
    assert any(told(note, "1 candle", "volume 0") for note in table.notes)


def test_ticks_with_float_prices_are_refused_not_misread(put):
    rows = [(0, *struct.unpack(">II", struct.pack(">ff", 1.14545, 1.14543)), 1.0, 1.0)]
    with pytest.raises(DataError, match=says("1066573339")):
        read_bars(put(DAY + "08h_ticks.bi5", bi5(rows)))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (bi5(TICKS)[:-9], ("cut",)),
        (bi5(TICKS) + bi5(TICKS), ("cut",)),
        (
            lzma.compress(b"x" * 41, format=lzma.FORMAT_ALONE),
            ("20 bytes", 41),
        ),
        (b"not lzma at all", ("LZMA",)),
        (lzma.compress(bytes(80_000_000), format=lzma.FORMAT_ALONE), ("more than",)),
        (
            b"]" + b"\xff\xff\xff\xff" + bi5(TICKS)[5:],
            ("LZMA", "memory usage limit"),
        ),
    ],
    ids=["cut", "twice", "record", "text", "bomb", "memory"],
)
def test_a_damaged_bi5_is_refused_within_bounded_memory(put, content, found):
    with pytest.raises(DataError, match=says("08h_ticks.bi5", *found)):
        read_bars(put(DAY + "08h_ticks.bi5", content))


def test_an_lzma_bomb_takes_no_memory(put):
    path = put(DAY + "08h_ticks.bi5", lzma.compress(bytes(30_000_000), format=lzma.FORMAT_ALONE))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=says("bytes")):
            read_bars(path)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000  # 8 MB of it are the dictionary
    finally:
        tracemalloc.stop()


# -- archives


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


GOOD = HEADER + "".join(f"2017-01-02 0{h}:00Z{BAR}" for h in (1, 2))


def test_a_table_is_read_out_of_its_archive_and_the_report_beside_it_passed_over(put):
    assert (
        len(read_bars(put("bars.zip", archive(**{"bars.csv": GOOD, "bars.txt": "Gap of 62s"})), "bid").bars)
        == 2
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            archive(**{"a.csv": GOOD, "b.csv": GOOD}),
            (2, "a.csv", "b.csv"),
        ),
        (archive(**{"readme.txt": "x"}), ("table", 0)),
        (
            archive(**{"..__..__evil.csv": GOOD}),
            ("'../../evil",),
        ),
        (
            archive(**{"__etc__x.csv": GOOD}),
            ("'/etc/x.csv'",),
        ),
        (archive(**{"bars.csv": b"0" * 50_000_000}), ("250 times",)),
        (
            archive(**{f"{i}.csv": GOOD for i in range(65)}),
            (64, 65),
        ),
        (archive(**{"bars.csv": GOOD})[:-30], ("zip",)),
        (b"PK\x03\x04 and no more", ("zip",)),
    ],
    ids=["two", "none", "up", "root", "bomb", "many", "cut", "empty"],
)
def test_an_archive_that_could_harm_is_refused(put, content, found):
    with pytest.raises(DataError, match=says("bars.zip", *found)):
        read_bars(put("bars.zip", content), "bid")


def test_an_archive_that_lies_about_its_size_is_refused(put):
    content = bytearray(archive(**{"bars.csv": "0" * 2_000_000}))
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 1000)
    with pytest.raises(DataError, match=says("bars.zip")):
        read_bars(put("bars.zip", bytes(content)), "bid")


def test_a_file_beyond_the_bound_is_refused_unread(put, monkeypatch):
    monkeypatch.setattr(binary, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=says("100", "101")):
        read_bars(put("bars.csv", "x" * 101), "bid")


# -- folders


def test_a_folder_is_sorted_into_instruments(put, tmp_path):
    for name in (
        "EURUSD_2017.csv",
        "sub/eurusd_2018.csv",
        "GBPUSD/bars.csv",
        "README.md",
        "EURUSD_report.txt",
        ".EURJPY.csv",
    ):
        put(name, GOOD)
    found = find_files(tmp_path)
    assert {k: [p.name for p in v] for k, v in found.items()} == {
        "EURUSD": ["EURUSD_2017.csv", "eurusd_2018.csv"], "GBPUSD": ["bars.csv"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bars.csv", ("bars.csv", "instrument")),
        ("notes.md", (".csv", ".hst")),
    ],
)
def test_a_folder_that_tells_nothing_is_refused(put, tmp_path, name, found):
    put(f"x/{name}", GOOD)
    with pytest.raises(DataError, match=says(*found)):
        find_files(tmp_path / "x")


def test_months_of_one_instrument_are_joined_and_aggregated(put):
    paths = []
    for month in (2, 1):
        rows = "".join(f"2017{month:02d}03 00{m:02d}00;1.{month}{m:02d};1.9;1.0;1.5;0\n" for m in range(10))
        paths.append(put(f"DAT_ASCII_EURUSD_M1_2017{month:02d}.csv", rows))
    table = read_instrument(paths, None, None, "EURUSD", 300)
    assert table.bars.index.strftime("%m-%d %H:%M").tolist() == [
        "01-03 05:00",
        "01-03 05:05",
        "02-03 05:00",
        "02-03 05:05",
    ]
    assert table.bars["open"].tolist() == [1.100, 1.105, 1.200, 1.205]
    assert told(table.source, "DAT_ASCII_EURUSD_M1_201701.csv", 1)
