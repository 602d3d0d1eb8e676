"""Layouts, encodings, numbers and times that programs write: small files made here, expected values by hand."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.cleaning import price_step
from sac_kernel.prices.ingest.decoding import to_utf8
from sac_kernel.prices.ingest.formats import peek, read_bars
from sac_kernel.prices.ingest.holes import find_holes
from sac_kernel.prices.ingest.instrument_names import guess_instrument, instrument_of_file
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.ingest.times import clock_in_name
from tests.conftest import make_bars
from tests.support import says, told

ROWS = ("2024-03-04 00:00:00,1.10,1.12,1.09,1.11", "2024-03-04 01:00:00,1.11,1.13,1.10,1.12")
COLUMNS = ["open", "high", "low", "close"]
HEADER = "time,open,high,low,close"


@pytest.fixture
def put(tmp_path):
    def write(content, name="EURUSD.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def is_good(table):
    assert table.bars.index.tolist() == list(pd.date_range("2024-03-04", periods=2, freq="h", tz="UTC"))
    assert table.bars.to_numpy().tolist() == [[1.10, 1.12, 1.09, 1.11], [1.11, 1.13, 1.10, 1.12]]


GOOD = "\n".join((HEADER, *ROWS)) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\n".join(ROWS),
        "\n".join(f"{row},7" for row in ROWS),
        "\n".join(row.replace(" ", ",", 1) for row in ROWS).replace("-", "."),
        "exported by someone\n\nhttps://example.com\n" + GOOD,
        GOOD.replace("time,open,high,low,close", "t,o,h,l,c"),
        GOOD.replace("time,open,high,low,close", "Date,Open,High,Low,Close/Last").replace("1.1", "$1.1"),
        GOOD.replace(",", ";").replace(".", ","),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        GOOD.encode("utf-16-le"),
        GOOD.encode("utf-16-be"),
        GOOD.encode("utf-32"),
        GOOD.replace("time,", "prüf,time,").replace("\n2024", "\nok,2024").encode("cp1252"),
        GOOD.replace(ROWS[1], f"{ROWS[1]}\n{ROWS[1]}"),
        "\n".join((HEADER, *ROWS[::-1])),
        "\n".join(("Price,Open,High,Low,Close", "Ticker,EURUSD,EURUSD,EURUSD,EURUSD", "Date,,,,", *ROWS)),
    ],
    ids=[
        "plain", "headerless", "volume", "two columns of time", "banner", "short names", "last", "decimal comma",
        "tabs", "bars", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "repeat", "newest first", "stacked header",
    ],
)  # fmt: skip
def test_one_table_written_in_many_ways(put, content):
    is_good(read_bars(put(content), "bid", "UTC"))


def test_a_headerless_table_whose_columns_are_not_proven_is_refused(put):
    swapped = [row.replace("1.12,1.09", "1.09,1.12").replace("1.13,1.10", "1.10,1.13") for row in ROWS]
    with pytest.raises(DataError, match=says("EURUSD.csv", "header")):
        read_bars(put("\n".join(swapped)), "bid", "UTC")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (('"1,101.5"', '"1,102.0"', '"1,100.0"', '"1,101.0"'), [1101.5, 1102.0, 1100.0, 1101.0]),
        (('"1,1015"', '"1,102"', '"1,1"', '"1,101"'), [1.1015, 1.102, 1.1, 1.101]),
        pytest.param(
            ('"1.101,5"', '"1.102"', '"1.100"', '"1.101"'),
            [1101.5, 1102.0, 1100.0, 1101.0],
            marks=pytest.mark.skipif(
                tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1),
                reason="pandas 3.1 reads a quoted 1.100 as the number 1.1, so the file proves no separator",
            ),
        ),
    ],
)
def test_commas_mean_what_the_file_proves(put, values, expected):
    rows = "\n".join(f"2024-03-0{d},{','.join(values)}" for d in (4, 5))
    bars = read_bars(put(f"{HEADER}\n{rows}\n"), "bid", "UTC").bars
    assert bars.iloc[0].tolist() == expected


def test_commas_that_prove_nothing_are_refused(put):
    rows = "\n".join(f'2024-03-0{d},"1,101","1,102","1,100","1,101"' for d in (4, 5))
    with pytest.raises(DataError, match=says("'1,101'", "thousands", "decimals")):
        read_bars(put(f"{HEADER}\n{rows}\n"), "bid", "UTC")


@pytest.mark.parametrize(
    ("name", "clock"),
    [
        ("time (eet)", "EET"), ("time (utc)", "UTC"), ("date (gmt+3)", "Etc/GMT-3"),
        ("time (europe/london)", "Europe/London"),
        ("time (est)", ""), ("time (local)", ""), ("time", ""), ("unix", "UTC"), ("time [utc-5]", "Etc/GMT+5"),
    ],
)  # fmt: skip
def test_a_clock_in_a_columns_name(name, clock):
    assert clock_in_name(name) == clock


def test_a_time_without_the_offset_that_others_have_is_refused(put):
    content = GOOD.replace("00:00:00,1.10", "00:00:00+01:00,1.10")
    with pytest.raises(DataError, match=says("EURUSD.csv", "line 3", "2024-03-04 01:00:00")):
        read_bars(put(content), "bid")


def test_half_days_are_read(put):
    content = GOOD.replace("2024-03-04 00:00:00", "03/13/2024 12:00 AM").replace(
        "2024-03-04 01:00:00", "03/13/2024 01:00 PM"
    )
    bars = read_bars(put(content), "bid", "UTC").bars
    assert bars.index.strftime("%m-%d %H").tolist() == ["03-13 00", "03-13 13"]


def test_nul_bytes_that_are_no_encoding_name_their_line():
    with pytest.raises(DataError, match=says("x.csv", "line 2", "NUL")):
        to_utf8(b"time,open\n1.1\0099,2\n", "x.csv")


# -- names


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("AAPL.csv", "AAPL"), ("GOOG_daily_2020.csv", "GOOG"), ("us30_m5.csv", "US30"), ("NAS100_M15.csv", "NAS100"),
        ("GOLD_H1.csv", "GOLD"), ("NEARUSDT-5m.csv", "NEARUSDT"), ("BTC-USD.csv", "BTCUSD"), ("bars.csv", ""),
        ("DATA_M5.csv", ""), ("EURUSD_GBPUSD.csv", ""), ("eurusd_2020.csv", "EURUSD"), ("AAPL_MSFT.csv", ""),
    ],
)  # fmt: skip
def test_what_a_file_name_tells(name, instrument):
    assert instrument_of_file(name) == instrument


def test_a_word_like_a_ticker_gives_way_to_what_the_user_says(put):
    assert read_bars(put(GOOD, "XYZ.csv"), "bid", "UTC", "US30").bars.instrument == "US30"
    with pytest.raises(DataError, match=says("EURUSD", "GBPUSD")):
        read_bars(put(GOOD, "EURUSD.csv"), "bid", "UTC", "GBPUSD")
    assert guess_instrument("XYZ.csv") == ""


def test_the_symbol_column_tells_the_instrument(put):
    content = "symbol," + GOOD.replace("\n2024", "\nBTC/USDT,2024")
    facts = peek(put(content, "bars.csv"))
    assert (facts.instrument, facts.kind) == ("BTCUSDT", "crypto")


# -- packed and foreign files


def test_feather_is_read_and_spreadsheets_are_not(put, tmp_path):
    pytest.importorskip("pyarrow", reason="Feather needs pyarrow")
    bars = make_bars(50)
    path = tmp_path / "EURUSD.feather"
    bars.reset_index().to_feather(path)
    pd.testing.assert_frame_equal(
        pd.DataFrame(read_bars(path, "bid").bars), pd.DataFrame(bars), check_freq=False
    )
    for name in ("EURUSD.xlsx", "EURUSD.ods"):
        with pytest.raises(DataError, match=says(name, "CSV")):
            read_bars(put(b"PK\x03\x04", name), "bid")


def test_ticks_fill_a_side_that_did_not_change_and_need_a_first_one(put):
    head = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
    rows = ["2024.03.04\t00:00:01.000\t1.10\t1.11\t\t\t6", "2024.03.04\t00:00:02.000\t\t1.13\t\t\t4"]
    rows += ["2024.03.04\t00:01:00.000\t1.12\t\t\t\t2"]
    table = read_bars(put(head + "\n".join(rows)), "ask", "UTC")
    assert table.bars.to_numpy().tolist() == [[1.11, 1.13, 1.11, 1.13], [1.13, 1.13, 1.13, 1.13]]
    assert table.spread.tolist() == pytest.approx([(0.01 / 1.11 + 0.03 / 1.13) / 2, 0.01 / 1.13])
    with pytest.raises(DataError, match=says("EURUSD.csv", "bid", "ask", "row 1")):
        read_bars(put(head + rows[1]), "ask", "UTC")


# -- rules


def walk(n=600, sigma=1e-4, seconds=300):
    index = pd.date_range("2024-03-04", periods=n, freq=f"{seconds}s", tz="UTC")
    close = 1.1 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, sigma, n)))
    opened = np.concatenate(([1.1], close[:-1]))
    prices = np.stack(
        [opened, np.maximum(opened, close) * 1.0001, np.minimum(opened, close) * 0.9999, close], axis=1
    )
    return Bars(prices, index=index, columns=COLUMNS, side="bid", seconds=seconds)


def test_a_spike_is_suspect_and_a_move_that_stays_is_not():
    bars = walk()
    assert suspects(bars) == []
    spiked = bars.copy()
    spiked.iloc[300, 2] *= 0.9
    assert [s.when for s in suspects(spiked)] == [bars.index[300]]
    stays = bars.copy()
    stays.iloc[300:] *= 0.9
    assert suspects(stays) == []


def test_two_wrong_bars_in_a_row_hide_nothing():
    bars = walk()
    bars.iloc[300:302] *= 10
    assert {s.when for s in suspects(bars)} >= {bars.index[300], bars.index[301]}


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_an_unadjusted_split_is_named(factor):
    bars = walk()
    bars.iloc[300:] *= factor
    (found,) = suspects(bars)
    assert found.when == bars.index[300]
    assert told(found.text, "4:1" if factor < 1 else "1:4")


def test_large_moves_of_a_wild_market_are_no_suspects():
    assert suspects(walk(sigma=0.02, seconds=86_400)) == []


def test_always_open_markets_have_no_weekend_holes():
    bars = walk(24 * 28, seconds=3600)
    assert find_holes(bars, 3600) == []
    cut = bars[(bars.index < bars.index[200]) | (bars.index >= bars.index[200 + 84])]
    (hole,) = find_holes(cut, 3600)
    assert hole.weeks == pytest.approx(0.5, abs=0.02)  # 84 of 168 hours


@pytest.mark.parametrize(
    ("prices", "step"), [([1.1, 1.25], 0.01), ([2081.35], 0.01), ([155.0], 1.0), ([1 / 3], 0.0)]
)
def test_the_price_step_is_read_from_the_digits(prices, step):
    assert price_step(np.array(prices)) == pytest.approx(step)
