"""The compiled engine against a slow account in plain Python, on 800 random episodes.

The oracle keeps a cash ledger in the words of the design: quotes of both sides, orders at the ask or the
bid, a stop that is solved for instead of derived, limits looked up in the history of marks. It shares no line
with the engine. The long form: python -m tests.market.test_engine_oracle --episodes 20000
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from sac_kernel.market import engine, records
from sac_kernel.market.records import Account, Bar, Reward, blank, new_table

START = 1000.0
ESMA_MARGIN = 1.0 / 60.0
RISK_AVERSION, ETA = 5.0, 0.05


@dataclass
class Terms:
    side: str
    cap: float
    commission: float
    slippage: float
    swap_long: float
    swap_short: float
    stop: float
    profit: float
    interval: int
    close_at_end: bool
    impact: float
    daily_loss: float
    drawdown: float
    pause: int
    kill: float
    reward: str
    minutes: int
    no_trade_band: float


def quotes(price, spread, side):
    """Bid and ask of a price quoted on one side; the spread is a fraction of the quoted price."""
    if side == "bid":
        return price, price + price * spread
    if side == "ask":
        return price - price * spread, price
    return price - price * spread / 2, price + price * spread / 2


@dataclass
class Oracle:
    """One account in the quote currency, told bar after bar."""

    bars: list
    terms: Terms
    t: int
    left: int
    cash: float = START
    units: float = 0.0
    entry: float = 0.0
    target: object = None
    equity: float = START
    held: int = 0
    trades: int = 0
    close_outs: int = 0
    paid: dict = field(
        default_factory=lambda: {"spread": 0.0, "commission": 0.0, "slippage": 0.0, "swap": 0.0}
    )
    marks: list = field(default_factory=lambda: [START])
    days: list = field(default_factory=list)
    stopped_at: int = 0  # the mark from which the drawdown stop measures
    halts: list = field(default_factory=list)
    fair: list = field(default_factory=list)
    moments: tuple = (0.0, 0.0)
    ruined: bool = False
    over: bool = False

    def open_with(self, action):
        """A start at an exposure: bought or sold at mid for nothing, marked at the closing side."""
        row = self.bars[self.t]
        bid, ask = quotes(row["close"], row["spread_close"], self.terms.side)
        mid = (bid + ask) / 2
        self.units = action * self.terms.cap * row["cap_share"] * START / mid
        self.entry, self.target = mid, action
        self.days = [row["trading_day"]]
        self.moments = (
            (0.0, self.full_variance(row)) if self.terms.reward == "differential_sharpe" else (0, 0)
        )
        self.cash = START - self.liquidation(bid, ask)

    def liquidation(self, bid, ask):
        return self.units * (bid if self.units > 0 else ask)

    def full_variance(self, row):
        """Variance of a full position over a decision."""
        sd = self.terms.cap * row["cap_share"] * row["volatility"]
        return sd * sd * self.terms.interval

    def trade(self, units, bid, ask, slippage, resting=False):
        """Buy at the ask or sell at the bid, slipped against us, commission on the mid notional.

        Size moves the price by the square root of the units, at the volatility of a day of 24 bars as known
        before this bar; a resting limit order moves nothing.
        """
        order, mid = units - self.units, (bid + ask) / 2
        if order == 0:
            return
        if not resting:
            day_sigma = self.bars[self.t - 1]["volatility"] * math.sqrt(24)
            slippage = slippage + self.terms.impact * day_sigma * math.sqrt(abs(order))
        price = ask + slippage * mid if order > 0 else bid - slippage * mid
        size = abs(order)
        self.cash -= order * price
        self.cash -= self.terms.commission * size * mid
        self.paid["spread"] += size * (ask - bid) / 2
        self.paid["slippage"] += size * slippage * mid
        self.paid["commission"] += self.terms.commission * size * mid
        self.trades += 1
        same_way = units * self.units > 0
        if not same_way:
            self.entry, self.held = price, 0
        elif abs(units) > abs(self.units):
            value = self.entry * self.units + price * order
            self.entry = value / units
        self.units = units

    def pay_nights(self, nights, bid, ask):
        rate = self.terms.swap_long if self.units > 0 else self.terms.swap_short
        amount = nights * rate * abs(self.units) * (bid + ask) / 2
        self.cash -= amount
        self.paid["swap"] += amount

    def decide(self, action):
        before, row, self.decided = self.equity, self.bars[self.t], self.t
        order, self.fair = max(-1.0, min(1.0, action)), []
        if self.target is not None and (
            order == self.target or abs(order - self.target) < self.terms.no_trade_band
        ):
            order = None
        for _ in range(self.terms.interval):
            order = self.bar(order)
            if self.over:
                break
        return self.reward(np.log(self.equity / before), row)

    def reward(self, change, row):
        if self.terms.reward == "mean_variance":
            return change - RISK_AVERSION / 2 * change**2
        if self.terms.reward == "denoised":
            return sum(self.fair)
        if self.terms.reward == "differential_sharpe":
            a, b = self.moments
            self.moments = a + ETA * (change - a), b + ETA * (change**2 - b)
            variance = max(b - a**2, 0.01 * self.full_variance(row))
            return (b * (change - a) - a * (change**2 - b) / 2) / variance**1.5
        return change

    def bar(self, order):
        """One bar; return the order if it still waits for an open at which it may be filled."""
        self.t += 1
        self.left -= 1
        row, terms, before = self.bars[self.t], self.terms, self.equity
        worth, fees, exits = self.worth_at_mid(self.t - 1, "close"), sum(self.paid.values()), self.exits_seen
        bid, ask = quotes(row["open"], row["spread_open"], terms.side)
        self.pay_nights(row["nights_gap"], bid, ask)
        if self.must_be_flat(row["trading_day"]):
            if self.units:
                self.trade(0.0, bid, ask, terms.slippage)
                self.target = None
        elif order is not None and row["tradable"] and self.cash + self.liquidation(bid, ask) > 0:
            self.follow(order, bid, ask)
            order = None
        held, mid = self.units, (bid + ask) / 2
        self.exits(row)
        bid, ask = quotes(row["close"], row["spread_close"], terms.side)
        self.pay_nights(row["nights_bar"], bid, ask)
        last = self.t == len(self.bars) - 1 or self.left <= 0
        if last and terms.close_at_end:
            self.trade(0.0, bid, ask, terms.slippage)
        self.equity = self.cash + self.liquidation(bid, ask)
        # What the market gave: the change of worth at mid, with all that was paid put back.
        gained = self.worth_at_mid(self.t, "close") - worth + sum(self.paid.values()) - fees
        if self.equity < 0.01 * START:
            self.equity = max(self.equity, 0.001 * START)
            self.cash, self.units, self.ruined = self.equity, 0.0, True
        if self.ruined or self.exits_seen > exits:
            self.fair.append(np.log(self.equity / before))
        else:
            hoped = held * mid * (np.exp(self.bars[self.decided]["return_forecast"]) - 1)
            self.fair.append(np.log(max(self.equity - gained + hoped, 0.001 * START) / before))
        self.marks.append(self.equity)
        self.days.append(row["trading_day"])
        self.check_limits()
        self.held = self.held + 1 if self.units else 0
        self.over = last or self.ruined
        return order

    exits_seen: int = 0

    def worth_at_mid(self, t, moment):
        row = self.bars[t]
        return self.cash + self.units * sum(quotes(row[moment], row[f"spread_{moment}"], self.terms.side)) / 2

    def must_be_flat(self, day):
        return any(day < end for end in self.halts)

    def check_limits(self):
        """Look the limits up in the history of closes: this day's first equity, the peak, the start."""
        terms, today = self.terms, self.days[-1]
        earlier = [m for m, day in zip(self.marks[1:], self.days[1:], strict=True) if day < today]
        morning = earlier[-1] if earlier else START
        if terms.daily_loss and self.equity <= morning * (1 - terms.daily_loss):
            self.halts.append(today + 1)
        if terms.drawdown and self.equity <= max(self.marks[self.stopped_at :]) * (1 - terms.drawdown):
            self.halts.append(today + 1 + terms.pause)
            self.stopped_at = len(self.marks) - 1
        if terms.kill and self.equity <= START * (1 - terms.kill):
            self.halts.append(math.inf)

    def follow(self, target, bid, ask):
        equity = self.cash + self.liquidation(bid, ask)
        full = self.terms.cap * self.bars[self.t - 1]["cap_share"]
        self.target = target
        self.trade(target * full * equity / ((bid + ask) / 2), bid, ask, self.terms.slippage)

    def exits(self, row):
        """Stop or margin first, then profit; at the level, or at the open where that lies beyond.

        Where the minutes of the bar are known, minute by minute.
        """
        for minute in row["minutes"] or [(row["open"], row["high"], row["low"])]:
            if self.units != 0 and minute is not None:
                self.exit_within(row, *minute)

    def exit_within(self, row, opened, high, low):
        terms, long = self.terms, self.units > 0
        closing = 0 if long else 1  # a long sells at the bid, a short buys at the ask

        def at(price):
            return quotes(price, row["spread_open"], terms.side)[closing]

        opened, low, high = at(opened), at(low), at(high)
        margin = self.margin_price()
        stop = margin
        if terms.stop and long:
            stop = max(stop, self.entry - self.entry * terms.stop)
        if terms.stop and not long:
            stop = min(stop, self.entry + self.entry * terms.stop)
        profit = self.entry + self.entry * terms.profit * (1 if long else -1)
        if low <= stop if long else high >= stop:
            self.close_outs += stop == margin
            self.leave(min(opened, stop) if long else max(opened, stop), row, terms.slippage)
        elif terms.profit and (high >= profit if long else low <= profit):
            self.leave(max(opened, profit) if long else min(opened, profit), row, 0.0, resting=True)

    def margin_price(self):
        """The closing price where equity less the required margin is zero: a line through two points."""

        def excess(price):
            return self.cash + self.units * price - ESMA_MARGIN * abs(self.units) * price

        slope = excess(1.0) - excess(0.0)
        return -excess(0.0) / slope

    def leave(self, price, row, slippage, resting=False):
        """Close at `price`, which is the bid of a long or the ask of a short, at the open's spread."""
        bid, ask = quotes(row["open"], row["spread_open"], self.terms.side)
        width = ask - bid
        both = (price, price + width) if self.units > 0 else (price - width, price)
        self.trade(0.0, *both, slippage, resting)
        self.target = None
        self.exits_seen += 1


def random_bars(rng, n, volatility, gaps, minutes):
    """Bars with jumps between them, changing spreads, nights, frozen opens and days; some with minutes."""
    rows, close, day = [], 1.0, 100.0
    for _ in range(n):
        jump = rng.normal(0, volatility * 2) if rng.random() < gaps else 0.0
        opened = close * np.exp(jump)
        path = opened * np.exp(np.cumsum(rng.normal(0, volatility / 2, 6)))
        close = path[-1]
        day += float(rng.choice([0, 0, 0, 1, 3]))
        # The path in six pieces, each from where the last ended; the second one may be missing.
        edges = [opened, *path]
        pieces = [(a, max(a, b), min(a, b)) for a, b in pairwise(edges)]
        if rng.random() < 0.3:
            pieces[1] = None
        rows.append(
            {
                "open": opened,
                "high": max(opened, *path),
                "low": min(opened, *path),
                "close": close,
                "spread_open": rng.uniform(0, 1e-3),
                "spread_close": rng.uniform(0, 1e-3),
                "nights_gap": float(rng.choice([0, 0, 0, 1, 3])),
                "nights_bar": float(rng.choice([0, 0, 0, 1, 3])),
                "tradable": float(rng.random() < 0.85),
                "trading_day": day,
                "volatility": rng.uniform(0.5, 2) * volatility,
                "cap_share": rng.uniform(0.1, 1),
                "return_forecast": rng.normal(0, volatility),
                "minutes": pieces if minutes and rng.random() < 0.7 else None,
            }
        )
    return rows


def random_targets(rng, n):
    """Targets that stay, turn, go flat and overshoot."""
    palette = np.array([-1.5, -1.0, -0.5, 0.0, 0.3, 1.0, 1.0])
    fresh = np.where(rng.random(n) < 0.5, rng.choice(palette, n), rng.uniform(-1, 1, n))
    keep = rng.random(n) < 0.4
    for i in range(1, n):
        fresh[i] = fresh[i - 1] if keep[i] else fresh[i]
    return fresh


def engine_form(rows, terms):
    bars = new_table(Bar, len(rows))
    for name in bars.dtype.names:
        bars[name] = [row[name] for row in rows]
    minutes = np.empty((len(rows), 0), records.MINUTE_DTYPE)
    if terms.minutes:
        nothing = (np.nan,) * 3
        inside = [[tuple(piece or nothing) for piece in row["minutes"] or [nothing] * 6] for row in rows]
        minutes = np.array(inside, records.MINUTE_DTYPE)
    par = blank(records.Terms)
    par.price_side = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[terms.side]
    par.exposure_cap, par.interval_bars = terms.cap, terms.interval
    par.commission, par.slippage = terms.commission, terms.slippage
    par.swap_long, par.swap_short = terms.swap_long, terms.swap_short
    par.stop_loss, par.take_profit = terms.stop, terms.profit
    par.close_out_margin = ESMA_MARGIN
    par.close_at_end = terms.close_at_end
    par.bars_per_day = 24
    par.impact, par.no_trade_band = terms.impact, terms.no_trade_band
    par.daily_loss_limit, par.drawdown_stop = terms.daily_loss, terms.drawdown
    par.kill_loss, par.drawdown_pause_days = terms.kill, terms.pause
    par.reward = Reward[terms.reward.upper()]
    par.risk_aversion, par.sharpe_rate = RISK_AVERSION, ETA
    return bars, minutes, par


def random_terms(rng):
    """Terms of one account: leverage is drawn high, because margin and ruin need it."""

    def pick(*values):
        return values[rng.integers(len(values))]

    return Terms(
        side=pick("bid", "ask", "mid"),
        cap=pick(0.5, 1.0, 5.0, 15.0, 30.0, 30.0),
        commission=pick(0.0, 3e-5, 5e-4),
        slippage=pick(0.0, 2e-5, 5e-4),
        swap_long=pick(0.0, 6e-5, -3e-5),
        swap_short=pick(0.0, 3e-5),
        stop=pick(0.0, 0.002, 0.01, 0.05),
        profit=pick(0.0, 0.003, 0.01),
        interval=pick(1, 2, 3),
        close_at_end=pick(True, False),
        impact=pick(0.0, 0.0, 1e-3),
        daily_loss=pick(0.0, 0.0, 0.02, 0.1),
        drawdown=pick(0.0, 0.0, 0.05, 0.2),
        pause=pick(0, 1, 2, 3, 4),
        kill=pick(0.0, 0.0, 0.1, 0.5),
        reward=pick("log_return", "mean_variance", "differential_sharpe", "denoised"),
        minutes=pick(True, False),
        no_trade_band=pick(0.0, 0.0, 0.2, 0.5),
    )


def compare_an_episode(seed):
    """Run one random episode on both accounts, compare after every decision, and count what happened in it."""
    rng = np.random.default_rng(seed)
    terms, n, left = random_terms(rng), int(rng.integers(3, 61)), int(rng.integers(1, 81))
    rows = random_bars(
        rng, n, rng.choice([0.0005, 0.003, 0.01, 0.03, 0.1]), rng.choice([0.0, 0.1, 0.5]), terms.minutes
    )
    start = float(rng.choice([0.0, 0.0, 0.6, -1.0]))
    bars, minutes, par = engine_form(rows, terms)
    oracle = Oracle(rows, terms, 0, left)
    oracle.open_with(start)
    state = blank(Account)
    engine.reset(state, bars, par, 0, left, START, start)
    for target in random_targets(rng, n):
        reward, expected = engine.step(state, bars, minutes, par, target), oracle.decide(target)
        assert reward == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert state.equity == pytest.approx(oracle.equity, rel=1e-9)
        assert state.units == pytest.approx(oracle.units, rel=1e-9, abs=1e-9)
        assert state.cash == pytest.approx(oracle.cash, rel=1e-9, abs=1e-9 * START * terms.cap)
        assert bool(state.terminated) is oracle.ruined
        assert bool(state.terminated or state.truncated) is oracle.over
        assert (state.t, state.bars_left, state.bars_held) == (oracle.t, oracle.left, oracle.held)
        assert (state.trades, state.close_outs) == (oracle.trades, oracle.close_outs)
        assert (state.reward_mean, state.reward_square) == pytest.approx(oracle.moments, abs=1e-9)
        assert state.halted_until == max([0.0, *oracle.halts])
        if oracle.over:
            break
    assert state.entry_price == pytest.approx(oracle.entry, rel=1e-9)
    for kind, paid in oracle.paid.items():
        assert state[f"{kind}_paid"] == pytest.approx(paid, rel=1e-9, abs=1e-9)
    peaks = np.maximum.accumulate(oracle.marks)
    assert state.max_drawdown == pytest.approx(np.max(1 - np.array(oracle.marks) / peaks), abs=1e-9)
    return Counter(
        close_outs=oracle.close_outs,
        ruined=oracle.ruined,
        exits=oracle.exits_seen,
        frozen=any(not row["tradable"] for row in rows),
        cut=oracle.t < n - 1 and not oracle.ruined,
        halted=bool(oracle.halts),
        killed=math.inf in oracle.halts,
        minutes=terms.minutes and oracle.exits_seen > 0,
    )


def compare(first, episodes):
    """Compare the episodes of so many seeds from `first` on, and return how often each rare event happened."""
    seen = Counter()
    for seed in range(first, first + episodes):
        try:
            seen.update(compare_an_episode(seed))
        except AssertionError as err:
            err.add_note(f"episode of seed {seed}")
            raise
    return seen


def test_the_engine_agrees_with_the_oracle_bar_by_bar():
    seen = compare(0, 800)
    # The comparison means something only if the rare events happened.
    assert min(seen.values()) >= 5, seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="compare the engine with the oracle on random episodes")
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=800, help="seed of the first episode")
    args = parser.parse_args()
    print(f"equal to 1e-9; events: {dict(compare(args.first, args.episodes))}")  # noqa: T201  # a command
