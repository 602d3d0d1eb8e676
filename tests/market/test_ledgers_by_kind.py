"""Five bars of each kind by hand: what a full position pays at its fills and at each rollover.

Prices are constant mid prices, so the account loses its costs alone. Equity 100,000: one bps of it is 10.
"""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest.runner import run_targets
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.instruments import spec_of

TUESDAY, WEDNESDAY, FRIDAY = ("2017-01-10", "2017-01-11", "2017-01-13")
EVENING = ("19:00", "20:00", "21:00", "22:00", "23:00")  # 14:00 to 19:00 New York


def ledger(symbol, times, side, kind="", price=50.0, seconds=3600):
    index = pd.DatetimeIndex(times, tz="UTC", name="open_time_utc")
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), price), index)
    bars = Bars(frame, side="mid", seconds=seconds, instrument=symbol, spec=spec_of(symbol, kind))
    nothing = pd.DataFrame({"none": np.zeros(5, np.float32)}, index)
    market = prepare_market(bars, nothing, TradingEnvConfig(), close_at_end=True)
    result = run_targets(market, np.full(4, float(side)), 100_000.0, "by hand", "base")
    paid = {name: value for name, value in result.costs.items() if value}
    assert 100_000.0 - result.equity[-1] == pytest.approx(sum(paid.values()), abs=1e-8)
    return paid


def evening(day):
    return [f"{day} {hour}" for hour in EVENING]


@pytest.mark.parametrize(
    ("symbol", "day", "side", "paid"),
    [
        # Entry at 15:00 New York: half of .55; exit at 19:00: half of .55 x 2 (18:30 to 19:00). One night of .6 bps.
        ("EURUSD", TUESDAY, 1, {"spread": 2.75 + 5.5, "commission": 6.4, "slippage": 3.1, "swap": 6.0}),
        ("EURUSD", TUESDAY, -1, {"spread": 2.75 + 5.5, "commission": 6.4, "slippage": 3.1, "swap": 3.0}),
        ("EURUSD", WEDNESDAY, 1, {"spread": 2.75 + 5.5, "commission": 6.4, "slippage": 3.1, "swap": 18.0}),
        ("XAUUSD", WEDNESDAY, 1, {"spread": 3.1 + 12.4, "commission": 7.0, "slippage": 6.0, "swap": 42.0}),
        ("US30", WEDNESDAY, 1, {"spread": 5.3 + 10.6, "slippage": 6.0, "swap": 14.0}),
        ("US30", FRIDAY, 1, {"spread": 5.3 + 10.6, "slippage": 6.0, "swap": 42.0}),
    ],
)
def test_fx_and_metals_pay_three_nights_on_wednesday_indices_on_friday(symbol, day, side, paid):
    assert ledger(symbol, evening(day), side) == pytest.approx(paid, abs=1e-9)


def test_crypto_trades_on_saturday_and_pays_funding_every_eight_hours():
    saturday = [f"2017-01-14 {hour:02d}:00" for hour in (0, 4, 8, 12, 16)]
    # Filled at 04:00; funding of 1 bp at 08:00 and 16:00. Fills: half of 1, 10 and 1 bps.
    paid = {"spread": 10.0, "commission": 200.0, "slippage": 20.0, "swap": 20.0}
    assert ledger("BTCUSD", saturday, 1, seconds=14_400) == pytest.approx(paid, abs=1e-9)
    del paid["swap"]
    assert ledger("BTCUSD", saturday, -1, seconds=14_400) == pytest.approx(paid, abs=1e-9)


def test_a_share_pays_nothing_at_the_close_and_a_short_its_borrow_over_the_weekend():
    times = ["2017-01-06 19:30", "2017-01-06 20:30", *(f"2017-01-09 {h}:30" for h in (14, 15, 16))]
    # 2,000 shares at 50 x USD .005; fills at 15:30 and 12:30 New York at half of 3 bps.
    paid = {"spread": 30.0, "commission": 20.0, "slippage": 20.0}
    assert ledger("ABC", times, 1, "equity") == pytest.approx(paid, abs=1e-9)
    assert ledger("ABC", times, -1, "equity") == pytest.approx({**paid, "swap": 3.0}, abs=1e-9)


def test_a_daily_bar_of_fx_is_filled_at_its_open():
    times = [f"2017-01-{day:02d} 22:00" for day in (8, 9, 10, 11, 12)]  # Sunday to Thursday, 17:00 New York
    paid = ledger("EURUSD", times, 1, seconds=86_400)
    # Held from Monday 17:00 to Friday 17:00: Tuesday, Wednesday three times, Thursday, Friday.
    assert paid["swap"] == pytest.approx(6.0 * 6, abs=1e-9)
    # The open of 17:00 has ten times the spread, the close before 17:00 the normal one.
    assert paid["spread"] == pytest.approx(27.5 + 2.75, abs=1e-9)
