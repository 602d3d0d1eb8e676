"""Every real file lands on the right UTC bar. Expected values are lines of the files, read and moved by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.prices.ingest.formats import find_files, read_bars, read_instrument
from sac_kernel.prices.ingest.tables import aggregate
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed
from tests.support import says, told

DUKASCOPY = "dukascopy_bi5/EURUSD/2019/01"

# file: (price side, clock given), bars, minutes a bar, side, first open UTC, its prices, last open UTC
FILES = {
    # 2022-11-01 00:00 label + 5 h = 05:00 London, winter time since 30 October
    "histdata_ascii/DAT_ASCII_EURUSD_M1_202211.zip": (
        (None, None), 19_632, 1, "bid", "2022-11-01 05:00", (0.9905, 0.99053, 0.99044, 0.99052), "2022-11-18 21:58"),
    # 2019-03-31 17:00 + 5 h = 22:00 London, summer time since that morning = 21:00 UTC; 1,256 rows, 60 twice
    "histdata_ascii/excerpt_2019_EU_DST_switches_EURUSD_M1.csv": (
        (None, None), 1196, 1, "bid", "2019-03-31 21:00", (1.12254,) * 4, "2019-10-28 08:00"),
    # 00:00 + 5 h = 05:00 London, summer = 04:00 UTC
    "histdata_ascii/excerpt_2023-05-10_missing_hours_USDCHF_M1.csv": (
        (None, None), 1005, 1, "bid", "2023-05-10 04:00", (0.88963, 0.88963, 0.88962, 0.88963), "2023-05-11 03:59"),
    "histdata_metatrader/HISTDATA_COM_MT_USDJPY_M1202502.zip": (
        (None, None), 28_679, 1, "bid", "2025-02-02 22:00",
        (154.771, 154.775, 154.764, 154.775), "2025-02-28 21:58"),
    # 1734400800 is 2024-12-17 02:00 on the server, New York 19:00 the day before = 00:00 UTC
    "metatrader4/EURUSD60.hst": (
        (None, "mt-eet"), 4164, 60, "bid", "2024-12-17 00:00",
        (1.05168, 1.05344, 1.05149, 1.05286), "2025-08-19 10:00"),
    # the same bars, written by a machine one hour east of the server: UTC+3 in winter
    "metatrader5/EURUSD60_2020_copy_rates_datetime.csv": (
        (None, "Etc/GMT-3"), 1000, 60, "bid", "2024-12-17 00:00",
        (1.05168, 1.05344, 1.05149, 1.05286), "2025-02-14 15:00"),
    # 2026.05.18 05:45 server = 22:45 New York, summer
    "metatrader5/EURUSD_M15_terminal_export_RESERIALISED.csv": (
        (None, "mt-eet"), 1000, 15, "bid", "2026-05-18 02:45",
        (1.16168, 1.16177, 1.16139, 1.16156), "2026-06-01 12:30"),
    # 1763010300 is 2025-11-13 05:05 on the server, winter
    "metatrader5/EURUSD_M5_copy_rates_epoch.csv": (
        (None, "mt-eet"), 1000, 5, "bid", "2025-11-13 03:05",
        (1.15892, 1.15918, 1.15881, 1.15916), "2025-11-18 14:20"),
    "metatrader5/EURUSD_M5_tab_Time_OHLCV.csv": (
        ("bid", "mt-eet"), 1000, 5, "bid", "2020-03-31 02:55",
        (1.10143, 1.10199, 1.10142, 1.10181), "2020-04-03 14:10"),
    # first tick 994 ms: ask 114545, bid 114543
    f"{DUKASCOPY}/04/00h_ticks.bi5": (
        (None, None), 60, 1, "bid", "2019-02-04 00:00",
        (1.14543, 1.1457, 1.14542, 1.14569), "2019-02-04 00:59"),
    f"{DUKASCOPY}/04/08h_ticks.bi5": (
        ("ask", None), 60, 1, "ask", "2019-02-04 08:00",
        (1.14427, 1.14429, 1.14399, 1.14412), "2019-02-04 08:59"),
    # record (0, open 114543, close 114569, low 114542, high 114570)
    f"{DUKASCOPY}/04/BID_candles_min_1.bi5": (
        (None, None), 1440, 1, "bid", "2019-02-04 00:00",
        (1.14543, 1.1457, 1.14542, 1.14569), "2019-02-04 23:59"),
    # 672 hours of February, 192 of them closed
    f"{DUKASCOPY}/BID_candles_hour_1.bi5": (
        (None, None), 480, 60, "bid", "2019-02-01 00:00",
        (1.14482, 1.14499, 1.14462, 1.14481), "2019-02-28 23:00"),
    "dukascopy_bi5/EURUSD/2019/BID_candles_day_1.bi5": (
        (None, None), 313, 1440, "bid", "2019-01-01 00:00",
        (1.14598, 1.14676, 1.14566, 1.14612), "2019-12-31 00:00"),
    "dukascopy_csv/FOREX_EURUSD_1H_ASK_head.csv": (
        (None, "UTC"), 500, 60, "ask", "2017-01-01 22:00",
        (1.05236, 1.05253, 1.05221, 1.05227), "2017-01-30 17:00"),
    "oanda/oanda-EUR_USD-2019-1_head.csv": (
        ("mid", "UTC"), 11, 1, "mid", "2019-01-01 22:00", (1.14649,) * 4, "2019-01-01 23:02"),
    "oanda/v20_candles_USD_SEK_M15_BA_RESERIALISED.json": (
        ("ask", None), 200, 15, "ask", "2023-11-01 19:00",
        (11.21228, 11.214, 11.19447, 11.20015), "2023-11-03 20:45"),
    "lean_forex/oanda_minute_eurusd_20180403_quote.zip": (
        ("ask", None), 1410, 1, "ask", "2018-04-03 00:00",
        (1.2294, 1.2294, 1.22928, 1.22936), "2018-04-03 23:59"),
    "lean_forex/oanda_daily_eurusd.zip": (
        ("bid", None), 3738, 1440, "bid", "2007-01-01 00:00",
        (1.31927, 1.32125, 1.3187, 1.32095), "2018-12-31 00:00"),
    # 129613 points, 2012-11-26 20:00 server, winter
    "ejtrader_csv/EURUSDh4_head.csv": (
        ("bid", "mt-eet"), 500, 240, "bid", "2012-11-26 18:00",
        (1.29613, 1.30053, 1.29587, 1.29934), "2013-03-26 09:00"),
    "backtesting_py/EURUSD_1H_head.csv": (
        ("bid", "UTC"), 500, 60, "bid", "2017-04-19 09:00",
        (1.0716, 1.0722, 1.07083, 1.07219), "2017-05-18 04:00"),
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(shared_data):
    return shared_data / "raw_formats"


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_lands_on_the_right_utc_bar(raw, name):
    given, count, minutes, side, first, prices, last = FILES[name]
    table = read_bars(raw / name, *given)
    assert (len(table.bars), table.bars.seconds, table.bars.side) == (count, 60 * minutes, side)
    assert table.bars.index[0] == pd.Timestamp(first, tz="UTC")
    assert table.bars.index[-1] == pd.Timestamp(last, tz="UTC")
    np.testing.assert_allclose(table.bars.iloc[0], prices, rtol=0, atol=1e-12)


def test_every_real_file_is_tested(raw):
    found = {p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file() and p.suffix != ".md"}
    assert found == {*FILES}


@pytest.mark.parametrize("name", [n for n, (given, *_) in FILES.items() if given[1]])
def test_a_clock_that_the_file_does_not_prove_must_be_given(raw, name):
    with pytest.raises(DataError, match=says("--clock")):
        read_bars(raw / name, FILES[name][0][0], None)


@pytest.mark.parametrize("name", [n for n, (given, *_) in FILES.items() if given[1] is None])
def test_a_clock_that_contradicts_the_file_is_refused(raw, name):
    with pytest.raises(DataError, match=says("Asia/Tokyo")):
        read_bars(raw / name, FILES[name][0][0], "Asia/Tokyo")


UNSIDED = (
    "metatrader5/EURUSD_M5_tab_Time_OHLCV.csv",
    "oanda/oanda-EUR_USD-2019-1_head.csv",
    "backtesting_py/EURUSD_1H_head.csv",
)


@pytest.mark.parametrize("name", UNSIDED)
def test_a_price_side_that_the_file_does_not_prove_must_be_given(raw, name):
    with pytest.raises(DataError, match=says("price side", "bid", "ask", "mid", "--price-side")):
        read_bars(raw / name, None, FILES[name][0][1])


@pytest.mark.parametrize(
    ("name", "side"),
    [
        (f"{DUKASCOPY}/04/BID_candles_min_1.bi5", "ask"),
        ("metatrader4/EURUSD60.hst", "mid"),
        ("dukascopy_csv/FOREX_EURUSD_1H_ASK_head.csv", "bid"),
    ],
)
def test_a_price_side_that_contradicts_the_file_is_refused(raw, name, side):
    with pytest.raises(DataError, match=says(side)):
        read_bars(raw / name, side, FILES[name][0][1])


def test_a_file_of_another_instrument_is_refused(raw):
    with pytest.raises(DataError, match=says("GBPUSD", "EURUSD", "--instrument EURUSD")):
        read_bars(raw / "metatrader4/EURUSD60.hst", None, "mt-eet", "GBPUSD")


# -- files against each other


@pytest.mark.parametrize("hour", ["00", "08"])
def test_bars_of_ticks_are_dukascopys_own_candles(raw, hour):
    made = read_bars(raw / DUKASCOPY / "04" / f"{hour}h_ticks.bi5", "bid").bars
    candles = read_bars(raw / DUKASCOPY / "04" / "BID_candles_min_1.bi5").bars
    np.testing.assert_allclose(made, candles.loc[made.index], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("minutes", "name"),
    [(60, f"{DUKASCOPY}/BID_candles_hour_1.bi5"), (1440, "dukascopy_bi5/EURUSD/2019/BID_candles_day_1.bi5")],
)
def test_minutes_make_dukascopys_own_hours_and_days(raw, minutes, name):
    made = aggregate(read_bars(raw / DUKASCOPY / "04" / "BID_candles_min_1.bi5"), 60 * minutes).bars
    given = read_bars(raw / name).bars
    assert len(made) == 1440 // minutes
    np.testing.assert_allclose(made, given.loc[made.index], rtol=0, atol=1e-12)


def test_the_panel_of_2019_is_dukascopys_bid(raw, shared_data):
    pytest.importorskip("pyarrow", reason="the panel is Parquet")
    made = aggregate(read_bars(raw / DUKASCOPY / "04" / "BID_candles_min_1.bi5"), 300).bars
    panel = read_bars(shared_data / "fx_m5_2017_2019" / "EURUSD_M5.parquet", "bid").bars
    np.testing.assert_allclose(panel.loc[made.index, "close"], made["close"], rtol=0, atol=1e-9)


def test_two_metatrader_files_of_one_server_agree(raw):
    terminal = read_bars(raw / "metatrader4/EURUSD60.hst", None, "mt-eet").bars
    python = read_bars(raw / "metatrader5/EURUSD60_2020_copy_rates_datetime.csv", None, "Etc/GMT-3").bars
    pd.testing.assert_frame_equal(python, terminal.loc[python.index], check_freq=False)


def test_the_hour_that_histdata_lacks_in_march_and_has_twice_in_october(raw):
    table = read_bars(raw / "histdata_ascii/excerpt_2019_EU_DST_switches_EURUSD_M1.csv")
    hours = table.bars.index.floor("h").value_counts()
    assert pd.Timestamp("2019-03-31 23:00", tz="UTC") not in hours  # the label 19:00 is not there
    assert hours[pd.Timestamp("2019-04-01 00:00", tz="UTC")] == 60
    assert hours[pd.Timestamp("2019-10-28 00:00", tz="UTC")] == 60  # the label 19:00 is there twice
    assert any(told(note, "60 repeated") for note in table.changes)


def test_the_hours_that_histdata_lost_in_2023_are_gaps_not_bars(raw):
    table = read_bars(raw / "histdata_ascii/excerpt_2023-05-10_missing_hours_USDCHF_M1.csv")
    hourly = aggregate(table, 3600).bars
    # 24 hours from 04:00, of which 1,005 minutes exist
    assert len(hourly) == 17
    assert pd.Timestamp("2023-05-10 10:00", tz="UTC") not in hourly.index


WEEKS = {
    "metatrader4/EURUSD60.hst": "mt-eet",
    "histdata_metatrader/HISTDATA_COM_MT_USDJPY_M1202502.zip": None,
}


@pytest.mark.parametrize(("name", "clock"), WEEKS.items())
def test_weeks_open_at_17_new_york(raw, name, clock):
    index = read_bars(raw / name, None, clock).bars.index
    opens = index[1:][np.diff(index) > np.timedelta64(40, "h")].tz_convert("America/New_York")
    assert len(opens) >= 3
    assert ((opens.day_of_week == 6) & (opens.hour == 17)).mean() > 0.9


# -- the real panel


@pytest.fixture(scope="module")
def panel(shared_data, tmp_path_factory):
    pytest.importorskip("pyarrow", reason="the panel is Parquet")
    target = tmp_path_factory.mktemp("panel") / "processed_data.h5"
    config = DataConfig(
        source="files", path=str(shared_data / "fx_m5_2017_2019"), price_side="bid", output_path=str(target)
    )
    DataPipeline(config).run_full_pipeline()
    return read_processed(target)


@pytest.mark.slow
def test_the_real_panel_is_one_file_of_eight_instruments(panel):
    eight = ["EURGBP", "EURUSD", "GBPUSD", "SPXUSD", "USDCAD", "USDCHF", "USDJPY", "XAUUSD"]
    assert [sorted(split) for split in panel.splits.values()] == [eight] * 3
    assert panel.bar_seconds == 300
    # 60 % of EURUSD's 223,734 bars
    assert len(panel.train["EURUSD"]) == 134_240
    assert panel.train["EURUSD"].iloc[0].name == pd.Timestamp("2017-01-02 07:00", tz="UTC")


@pytest.mark.slow
def test_what_the_panel_lacks_is_said_first(panel):
    absent, partly = sorted(panel.notes[:2], key=lambda note: "EURJPY" in note)
    assert told(absent, "USDSEK")
    assert told(partly, "EURJPY", "2017-01-02", "2018-10-18", "2017-12-29")


@pytest.mark.slow
def test_no_instrument_reaches_across_a_boundary(panel):
    for earlier, later in ((panel.train, panel.val), (panel.val, panel.test)):
        last = max(bars.index[-1] for bars in earlier.values())
        first = min(bars.index[0] for bars in later.values())
        assert first - last >= pd.Timedelta(hours=119)  # 120 h after the bar before EURUSD's boundary


def test_a_folder_of_ticks_is_joined_hour_by_hour(raw, tmp_path):
    day = tmp_path / "EURUSD" / "2019" / "01" / "04"
    day.mkdir(parents=True)
    for hour in ("00", "08"):
        (day / f"{hour}h_ticks.bi5").write_bytes((raw / DUKASCOPY / "04" / f"{hour}h_ticks.bi5").read_bytes())
    (day / "09h_ticks.bi5").write_bytes(b"")  # an hour without ticks
    files = find_files(tmp_path)
    table = read_instrument(files["EURUSD"], None, None, "EURUSD", 300)
    assert isinstance(files["EURUSD"][0], Path)
    assert len(table.bars) == 24
    assert table.bars.index[12] == pd.Timestamp("2019-02-04 08:00", tz="UTC")
    assert any(told(note, "1 more") for note in table.notes)
