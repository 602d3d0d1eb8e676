"""Paper trading: a saved agent on a feed of bars, filled by the backtest's engine, with a crash-safe journal.

The command and its options are in `cli.paper`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.backtest import drift
from sac_kernel.core import files, home_strings, interrupts
from sac_kernel.core.errors import CheckpointError
from sac_kernel.features.indicators import price_columns
from sac_kernel.features.pipeline import warmup_bars
from sac_kernel.live import model_store, paper_page
from sac_kernel.live.account_values import account_from_plain, account_to_plain
from sac_kernel.live.decide import Decider, Decision
from sac_kernel.live.feed import BarFiles
from sac_kernel.live.journal import Journal
from sac_kernel.live.paper_fills import TrainingCosts, fills_of_newest_bar
from sac_kernel.live.paper_page import Standing
from sac_kernel.market import engine, risk_limits
from sac_kernel.market.account import account_terms
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import MINUTE_DTYPE, Account, Fill, blank, join, new_table
from sac_kernel.prices.bars import PRICE_COLUMNS, open_seconds
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.report import sections
from sac_kernel.stats import evidence

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.market.market import Market
    from sac_kernel.market.records import AccountReport, Records, Terms
    from sac_kernel.prices.bars import BarsByInstrument
    from sac_kernel.prices.processed_file import ProcessedData
    from sac_kernel.stats.evidence import Evidence

    FloatArray = NDArray[np.float64]

logger = logging.getLogger(__name__)

JOURNAL_FILE, KILL_FILE, PAGE_FILE = "journal.jsonl", "KILL", "paper.html"

_NO_MINUTES = np.empty((0, 0), MINUTE_DTYPE)
LIMITS = ("daily_loss_limit", "drawdown_stop", "kill_loss")
_SCHEMA = 1
_NO_END = 2.0**53  # bars until truncation: a feed has no end
_POLL_S = 1.0
_SYNC_EVERY = 1000  # lines of a replay at full speed


class PaperAccount:
    """An account that follows a decider from close to close with the backtest's engine.

    Within a decision interval every close is computed from the account at the decision, so orders wait and lapse
    as they do in a backtest's step.

    Parameters
    ----------
    decider : has taken in every bar before the account's first
    start_equity : account currency
    limits : name in `LIMITS` -> fraction that replaces the agent's own
    """

    def __init__(self, decider: Decider, start_equity: float, limits: dict[str, float]) -> None:
        self.decider, self.start_equity = decider, start_equity
        # Nothing here uses the reward, and 'denoised' cannot be combined with limits.
        reward = decider.config.reward.replace("denoised", "log_return")
        changes: dict[str, Any] = {**limits, "reward": reward}
        config = dataclasses.replace(decider.config, **changes)
        self._terms, self._closing = (
            account_terms(
                config, decider.price_side, decider.bar_seconds, close_at_end=end, spec=decider.spec
            )
            for end in (False, True)
        )
        self.largest_loss = evidence.largest_daily_loss(config.exposure_cap, config.daily_loss_limit)
        self.now = blank(Account)
        self.target = 0.0
        self.due = False
        self._base, self._order = self.now, 0.0
        self._bars = -1  # closed since the base; -1 before the first

    @property
    def over(self) -> bool:
        """Return whether the account is ruined."""
        return bool(self.now.terminated)

    def close_bar(self) -> Decision | None:
        """Bring the account to the close of the decider's newest bar; return the decision if one is due."""
        rows = self.decider.rows
        if self._bars < 0:
            left = int(_NO_END)
            engine.reset(self.now, rows, self._terms, len(rows) - 1, left, self.start_equity, 0.0)
            self._bars, self.due = 0, True
        else:
            if self.due:
                self._base, self._order, self._bars = self.now, self.target, 0
            self._bars += 1
            self.now = self._stepped(self._terms)
            self.due = self._bars == self.decider.interval_bars
        if not self.due or self.over:
            return None
        decision = self.decider.decide_here(self.now)
        self.target = decision.action  # the engine lets it wait or lapse
        return decision

    def kill(self) -> None:
        """Close the position at the next open and stay flat: the manual kill switch."""
        until, day = self.now.halted_until, self.decider.rows["trading_day"][-1]
        self.now.halted_until = risk_limits.halted_until(until, day, False, False, 0.0, True)
        self.due = True

    def resume(self, state: Account, target: float) -> None:
        """Continue from an account at which a decision was due; the decider has taken in that bar."""
        self.now, self.target = state, target
        self._bars, self.due = 0, True

    def report(self) -> AccountReport:
        """Return the account's figures."""
        here = self.now.copy()
        here.t = len(self.decider.rows) - 1
        return engine.report(here, self.decider.rows, self._terms)

    def fills(self) -> Records:
        """Return the fills of the newest bar."""
        base = self._base.copy()
        base.t = len(self.decider.rows) - 1 - self._bars
        if self._bars == 0:  # a decision, or the start
            return new_table(Fill, 0)
        return fills_of_newest_bar(base, self.decider.rows, self._terms, self._order)

    def equity_if_closed(self) -> float:
        """Return equity after closing the position at this close, costs included, as a backtest that ends here does."""
        return float((self._stepped(self._closing) if self._bars > 0 else self.now).equity)

    def _stepped(self, terms: Terms) -> Account:
        state, rows = self._base.copy(), self.decider.rows
        state.t = len(rows) - 1 - self._bars
        engine.step(state, rows, _NO_MINUTES, terms, self._order)
        state.truncated = 0.0  # the bars end here for now
        return state


class PaperSession:
    """The account of one journal: new, or continued where the journal ends.

    Parameters
    ----------
    account : a new one
    journal : of this account, or empty
    facts : plain values that must not change while the session lasts
    kill_file : the kill switch is on while this file exists
    """

    def __init__(
        self, account: PaperAccount, journal: Journal, facts: dict[str, Any], kill_file: Path
    ) -> None:
        self.account, self.decider, self.journal = account, account.decider, journal
        self._kill_file = kill_file
        self._training_costs = TrainingCosts(self.decider)
        self._rows: list[tuple[Records, NDArray[np.float32]]] = []
        self._times: list[pd.Timestamp] = []
        self._equity: list[float] = []
        if not journal.lines:
            journal.append({"schema": _SCHEMA, **facts})
        else:
            self._check_same(facts)

    @property
    def last_time(self) -> pd.Timestamp | None:
        """Return the open time of the last bar in the journal or taken since; None before the first."""
        if self._times:
            return self._times[-1]
        lines = self.journal.lines[1:]
        return pd.Timestamp(lines[-1]["open_time_utc"]) if lines else None

    def restore(self, bars: BarsByInstrument) -> None:
        """Take in the bars of the journal and continue where it ends.

        Raises
        ------
        CheckpointError
            If a bar is missing or has changed, or the account comes out different, so code or engine has changed.
        """
        lines = self.journal.lines[1:]
        if not lines:
            return
        self._equity = [line["equity"] for line in lines]
        own = bars[self.decider.instrument]
        times = pd.DatetimeIndex([line["open_time_utc"] for line in lines])
        own = own[(own.index >= times[0]) & (own.index <= times[-1])]
        self._check_bars(own, times, np.asarray([line["bar"] for line in lines]))
        last = max(i for i, line in enumerate(lines) if "account" in line)
        others = {n: b for n, b in bars.items() if n != self.decider.instrument}
        self._take({**others, self.decider.instrument: own.iloc[: last + 1]})
        asked = lines[last].get("asked", lines[last]["target"])
        self.account.resume(account_from_plain(lines[last]["account"]), float(asked))
        for line, k in zip(lines[last + 1 :], range(last + 1, len(own)), strict=True):
            self._take(
                {**{n: b.iloc[:0] for n, b in others.items()}, self.decider.instrument: own.iloc[k : k + 1]}
            )
            self.account.close_bar()
            self._check_equity(line)

    def take(self, bars: BarsByInstrument) -> Decision | None:
        """Take in one closed bar, decide if a decision is due, and write to the journal before anything is shown."""
        self._take(bars)
        decision = self.account.close_bar()
        state = self.account.now
        if self._kill_file.is_file() and not math.isinf(state.halted_until):
            self.account.kill()
        own, figures = bars[self.decider.instrument], self.account.report()
        line: dict[str, Any] = {
            "open_time_utc": own.index[-1].isoformat(),
            "bar": own[list(PRICE_COLUMNS)].to_numpy()[-1].tolist(),
            "equity": float(state.equity),
            "exposure": float(figures.position),
            "halted": risk_limits.is_halted(state.halted_until, self.decider.rows["trading_day"][-1]),
            "units": float(state.units),
            "open_profit": float(state.equity - state.cash - state.units * state.entry_price),
            "costs": float(figures.costs),
        }
        newest = self.account.fills()
        if newest.size:
            line["fills"] = self._training_costs.plain(newest, self.decider.rows[-1], open_seconds(own)[-1])
        if self.account.due:
            line["asked"] = self.account.target
            line["target"] = self.account.target if decision is None else decision.target
            line["account"] = account_to_plain(state)
        if decision is not None:
            line["why"] = {
                k: v
                for k, v in decision.plain().items()
                if k in ("high_vol_prob", "out_of_range", "limits") and v
            }
        self.journal.append(line)
        self._equity.append(line["equity"])
        return decision

    def as_market(self) -> Market:
        """Return the bars of the account so far as a market."""
        rows, observed = zip(*self._rows, strict=True)
        return self.decider.as_market(join(rows), np.concatenate(observed), pd.DatetimeIndex(self._times))

    def evidence(self) -> Evidence:
        """Return the evidence for an edge of the account's complete days."""
        equity = np.array(self._equity, np.float64)
        day = np.concatenate([rows["trading_day"] for rows, _ in self._rows]).astype(np.int64)
        return evidence.of_equity(equity, day, self.account.start_equity, self.account.largest_loss)

    def _take(self, bars: BarsByInstrument) -> None:
        self._rows.append(self.decider.append(bars))
        self._times += list(bars[self.decider.instrument].index)

    def _check_same(self, facts: dict[str, Any]) -> None:
        saved = self.journal.lines[0]
        changed = [k for k, v in {"schema": _SCHEMA, **facts}.items() if saved.get(k) != v]
        if changed:
            changes = "; ".join(f"{k} was {saved.get(k)!r}, is {facts.get(k)!r}" for k in changed)
            msg = f"{self.journal.path} began with other settings: {changes}. Restore them, or use a new --journal."
            raise CheckpointError(msg)

    def _check_bars(self, own: pd.DataFrame, times: pd.DatetimeIndex, prices: FloatArray) -> None:
        same = len(own) == len(times) and bool((own.index == times).all())
        if not same or not np.array_equal(own[list(PRICE_COLUMNS)].to_numpy(), prices):
            wrong = ~(own.reindex(times)[list(PRICE_COLUMNS)].to_numpy() == prices).all(axis=1)
            when = times[int(np.argmax(wrong))] if wrong.any() else "an added bar"
            msg = (
                f"--bars differs from the {len(times)} bars in {self.journal.path}: it has {len(own)} over that time, "
                f"and the first difference is at {when}. Use the same --bars, or a new --journal."
            )
            raise CheckpointError(msg)

    def _check_equity(self, line: dict[str, Any]) -> None:
        equity = float(self.account.now.equity)
        if equity != line["equity"]:
            msg = (
                f"{self.journal.path}: equity at {line['open_time_utc']} is {line['equity']!r}, but replaying the "
                f"journal gives {equity!r}. The code, the engine or the bars have changed: use a new --journal."
            )
            raise CheckpointError(msg)


class Watch:
    """The terminal output: one line a bar, and a daily summary with drift.

    Parameters
    ----------
    session : the account
    train : the market that the agent was trained on, for the drift check
    quiet : show the summaries only
    """

    def __init__(self, session: PaperSession, train: Market, *, quiet: bool) -> None:
        self._session, self._train, self._quiet = session, train, quiet
        self._day = math.nan

    def show(self, decision: Decision | None) -> None:
        """Show the newest bar."""
        account = self._session.account
        day, figures = account.decider.rows["trading_day"][-1], account.report()
        if not self._quiet:
            target = "" if decision is None else f"  target {decision.target:+.3f}"
            why = "" if decision is None else "; ".join((*decision.limits, *_beyond(decision)))
            logger.info(
                "%s  %.5f  equity %s  exposure %+.3f%s%s", self._session.last_time, account.decider.rows["close"][-1],
                f"{figures.equity:,.2f}", figures.position, target, f"  [{why}]" if why else "",
            )  # fmt: skip
        if day != self._day and not math.isnan(self._day):
            logger.info("%s", "  ".join(self.summary()))
        self._day = day

    def summary(self) -> list[str]:
        """Return equity, exposure, drawdown, costs, drift and evidence for an edge, one text each."""
        f = self._session.account.report()
        return [
            f"{self._session.last_time:%Y-%m-%d %H:%M}",
            f"equity {f.equity:,.2f} ({100.0 * f.total_return:+.2f} %)",
            f"exposure {f.position:+.3f}",
            f"max drawdown {100.0 * f.max_drawdown:.2f} %",
            f"costs {f.costs:,.2f}",
            f"trades {f.trades:.0f}",
            *(["HALTED"] if f.halted else []),
            self.drift(),
            str(self._session.evidence()),
        ]

    def standing(self, *, live: bool) -> Standing:
        """Return what the page shows beside the journal."""
        session = self._session
        return Standing(
            session.evidence(), self.drift(), session.decider.bar_seconds, session.decider.spec, live
        )

    def drift(self) -> str:
        """Return the result of the drift check with the series that alarmed, or the days seen so far."""
        watched = sections.watched_series(self._train, self._session.as_market())
        days = min(series.now.size for series in watched.values())
        if days < drift.MIN_DAYS:
            return f"drift: {days} of {drift.MIN_DAYS} days"
        result = drift.check(watched)
        alarms = list(dict.fromkeys(row["name"] for row in result["rows"] if row["alarm"]))
        return f"drift: {result['word']}" + (f" ({', '.join(alarms[:3])})" if alarms else "")


def _beyond(decision: Decision) -> list[str]:
    names = list(decision.out_of_range)
    return (
        [home_strings.NEVER_SEEN.format(name=", ".join(names[:3]) + (" ..." if len(names) > 3 else ""))]
        if names
        else []
    )


def history_before(data: ProcessedData, feed: BarsByInstrument, start: pd.Timestamp) -> BarsByInstrument:
    """Return all bars before the account's first: those of the processed file, then those of the feed.

    Where the two overlap, the bars of the feed are used.
    """
    history = {}
    for name, part in feed.items():
        older = pd.concat([split[name] for split in data.splits.values() if name in split])
        older = older[older.index < min(part.index[0], start)]
        history[name] = pd.concat([older, part[part.index < start]])
    return history


class Opened(NamedTuple):
    """A session ready to continue: its feed, the open time of its last bar, the market its agent was trained on."""

    session: PaperSession
    feed: BarFiles
    after: pd.Timestamp
    train: Market


def open_session(args: argparse.Namespace) -> Opened:
    """Return the session of the command line: a new one, or the one in --journal."""
    data, model = read_processed(args.data, args.price_side), model_store.resolve(args.model)
    decider = Decider.from_checkpoint(model, args.price_side or data.price_side, args.cost_tier, args.costs)
    name = decider.instrument
    feed = BarFiles(args.bars, name, decider.others, args.price_side or data.price_side, args.clock)
    bars = feed.read()
    journal = Journal(args.journal / JOURNAL_FILE, claim=True)
    if journal.torn_bytes:
        logger.info("journal: the unfinished last line (%d bytes) will be dropped", journal.torn_bytes)
    start = _start(journal, bars[name], live=args.speed is None)
    history = history_before(data, bars, start)
    features = decider.follow(history)
    limits = {k: getattr(args, k) for k in LIMITS if getattr(args, k) is not None}
    facts = {
        "model_sha256": files.file_sha256(model),
        "instrument": name,
        "bar_seconds": decider.bar_seconds,
        "price_side": decider.price_side,
        "cost_tier": args.cost_tier,
        "start_equity": args.equity,
        **({"costs": args.costs} if args.costs else {}),
        "limits": limits,
        "start": start.isoformat(),
        "history_sha256": _hash_of(history[name]),
    }
    account = PaperAccount(decider, args.equity, limits)
    session = PaperSession(account, journal, facts, args.journal / KILL_FILE)
    session.restore({n: part[part.index >= start] for n, part in bars.items()})
    after = session.last_time or start - pd.Timedelta(seconds=1)
    return Opened(
        session, feed, after, _train_market(decider, history[name], data.train[name].index[-1], features)
    )


def follow(opened: Opened, speed: float | None, sleep: Callable[[float], object] = time.sleep) -> None:
    """Follow the feed until it ends, the account is ruined or the user interrupts.

    Parameters
    ----------
    speed : bars a second to replay, 0 as fast as possible; None watches the files as they grow
    """
    session, journal = opened.session, opened.session.journal
    watch, shown_s = Watch(session, opened.train, quiet=speed == 0), time.monotonic()
    page = journal.path.with_name(PAGE_FILE)
    logger.info("%s after %s, %d bars in %s", session.decider.instrument, f"{opened.after:%Y-%m-%d %H:%M}",
                max(0, len(journal.lines) - 1), journal.path)  # fmt: skip
    logger.info("page %s; Ctrl-C stops, the same command continues", page)
    feed = opened.feed.tail(opened.after) if speed is None else opened.feed.replay(opened.after)
    fresh = session.last_time is not None
    for count, bars in enumerate(feed):
        if bars is not None:
            with interrupts.deferred():  # the line of a bar is whole
                decision = session.take(bars)
            watch.show(decision)
            fresh = True
        if speed != 0 or count % _SYNC_EVERY == 0:
            journal.sync()
        if fresh and speed != 0 and (bars is None or time.monotonic() > shown_s + paper_page.REFRESH_S):
            paper_page.write_page(page, Journal(journal.path).lines, watch.standing(live=speed is None))
            fresh, shown_s = False, time.monotonic()
        if bars is None or speed:
            sleep(1.0 / speed if speed else _POLL_S)
        if session.account.over:
            logger.info("The account is ruined: equity is below 1 %% of its start.")
            break
    if session.last_time is not None:
        logger.info("%s", "  ".join(watch.summary()))
        logger.info(
            "equity if the position were closed now: %s", f"{session.account.equity_if_closed():,.2f}"
        )
        paper_page.write_page(page, Journal(journal.path).lines, watch.standing(live=speed is None))


def _train_market(
    decider: Decider, history: pd.DataFrame, train_end: pd.Timestamp, features: NDArray[np.float32]
) -> Market:
    """Return the history up to the end of the train split as a market, without the warm-up."""
    rows = slice(warmup_bars(decider.bar_seconds), int(history.index.searchsorted(train_end, side="right")))
    frame = pd.DataFrame(features[rows], history.index[rows], list(decider.feature_names))
    config = dataclasses.replace(decider.config, price_side=decider.price_side)
    return prepare_market(history.iloc[rows], frame, config, close_at_end=True)


def _start(journal: Journal, own: pd.DataFrame, *, live: bool) -> pd.Timestamp:
    """Return the open time of the account's first bar; live, the second after the newest bar's open."""
    if journal.lines:
        return pd.Timestamp(journal.lines[0]["start"])
    return own.index[-1] + pd.Timedelta(seconds=1) if live else own.index[0]


def _hash_of(bars: pd.DataFrame) -> str:
    columns = (open_seconds(bars), *price_columns(bars))
    return files.sha256(b"".join(column.tobytes() for column in columns))
