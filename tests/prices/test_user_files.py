"""Files as users have them: each is read right, or refused with the file, the row and the option that helps.

The prices in user_files/ are made up; expected values were read from the files by eye.
"""

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import build_kernel
from sac_kernel.core.errors import DataError
from sac_kernel.prices.ingest.formats import peek, read_bars
from sac_kernel.prices.ingest.holes import find_holes
from sac_kernel.prices.ingest.questions import MissingFactsError
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from tests.support import says, told

FOLDER = Path(__file__).parent / "user_files"

# file: (price side, clock given), bars, seconds, instrument, side, kind, first open UTC, its prices
READ = {
    # 09:30 at -05:00; the switch to -04:00 is on 2024-03-10
    "XYZ_yfinance_1h.csv": (
        (None, None), 140, 3600, "XYZ", "mid", "equity", "2024-02-26 14:30", (61.2, 61.301076, 61.192361, 61.200226)),
    # 02:00 EET in winter
    "EURUSD_Hourly_Bid_jforex.csv": (
        (None, None), 240, 3600, "EURUSD", "bid", "", "2024-03-04 00:00", (1.0851, 1.08574, 1.08404, 1.08428)),
    "Exchange_BTCUSDT_1h_cdd.csv": (
        (None, None), 240, 3600, "BTCUSDT", "mid", "crypto", "2024-01-01 00:00", None),
    "ETHUSDT-1h-2024-01.csv": (
        (None, None), 240, 3600, "ETHUSDT", "mid", "crypto", "2024-01-01 00:00", (2281.9, 2286.94, 2262.28, 2262.78)),
    # midnight of New York in summer is 04:00
    "ABC_daily_alphavantage.csv": (
        (None, None), 240, 86_400, "ABC", "mid", "equity", None, None),
    # 00:05 on a server seven hours before New York's winter clock
    "EURUSD_ticks_mt5.csv": (
        (None, "mt-eet"), 10, 60, "EURUSD", "bid", "", "2024-03-03 22:05", None),
    "USDJPY_D1_mt5.csv": (
        (None, "mt-eet"), 900, 86_400, "USDJPY", "bid", "", "2021-01-03 22:00", (104.2, 104.427, 103.916, 104.307)),
    "US30_M60.csv": (
        ("bid", None), 240, 3600, "US30", "bid", "", "2024-03-04 00:00", (38989.1, 39041.0, 38912.5, 38920.2)),
    # 902 rows with the header and 239 flat ones of volume 0
    "EURUSD_H1_filled_weekends.csv": (
        ("bid", None), 661, 3600, "EURUSD", "bid", "", "2024-03-04 00:00", (1.0851, 1.08552, 1.08342, 1.0839)),
    "EURUSD_H1_three_year_hole.csv": (
        ("bid", None), 1200, 3600, "EURUSD", "bid", "", "2019-03-04 00:00", (1.0851, 1.08526, 1.08439, 1.08452)),
    "Index_Historical_Data_investing.csv": (
        ("bid", "America/New_York"), 240, 86_400, "", "bid", "", None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_it_is_meant(name):
    given, count, seconds, instrument, side, kind, first, prices = READ[name]
    table = read_bars(FOLDER / name, *given)
    bars = table.bars
    assert (len(bars), bars.seconds, bars.instrument, bars.side, table.kind) == (
        count, seconds, instrument, side, kind,
    )  # fmt: skip
    assert bars.index.is_monotonic_increasing
    if first:
        assert bars.index[0] == pd.Timestamp(first, tz="UTC")
    if prices:
        assert tuple(bars.iloc[0]) == prices
    assert not suspects(bars)


def test_every_user_file_is_tested():
    refused = {"EURUSD_H1_bad_ticks.csv", "EURUSD_H1_nul_tail.csv", "XAUUSD_H1_two_bad_highs.csv"}
    assert {path.name for path in FOLDER.iterdir()} == {*READ} | refused


def test_offsets_that_change_at_the_switch_stay_on_the_exchanges_hours():
    index = read_bars(FOLDER / "XYZ_yfinance_1h.csv").bars.index
    local = index.tz_convert("America/New_York")
    assert {f"{t:%H:%M}" for t in local} == {"09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30"}
    assert {t.hour for t in index[local.hour == 9]} == {13, 14}


def test_newest_first_is_turned_round_and_said():
    table = read_bars(FOLDER / "Index_Historical_Data_investing.csv", "bid", "America/New_York")
    # the first line of the file: 12/01/2023, price 18,265.2, open 18,250.4, high 18,359.4, low 18,097.1
    assert table.bars.index[-1] == pd.Timestamp("2023-12-01 05:00", tz="UTC")
    assert tuple(table.bars.iloc[-1]) == (18250.4, 18359.4, 18097.1, 18265.2)
    assert any(told(note, "newest first") for note in table.changes)


def test_a_banner_is_skipped_and_said_and_repeats_are_counted():
    notes = read_bars(FOLDER / "Exchange_BTCUSDT_1h_cdd.csv").notes
    assert any(told(note, 1, "https://www.example.com") for note in notes)
    changes = read_bars(FOLDER / "ETHUSDT-1h-2024-01.csv").changes
    assert any(told(note, "2 repeated") for note in changes)


def test_rows_that_contradict_each_other_are_refused(tmp_path):
    lines = (FOLDER / "ETHUSDT-1h-2024-01.csv").read_text().splitlines()
    path = tmp_path / "ETHUSDT-1h.csv"
    path.write_text("\n".join([*lines, lines[0].replace("2281.90", "2281.91")]) + "\n")
    with pytest.raises(DataError, match=says("ETHUSDT-1h.csv", 1, "2024-01-01T00:00")):
        read_bars(path)


def test_flat_weekends_are_dropped_and_counted():
    table = read_bars(FOLDER / "EURUSD_H1_filled_weekends.csv", "bid")
    rows = pd.read_csv(FOLDER / "EURUSD_H1_filled_weekends.csv")
    empty = (rows["Volume"] == 0) & (rows["High"] == rows["Low"])
    assert len(table.bars) == len(rows) - int(empty.sum())
    assert any(told(note, f"{int(empty.sum())} flat") for note in table.changes)
    assert not ((table.bars.index.day_of_week == 5) & (table.bars.index.hour == 12)).any()


def test_nul_bytes_are_refused_with_their_line():
    content = (FOLDER / "EURUSD_H1_nul_tail.csv").read_bytes()
    line = 1 + content[: content.index(b"\0")].count(b"\n")
    with pytest.raises(DataError, match=says("EURUSD_H1_nul_tail.csv", "NUL", f"line {line}")):
        read_bars(FOLDER / "EURUSD_H1_nul_tail.csv", "bid")


def test_a_rounding_step_is_repaired_only_if_asked_for():
    path = FOLDER / "XAUUSD_H1_two_bad_highs.csv"
    with pytest.raises(DataError, match=says("2024-03-06 09:00", "2024-03-11 19:00", "--repair-rounding")):
        read_bars(path)
    table = read_bars(path, repair_rounding=True)
    rows = table.bars.loc[["2024-03-06 09:00+00:00", "2024-03-11 19:00+00:00"]]
    assert rows["high"].tolist() == [2082.62, 2091.50]  # the closes of both rows
    assert told(table.changes[0], 2, "2024-03-06 09:00", "2024-03-11 19:00")
    assert (table.spread_unit, table.spread[:3].tolist()) == ("points", [24, 31, 17])


def test_two_steps_are_no_rounding(tmp_path):
    path = tmp_path / "XAUUSD.csv"
    path.write_text((FOLDER / "XAUUSD_H1_two_bad_highs.csv").read_text().replace("2082.61", "2082.60"))
    with pytest.raises(DataError, match=says("high", 2, "open and close")):
        read_bars(path, repair_rounding=True)


def test_wrong_ticks_are_found_and_nothing_else():
    found = suspects(read_bars(FOLDER / "EURUSD_H1_bad_ticks.csv", "bid").bars)
    assert [s.when for s in found] == [
        pd.Timestamp("2024-04-12 03:00", tz="UTC"), pd.Timestamp("2024-05-29 11:00", tz="UTC"),
    ]  # fmt: skip
    assert told(found[0].text, "10.8524", "10 times")
    assert told(found[1].text, "1.62129", "1.5 times")


def test_the_hole_of_three_years_is_one_hole():
    bars = read_bars(FOLDER / "EURUSD_H1_three_year_hole.csv", "bid").bars
    (hole,) = find_holes(bars, 3600)
    assert (hole.next - hole.last).days == 1064  # 2019-04-07 to 2022-03-07
    assert 150 < hole.weeks < 154  # 1,064 days are 152 weeks


def test_nights_and_weekends_of_an_exchange_are_no_holes():
    bars = read_bars(FOLDER / "XYZ_yfinance_1h.csv").bars
    assert find_holes(bars, 3600) == []
    three_days = bars[(bars.index < "2024-03-05") | (bars.index > "2024-03-08")]
    (hole,) = find_holes(three_days, 3600)
    assert hole.weeks == pytest.approx(0.6, abs=0.05)


# -- at the build


def build(path, tmp_path, **given):
    config = DataConfig(
        source="files", path=str(path), output_path=str(tmp_path / "o.h5"), embargo_hours=24.0, **given
    )
    return DataPipeline(config).write()


def test_the_build_refuses_wrong_ticks_and_names_them_all(tmp_path):
    path = FOLDER / "EURUSD_H1_bad_ticks.csv"
    with pytest.raises(DataError, match=says("2024-04-12 03:00", "2024-05-29 11:00", "--accept-outliers")):
        build(path, tmp_path, price_side="bid")
    assert not (tmp_path / "o.h5").exists()
    data = build(path, tmp_path, price_side="bid", accept_outliers=True)
    assert told(data.notes[0], 2, "2024-04-12 03:00")


def test_the_gravest_notes_come_first_and_are_stored(tmp_path):
    data = build(FOLDER / "EURUSD_H1_three_year_hole.csv", tmp_path, price_side="bid")
    assert told(data.notes[0], "1,064 days", "2019-04-07", "2022-03-07")
    assert data.describe()["notes"][0] == data.notes[0] or data.notes[0] in data.describe()["notes"][:2]
    weekends = build(FOLDER / "EURUSD_H1_filled_weekends.csv", tmp_path, price_side="bid")
    assert told(weekends.notes[0], "239 flat")


def test_everything_that_is_missing_is_asked_for_once(tmp_path):
    path = FOLDER / "Index_Historical_Data_investing.csv"
    with pytest.raises(MissingFactsError) as asked:
        build(path, tmp_path)
    assert list(asked.value.missing) == ["instrument", "kind", "price_side", "clock"]
    answers = {"instrument": "ABC", "kind": "index", "price_side": "bid", "clock": "America/New_York"}
    data = build(path, tmp_path, **answers)
    assert (data.traded, data.price_side, data.clock) == ("ABC", "bid", "America/New_York")


def test_the_command_to_try_has_the_users_own_words(capsys):
    path = FOLDER / "Index_Historical_Data_investing.csv"
    words = [
        "--data",
        str(path),
        "--price-side",
        "bid",
        "--set",
        "num_episodes=4",
        "--name",
        "my-run",
        "--rehearse",
    ]
    assert build_kernel.main(words) == 2
    said = capsys.readouterr().err
    assert f"python build_kernel.py {shlex.join(words)} --instrument NAME --kind KIND --clock CLOCK" in said


def test_a_folder_is_asked_about_as_a_whole(tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    rows = "".join(f"2024-03-0{d} 0{h}:00,1.1,1.2,1.0,1.1\n" for d in (4, 5) for h in range(9))
    for name in ("EURUSD.csv", "GBPUSD.csv"):
        (folder / name).write_text("time,open,high,low,close\n" + rows)
    with pytest.raises(MissingFactsError) as asked:
        build(folder, tmp_path)
    both = ["EURUSD.csv", "GBPUSD.csv"]
    assert asked.value.missing == {"price_side": both, "clock": both}


def test_a_kind_that_the_format_proves_is_not_asked_for(tmp_path):
    facts = peek(FOLDER / "XYZ_yfinance_1h.csv")
    assert (facts.instrument, facts.side, facts.clock, facts.kind) == ("XYZ", "mid", "UTC", "equity")
    data = build(FOLDER / "XYZ_yfinance_1h.csv", tmp_path)
    assert (data.traded, data.spec.kind) == ("XYZ", "equity")


def test_days_that_begin_at_the_rollover_can_be_traded(tmp_path):
    data = build(FOLDER / "USDJPY_D1_mt5.csv", tmp_path, clock="mt-eet")
    assert data.spec.frozen(data.bar_seconds) == (0, 0)
    local = data.train["USDJPY"].index.tz_convert("America/New_York")
    assert {t.hour for t in local} == {17}


def test_a_files_own_spread_is_offered_and_charged_if_asked_for(tmp_path):
    path = FOLDER / "USDJPY_D1_mt5.csv"
    offered = build(path, tmp_path, clock="mt-eet")
    assert any(told(note, "--costs spread=column") for note in offered.notes)
    charged = build(path, tmp_path, clock="mt-eet", costs="spread=column")
    # the first row: 5 points of .001 at a close of 104.307
    assert charged.train["USDJPY"]["spread"].iloc[0] == pytest.approx(5 * 0.001 / 104.307)


def test_the_spread_of_ticks_is_their_mean(tmp_path):
    table = read_bars(FOLDER / "EURUSD_ticks_mt5.csv", None, "mt-eet")
    rows = pd.read_csv(FOLDER / "EURUSD_ticks_mt5.csv", sep="\t")
    first = rows[rows["<TIME>"] < "00:06"]
    wanted = ((first["<ASK>"] - first["<BID>"]) / first["<BID>"]).mean()
    np.testing.assert_allclose(table.spread[0], wanted)
