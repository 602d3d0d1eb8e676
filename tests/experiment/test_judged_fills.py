"""`judge fills.csv`: a ledger by hand, fills that the bars cannot have given, clocks and layouts of the table."""

import json

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner
from sac_kernel.cli.main import main
from sac_kernel.core import home_strings
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment import judged, judged_fills
from sac_kernel.experiment.judged_fills import Placed
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.fill_file import read_fills
from sac_kernel.prices.ingest.whole import WholeBars
from sac_kernel.prices.instruments import spec_of
from sac_kernel.stats import trials
from tests.conftest import make_bars
from tests.support import says

pytestmark = pytest.mark.usefixtures("blank_figures")

FREE = "spread_bps=0,commission_bps=0,slippage_bps=0,swap_long_bps=0,swap_short_bps=0"
PRICES = [  # open, high, low, close of 10:00 to 14:00
    (100.0, 101.0, 99.0, 100.0),
    (100.0, 103.0, 100.0, 102.0),
    (102.0, 106.0, 101.0, 105.0),
    (105.0, 105.0, 99.0, 100.0),
    (100.0, 101.0, 98.0, 99.0),
]
FILLS = """time,side,size,price,commission
2017-01-14T10:30:00Z,buy,500,100.5,10
2017-01-14T11:15:00Z,buy,250,101,5
2017-01-14T12:30:00Z,sell,1250,104,20
2017-01-14T13:30:00Z,buy,500,101,10
"""
"""Buy, add, reverse, close."""


def five(costs=FREE, side="mid", prices=PRICES, start="2017-01-14 10:00"):
    """Hours of a market that is open on Saturdays."""
    index = pd.date_range(start, periods=len(prices), freq="h", tz="UTC", name="open_time_utc").as_unit("ns")
    frame = pd.DataFrame(prices, index, columns=["open", "high", "low", "close"])
    bars = Bars(
        frame,
        side=side,
        seconds=3600,
        instrument="ABCUSD",
        spec=spec_of("ABCUSD", "crypto").with_costs(costs),
    )
    return WholeBars({"ABCUSD": bars}, "ABCUSD", "by hand", "UTC", ())


def write(folder, text, name="fills.csv"):
    (folder / name).write_text(text)
    return folder / name


def judge_text(folder, text, whole=None, **more):
    whole = whole or five()
    return judged_fills.judged_fills(write(folder, text), whole, whole.own, **more)


# -- five bars by hand


def test_the_account_as_filled_by_hand(tmp_path):
    (real,) = judge_text(tmp_path, FILLS, equity=100_000.0).also
    # 10:30 cash 49,740 with 500; 11:15 cash 24,485 with 750; 12:30 cash 154,465 with -500; 13:30 cash 103,955 with 0.
    assert real.equity.tolist() == [24_485 + 750 * 102, 154_465 - 500 * 105, 103_955, 103_955]
    assert real.cost_paid.tolist() == [15, 35, 45, 45]
    assert real.exposure == pytest.approx([76_500 / 100_985, -52_500 / 101_965, 0, 0], rel=1e-14)
    before = (100_000, 49_740 + 500 * 101, 24_485 + 750 * 104, 154_465 - 500 * 101)
    traded = (50_250, 25_250, 130_000, 50_500)
    assert real.turnover == pytest.approx(sum(t / b for t, b in zip(traded, before, strict=True)), rel=1e-14)
    assert real.trades == 4


def test_the_engine_follows_the_same_exposures_from_the_next_open_by_hand(tmp_path):
    whole = five()
    subject = judge_text(tmp_path, FILLS, whole, equity=100_000.0)
    e = (50_250 / 99_990, 75_750 / 100_235, -52_000 / 102_465, 0.0)
    assert subject.config.exposure_cap == 1.0
    assert subject.targets == pytest.approx(e, rel=1e-14)
    result = runner.run_targets(
        judged.market_of(whole.own, subject.config), subject.targets, 1e5, "x", "base"
    )
    # The opens of 11:00 to 14:00 are 100, 102, 105, 100; the closes 102, 105, 100, 99.
    units = e[0] * 100_000 / 100
    at_12 = 100_000 + units * 2
    equity = [at_12]
    units = e[1] * at_12 / 102
    at_13 = at_12 + units * 3
    equity.append(at_13)
    units = e[2] * at_13 / 105
    at_14 = at_13 + units * -5
    equity += [at_14, at_14]
    assert result.equity == pytest.approx(equity, rel=1e-13)


def test_the_difference_of_slippage_and_commission_by_hand(tmp_path):
    whole = five("spread_bps=4,commission_bps=3,slippage_bps=1,swap_long_bps=0,swap_short_bps=0")
    subject = judge_text(tmp_path, FILLS, whole, equity=100_000.0)
    found = subject.facts["compared"]
    notional = np.array([50_250, 25_250, 130_000, 50_500])
    paid = np.array([100.5 / 100 - 1, 101 / 102 - 1, -(104 / 105 - 1), 101 / 100 - 1])
    assert found["slippage_bps"]["as_filled"] == pytest.approx(
        1e4 * (notional @ paid) / notional.sum(), rel=1e-12
    )
    assert found["slippage_bps"]["engine"] == pytest.approx(2 + 1, rel=1e-12)
    assert found["commission_bps"]["as_filled"] == pytest.approx(1e4 * 45 / 256_000, rel=1e-12)
    assert found["commission_bps"]["engine"] == pytest.approx(3, rel=1e-12)
    assert found["net_return_frac"]["as_filled"] == subject.also[0].equity[-1] / 1e5 - 1
    # Marked at bids and asks two bps from mid, and flat at the end: the last figure is the same.
    assert subject.also[0].equity[-1] == 103_955
    assert subject.also[0].equity[0] == pytest.approx(24_485 + 750 * 102 * (1 - 2e-4), rel=1e-14)


def test_without_an_equity_the_account_begins_with_the_largest_notional(tmp_path):
    subject = judge_text(tmp_path, FILLS)
    assert subject.config.initial_equity == 750 * 101  # of 50,250, 75,750, 52,000, 0
    assert any("75,750" in note for note in subject.notes)
    assert subject.config.exposure_cap == 1.0  # 75,750 over 75,985
    # 500 at 100.5 are sold at 99, then 507 bought: 50,193 over 50,250 - 750.
    text = FILLS.splitlines()[0] + "\n2017-01-14T10:30Z,buy,500,100.5,0\n"
    text += "2017-01-14T10:40Z,sell,500,99,0\n2017-01-14T10:50Z,buy,507,99,0\n"
    subject = judge_text(tmp_path, text)
    assert subject.config.initial_equity == 50_250
    assert subject.config.exposure_cap == pytest.approx(507 * 99 / (50_250 - 750), rel=1e-14)


def test_a_fill_at_an_open_is_the_engines_own_and_a_second_one_before_the_next_replaces_it(tmp_path):
    whole = five()
    text = (
        FILLS.replace("10:30", "11:00")
        .replace("100.5", "100")
        .replace("12:30", "13:00")
        .replace("104", "105")
    )
    fills = read_fills(write(tmp_path, text), whole.spec)
    # At 11:00 and 13:00 exactly: decided at the closes before. 11:15 is taken up at 12:00, 13:30 at 14:00.
    assert Placed.on(fills, whole.own).decision.tolist() == [0, 1, 2, 3]
    assert Placed.on(fills, whole.own).mark.tolist() == [1, 1, 3, 3]
    text += "2017-01-14T13:45:00Z,buy,100,100.5,0\n2017-01-14T14:30:00Z,sell,100,100,0\n"
    subject = judge_text(tmp_path, text, whole, equity=1e5)
    assert len(subject.targets) == 4
    assert subject.targets[3] > 0  # 13:45 replaces 13:30; 14:30 has no open after it
    for template in (home_strings.WITHIN_BAR, home_strings.TOO_LATE):
        assert template.format(count=1) in subject.notes


def test_units_are_held_between_fills_and_not_rebalanced(tmp_path):
    text = "time,side,size,price\n2017-01-14T10:30Z,buy,500,100.5\n"
    subject = judge_text(tmp_path, text, equity=100_000.0)
    result = runner.run_targets(
        judged.market_of(five().own, subject.config), subject.targets, 1e5, "x", "base"
    )
    assert result.trades == 2  # in, and out at the end
    assert subject.targets.tolist() == [0.5025] * 4


# -- fills that the bars cannot have given


def lines_of(folder, rows, whole):
    text = "time,side,size,price\n" + "\n".join(rows) + "\n"
    fills = read_fills(write(folder, text), whole.spec)
    return [(one.line, one.key) for one in judged_fills.impossible(fills, whole.own)]


def test_each_impossible_fill_is_listed_with_its_line_and_reason(tmp_path):
    rows = [
        "2017-01-14T09:59:59Z,buy,1,100",  # 2
        "2017-01-14T10:30:00Z,buy,1,101.02",  # 3: the high is 101, a step .01
        "2017-01-14T10:30:00Z,buy,1,101.01",  # within a step
        "2017-01-14T11:30:00Z,sell,1,99.98",  # 5: the low is 100
        "2017-01-14T11:30:00Z,sell,0,101",  # 6
        "2017-01-14T11:30:00Z,sell,-2,101",  # 7
        "2017-01-14T11:30:00Z,sell,1,0",  # 8
        "2017-01-14T12:00:00Z,buy,1,100.5",  # between two bars: 100 to 103, or 101 to 106
        "2017-01-14T15:00:00Z,sell,1,99",  # the close of the last bar
        "2017-01-14T15:00:01Z,sell,1,99",  # 11
    ]
    listed = [
        (2, "before"),
        (3, "range"),
        (5, "range"),
        (6, "size"),
        (7, "size"),
        (8, "price"),
        (11, "after"),
    ]
    assert lines_of(tmp_path, rows, five()) == listed


def test_a_fill_in_a_hole_is_listed(tmp_path):
    whole = five()
    holed = whole.bars["ABCUSD"].drop(whole.own.index[2])
    whole = WholeBars({"ABCUSD": holed}, "ABCUSD", "by hand", "UTC", ())
    rows = [
        "2017-01-14T12:00:00Z,buy,1,102",
        "2017-01-14T12:00:01Z,buy,1,102",
        "2017-01-14T13:00:00Z,buy,1,104",
    ]
    assert lines_of(tmp_path, rows, whole) == [(3, "closed")]


@pytest.mark.parametrize(
    ("side", "buy", "sell"),
    [
        # Full spread 100 bps: raw .5 %, retail 2 %. The bar runs from 100 to 103.
        ("bid", (100 * 1.005, 103 * 1.02), (100.0, 103.0)),
        ("ask", (100.0, 103.0), (100 * 0.98, 103 * 0.995)),
        ("mid", (100.0, 103 * 1.01), (100 * 0.99, 103.0)),  # trades: a resting order may get any of them
    ],
)
def test_the_bar_allows_asks_for_buys_and_bids_for_sells(side, buy, sell, tmp_path):
    whole = five("spread_bps=100,commission_bps=0,slippage_bps=0", side)
    step = whole.spec.price_step
    for word, (low, high) in (("buy", buy), ("sell", sell)):
        at = "2017-01-14T11:30:00Z"
        prices = (low - 0.9 * step, low - 1.1 * step, high + 0.9 * step, high + 1.1 * step)
        rows = [f"{at},{word},1,{price!r}" for price in prices]
        assert lines_of(tmp_path, rows, whole) == [(3, "range"), (5, "range")]


def test_a_few_impossible_fills_are_listed_in_the_report_and_many_are_refused(tmp_path):
    text = FILLS + "2017-01-14T14:30:00Z,buy,0,99,0\n"
    subject = judge_text(tmp_path, text, equity=1e5)
    assert subject.facts["fills_impossible"] == 1
    assert subject.also[0].trades == 4
    table = next(t for t in subject.tables if t["title"] == home_strings.IMPOSSIBLE_TITLE)
    assert table["rows"] == [[6, "2017-01-14 14:30:00", home_strings.IMPOSSIBLE["size"].format(size=0)]]
    with pytest.raises(DataError, match=says("2 of 4", "line 2", "line 5", "--fills-clock")):
        judge_text(tmp_path, FILLS.replace("100.5", "90").replace("500,101,", "500,120,"))
    with pytest.raises(DataError, match=says("4 of 4")):
        judge_text(tmp_path, FILLS.replace("2017", "2018"))


# -- accounts that cannot be


def test_a_ruined_account_and_an_exposure_above_thirty_are_refused_with_the_line(tmp_path):
    with pytest.raises(DataError, match=says("line 2", "--equity", "30.2")):
        judge_text(tmp_path, "time,side,size,price\n2017-01-14T10:30Z,buy,500,100.5\n", equity=50_250 / 30.2)
    with pytest.raises(DataError, match=says("line 3", "--equity")):
        judge_text(tmp_path, FILLS.replace("250,101,", "250,99.99,").replace("100.5", "101"), equity=400.0)
    with pytest.raises(ConfigError, match=says("--equity", "-1.0")):
        judge_text(tmp_path, FILLS, equity=-1.0)


def test_what_is_held_at_the_beginning_is_refused_and_earlier_fills_are_left_aside(tmp_path):
    whole = five()
    path, at = write(tmp_path, FILLS), pd.Timestamp
    with pytest.raises(DataError, match=says("--from", "750")):
        judged_fills.judged_fills(path, whole, whole.own, start=at("2017-01-14 12:00Z"))
    later = "2017-01-14T14:10:00Z,buy,100,100,0\n"
    write(tmp_path, FILLS + later)
    start = at("2017-01-14 13:45Z")
    subject = judged_fills.judged_fills(
        path, whole, judged.rows_between(whole.own, at("2017-01-14 12:00Z"), None), start=start
    )
    assert subject.facts["fills_judged"] == 1
    assert home_strings.OTHER_TIMES.format(count=4) in subject.notes


# -- the table


def fills_of(folder, text, symbol="EURUSD", **clocks):
    return read_fills(write(folder, text), spec_of(symbol), **clocks)


def test_semicolons_decimal_commas_lots_and_a_stated_clock(tmp_path):
    text = "Time (EET);Symbol;Type;Lots;Price;Commission\n2017.01.16 12:00:05;EURUSD;buy;0,5;1,06123;-1,75\n"
    text += "2017.07.17 12:00:05;GBPUSD;buy;0,5;1,30;-1,75\n2017.07.17 12:00:05;EURUSD;sell;0,5;1,14500;0\n"
    fills = fills_of(tmp_path, text)
    assert fills.time.strftime("%m-%d %H:%M:%S").tolist() == ["01-16 10:00:05", "07-17 09:00:05"]  # EET, EEST
    assert fills.size.tolist() == [50_000.0, 50_000.0]
    assert fills.price.tolist() == [1.06123, 1.145]
    assert fills.cost.tolist() == [1.75, 0.0]
    assert fills.side.tolist() == [1.0, -1.0]
    assert fills.line.tolist() == [2, 4]


def test_fills_come_in_time_order_and_keep_their_lines(tmp_path):
    text = "header of a broker\ntime,side,qty,price,note\n\n2017-01-16T11:00+01:00,S,2,1.06,x\n"
    text += "2017-01-16T09:00+00:00,B,1,1.06,y\n"
    fills = fills_of(tmp_path, text)
    assert fills.line.tolist() == [5, 4]
    assert fills.time.strftime("%H:%M").tolist() == ["09:00", "10:00"]


@pytest.mark.parametrize(
    ("clocks", "hour"),
    [
        ({"clock": "Europe/London"}, 11),
        ({"other_clock": "UTC"}, 12),
        ({"clock": "mt-eet", "other_clock": "UTC"}, 9),
    ],
)
def test_a_clock_is_stated_and_never_guessed(clocks, hour, tmp_path):
    text = "time,side,size,price\n2017-07-17 12:00:00,buy,1,1.14\n"
    assert fills_of(tmp_path, text, **clocks).time[0].hour == hour
    with pytest.raises(DataError, match=says("--fills-clock", "2017-07-17 12:00:00")):
        fills_of(tmp_path, text)
    with pytest.raises(DataError, match=says("--fills-clock", "UTC", "mt-eet")):
        fills_of(tmp_path, text.replace("00,buy", "00Z,buy"), clock="mt-eet")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("time,side,volume,price\n2017-01-16Z,buy,1,1\n", ("size", "lots", "volume")),
        ("time,side,size,lots,price\n2017-01-16Z,buy,1,1,1\n", ("size", "lots")),
        ("time,size,price\n2017-01-16Z,1,1\n", ("side",)),
        ("side,size,price\nbuy,1,1\n", ("header",)),
        ("time,side,size,price\n", ("no fills",)),
        ("time,side,size,price\n2017-01-16T10:00Z,buy,1,1\n2017-01-16T10:00Z,long,1,1\n", ("line 3", "long")),
        ("time,side,size,price\n2017-01-16T10:00Z,buy,1\n", ("line 2", "3")),
        ("time,side,size,price\n2017-01-16T10:00Z,buy,,1\n", ("line 2", "size")),
        ("time,side,size,price\n2017-01-16T10:00Z,buy,x,1\n", ("'x'",)),
        ("time,side,size,price,fee,commission\n2017-01-16T10:00Z,buy,1,1,1,1\n", ("fee", "commission")),
        ("time,side,size,price,symbol\n2017-01-16T10:00Z,buy,1,1,GBPUSD\n", ("EURUSD", "GBPUSD")),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(text, named, tmp_path):
    with pytest.raises(DataError, match=says("fills.csv", *named)):
        fills_of(tmp_path, text)


# -- the command


def test_the_fills_of_a_run_judged_again_are_that_run(tmp_path):
    """As filled, the account lacks the commission and swap of the pass, which its fills.csv has in other columns."""
    make_bars(1800).rename_axis("time").to_csv(tmp_path / "EURUSD_H1.csv")
    policy = write(
        tmp_path,
        "import numpy as np\n\n\ndef target(o):\n    m = o['close'].rolling(120, min_periods=1).mean()\n"
        "    return 0.8 * np.sign(o['close'].rolling(24, min_periods=1).mean() - m)\n",
        "rule.py",
    )
    common = ["--data", str(tmp_path / "EURUSD_H1.csv"), "--price-side", "bid"]
    assert main(["judge", str(policy), *common, "--output", str(tmp_path / "rule")]) == 0
    made = tmp_path / "rule" / "fills.csv"
    words = ["judge", str(made), *common, "--equity", "100000", "--output", str(tmp_path / "again")]
    assert main(words) == 0
    first, again = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("rule", "again"))
    own, real = (
        next(row for row in summary["table"] if row["policy"] == name and row["tier"] == "base")
        for summary, name in ((first, "rule.py"), (again, home_strings.AS_FILLED.format(name="fills.csv")))
    )
    engine = next(row for row in again["table"] if row["policy"] == "fills.csv" and row["tier"] == "base")
    assert again["run"]["fills_impossible"] == 0
    fills = pd.read_csv(made)
    traded = (fills["size_units"] * fills["price"]).to_numpy()
    commission = 0.32e-4 * traded.sum()
    swap = again["run"]["compared"]["swap_frac"]["engine"] * 1e5
    extra = 1e5 * (real["net_return_frac"] - own["net_return_frac"])
    assert swap > 50  # weeks long and short
    assert extra == pytest.approx(commission + swap, rel=2e-3)
    assert engine["net_return_frac"] == pytest.approx(own["net_return_frac"], abs=2e-4)
    assert engine["trades"] == own["trades"]
    assert again["tables"][0]["title"] == home_strings.COMPARED_TITLE
    assert len(trials.read(tmp_path / "again" / "trials.csv")) == 1
    # One fill less is another version; judged into the folder of its own source it would replace it.
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("".join(made.read_text().splitlines(keepends=True)[:-2]))
    assert main(["judge", str(shorter), *words[2:]]) == 0
    assert len(trials.read(tmp_path / "again" / "trials.csv")) == 2
    assert main([*words[:-1], str(tmp_path / "rule")]) == 2
    assert pd.read_csv(made).equals(fills)


@pytest.mark.parametrize(
    "words", [["p.py", "--equity", "5"], ["p.py", "--fills-clock", "UTC"], ["p.xlsx"], ["none.csv"]]
)
def test_options_of_fills_belong_to_fills(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p.py", "p.xlsx"):
        write(tmp_path, "def target(o):\n    return [0.0] * len(o)\n", name)
    make_bars(300).rename_axis("time").to_csv(tmp_path / "EURUSD_H1.csv")
    assert main(["judge", *words, "--data", "EURUSD_H1.csv", "--price-side", "bid"]) == 2
    assert not (tmp_path / "outputs").exists()
