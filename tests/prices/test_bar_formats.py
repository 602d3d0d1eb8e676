"""Bars are read as they are or refused with the place, what was required and what was found."""

import importlib.metadata
import warnings

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.prices.ingest import formats, text
from tests.conftest import make_bars
from tests.support import says

HEADER = "open_time_utc,open,high,low,close\n"
ROWS = (
    "2017-01-02T00:00:00Z,1.10,1.12,1.09,1.11\n",
    "2017-01-02T01:00:00Z,1.11,1.13,1.10,1.12\n",
    "2017-01-02T02:00:00Z,1.12,1.14,1.11,1.13\n",
)
GOOD = HEADER + "".join(ROWS)


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="bars.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def check_is_the_good_one(table):
    assert table.bars.index.tolist() == list(pd.date_range("2017-01-02", periods=3, freq="h", tz="UTC"))
    assert table.bars.index.name == "open_time_utc"
    assert table.bars.columns.tolist() == ["open", "high", "low", "close"]
    assert table.bars["open"].tolist() == [1.10, 1.11, 1.12]
    assert table.bars["high"].tolist() == [1.12, 1.13, 1.14]
    assert table.bars["low"].tolist() == [1.09, 1.10, 1.11]
    assert table.bars["close"].tolist() == [1.11, 1.12, 1.13]
    assert table.bars.seconds == 3600
    assert table.bars.side == "bid"


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace(",", ", "),
        GOOD.replace("T", " ").replace("Z", "+00:00"),
        GOOD.replace("Z", "").replace("T", " "),
        GOOD.replace("open_time_utc,open,high,low,close", "OPEN_TIME_UTC,Open,High,Low,Close"),
        GOOD.replace("open_time_utc", "Time"),
        GOOD.replace("T00:", "T02:").replace("T01:", "T03:").replace("T02:00:00Z,1.12", "T04:00:00Z,1.12")
        .replace("Z", "+02:00"),
    ],
    ids=["plain", "windows", "bom", "no_end", "blanks", "offset", "naive", "case", "time", "plus_two"],
)  # fmt: skip
def test_a_csv_is_read_whatever_wrote_it(write, content):
    check_is_the_good_one(formats.read_bars(write(content), "bid"))


def test_a_csv_in_a_folder_with_blanks_and_accents_is_read(write):
    check_is_the_good_one(formats.read_bars(write(GOOD, "un café propre/mes données.csv"), "bid"))


def test_columns_are_found_by_name_not_by_place(write):
    frame = pd.read_csv(write(GOOD))
    frame["volume"] = 0
    text = frame[["volume", "close", "low", "open_time_utc", "high", "open"]].to_csv(index=False)
    check_is_the_good_one(formats.read_bars(write(text), "bid"))


def test_times_without_an_offset_need_their_clock(write):
    path = write(GOOD.replace("open_time_utc", "time").replace("Z", ""))
    with pytest.raises(DataError, match=says("--clock")):
        formats.read_bars(path, "bid")
    check_is_the_good_one(formats.read_bars(path, "bid", clock="UTC"))


@pytest.mark.parametrize("side", [None, "last", "BID"])
def test_the_price_side_must_be_said(write, side):
    with pytest.raises(
        DataError, match=says("bars.csv", repr(side) if side else "price side", "--price-side")
    ):
        formats.read_bars(write(GOOD), side)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=says("no.csv")):
        formats.read_bars(tmp_path / "no.csv", "bid")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", ("no columns",)),
        (b"\xff\xfe\x00\x01\xd8", ("table",)),
        (HEADER, ("bars",)),
        (HEADER + ROWS[0], ("two bars", 1)),
        (GOOD + "2017-01-02T03:00:00Z,1.1,1.2\n", ("finite", 1, 4, "bar 3")),
        (GOOD + "2017-01-02T0\n", ("ISO 8601", "2017-01-02T0")),
        (GOOD.replace("Z,1.11,1.13", "Z,,1.13"), ("finite", 1, 3, "bar 1")),
        (GOOD.replace("Z,1.11,1.13", "Z,1.11,inf"), ("finite", 1, 3)),
        (GOOD.replace("1.09", "0"), ("above 0", 1, 3, "bar 0", "low 0")),
        (GOOD.replace("1.09", "-1.09"), ("above 0", 1, 3)),
        (GOOD.replace("1.13,1.10", "1.10,1.13"), (1, 3, "high 1.1", "low 1.13")),
        (GOOD.replace("1.12,1.09,1.11", "1.12,1.09,1.125"), ("high", "open", "close", 1)),
        (GOOD.replace("1.12,1.09,1.11", "1.12,1.105,1.11"), ("low", "open", "close", 1)),
        (HEADER + ROWS[0] + ROWS[2] + ROWS[1], ("increasing", 1, 3, "bar 2")),
        (HEADER + ROWS[0] + ROWS[1] + ROWS[1].replace("1.12", "1.121"), ("differ", 1, "2017-01-02T01:00")),
        (GOOD.replace("1.11,1.13", "one,1.13"), ("numbers", "open, high, low, close", "one")),
        (GOOD.replace("low", "lo"), ("open, high, low, close", "low missing", "open_time_utc")),
        (GOOD.replace("open_time_utc", "when"), ("time column", "open_time_utc", "when")),
        (GOOD.replace("2017-01-02T01", "02.01.2017 01"), ("ISO 8601", "'open_time_utc'")),
        (GOOD.replace("2017-01-02T01:00:00Z", ""), ("time", "line 3")),
        (GOOD.replace("2017-", "1917-"), (1971, 2100, 3)),
        (HEADER + "1483315200,1,1,1,1\n1483318800000,1,1,1,1\n", ("Unix times",)),
        ("timestamp;open;high;low;close\n2017;1;1;1;1\n", ("ISO 8601",)),
    ],
)  # fmt: skip
def test_bad_bars_are_refused_with_file_requirement_and_finding(write, content, found):
    with pytest.raises(DataError, match=says("bars.csv", *found)):
        formats.read_bars(write(content), "bid")


def test_bars_under_several_offsets_are_refused(write):
    content = GOOD.replace("T00:00:00Z", "T01:00:00+01:00").replace("Z", "+02:00")
    with pytest.raises(DataError, match=says("bars.csv")):
        formats.read_bars(write(content), "bid")


def test_check_bars_counts_all_and_names_the_first():
    bars = make_bars(50)
    bars.iloc[[7, 9, 30], 1] = bars["low"].iloc[[7, 9, 30]] * 0.9
    with pytest.raises(DataError, match=says("here", 3, 50, "bar 7", bars.index[7].isoformat(), "open 1.")):
        formats.check_bars(bars, "here")


def test_check_bars_allows_flat_bars_and_holes():
    bars = make_bars(300)
    bars.iloc[5, :] = 1.1
    formats.check_bars(bars.drop(bars.index[100:120]), "here")


def test_check_bars_changes_nothing():
    bars = make_bars(100)
    before = bars.copy()
    formats.check_bars(bars, "here")
    pd.testing.assert_frame_equal(bars, before)


def test_check_bars_refuses_an_empty_table():
    with pytest.raises(DataError, match=says("here", "empty")):
        formats.check_bars(make_bars(10).iloc[:0], "here")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bars: bars.reset_index(drop=True),
        lambda bars: bars.tz_localize(None),
        lambda bars: bars.drop(columns="low"),
    ],
    ids=["no_times", "naive", "no_low"],
)
def test_check_bars_refuses_a_table_of_another_form(spoil):
    with pytest.raises(DataError, match=says("here")):
        formats.check_bars(spoil(make_bars(10)), "here")


def test_bar_length_is_the_usual_distance_and_holes_may_be_longer():
    bars = make_bars(300, bar_seconds=900)
    assert formats.infer_bar_seconds(bars.drop(bars.index[50:60]), "here") == 900


def test_a_bar_between_two_others_is_refused():
    bars = make_bars(50)
    half_hour = bars.iloc[[20]].shift(freq="30min")
    both = pd.concat([bars, half_hour]).sort_index()
    with pytest.raises(DataError, match=says("here", 3600, 1800)):
        formats.infer_bar_seconds(both, "here")


def test_the_sample_is_the_real_one():
    table = formats.read_sample()
    bars = table.bars
    assert len(bars) == 6225
    assert (table.bars.seconds, table.bars.side, table.clock) == (3600, "ask", "UTC")
    assert bars.index[0] == pd.Timestamp("2017-01-01T22:00", tz="UTC")
    # The file's first row reads 01.01.2017 22:00:00.000,1.05236,1.05253,1.05221,1.05227.
    assert bars.iloc[0].tolist() == [1.05236, 1.05253, 1.05221, 1.05227]


def test_the_sample_reads_day_before_month():
    # 01.02.2017 is 1 February, a Wednesday with 24 bars; read month first, it would be 2 January.
    path = next(f for f in importlib.metadata.files("gym-anytrading") if f.name == "FOREX_EURUSD_1H_ASK.csv")
    lines = path.locate().read_text().splitlines()
    row = next(line for line in lines if line.startswith("01.02.2017 10:00"))
    bars = formats.read_sample().bars
    found = bars.loc[pd.Timestamp("2017-02-01T10:00", tz="UTC")]
    assert found.tolist() == [float(value) for value in row.split(",")[1:5]]
    assert len(bars.loc["2017-02-01"]) == 24
    assert np.all(np.diff(bars.index.asi8) > 0)


def test_the_sample_holds_no_saturday_noon():
    index = formats.read_sample().bars.index
    assert not ((index.day_of_week == 5) & (index.hour == 12)).any()


def test_numbers_are_read_as_python_reads_them():
    # Any finite double, and prices, with all the digits that they need; an inexact parser gets a quarter wrong.
    rng = np.random.default_rng(16)
    values = np.concatenate([rng.integers(0, 2**63, 40_000).view(np.float64), rng.uniform(0.5, 200, 40_000)])
    written = [repr(value) for value in values[np.isfinite(values)].tolist()]
    written = written[: len(written) // 4 * 4]
    rows = (",".join(["2017-01-02", *written[i : i + 4]]) for i in range(0, len(written), 4))
    raw = text.read_text((HEADER + "\n".join(rows)).encode(), "bars.csv", "bars.csv")
    expected = np.array([float(number) for number in written]).reshape(-1, 4)
    assert raw.sides[""].tobytes() == expected.tobytes()


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, PendingDeprecationWarning])
def test_a_deprecation_in_a_library_is_no_fault_of_the_file(write, monkeypatch, category):
    def read_csv(*args, **kwargs):
        warnings.warn("an option of a library is deprecated", category, stacklevel=2)
        return original(*args, **kwargs)

    original = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", read_csv)
    with pytest.warns(category):
        assert len(formats.read_bars(write(GOOD), "bid").bars) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(category):
            formats.read_sample()


def test_a_damaged_sample_is_named_and_is_no_missing_package(write, monkeypatch):
    path = write(GOOD.replace("1.", "x."))
    monkeypatch.setattr(formats, "_sample_path", lambda: path)
    with pytest.raises(DataError) as refused:
        formats.read_sample()
    assert not isinstance(refused.value, InputNotFoundError)
    assert str(path) in str(refused.value)


def test_a_missing_sample_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(formats, "_SAMPLE_PACKAGE", "no-such-package-here")
    with pytest.raises(InputNotFoundError, match=says("pip install gym-anytrading", "--data")):
        formats.read_sample()
